/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_SOCKET_H
#define C8S_SOCKET_H

#include "budget.h"
#include "transport.h"

/* sk_state of a UDP socket that is connected: TCP's number. */
#define UDP_CONNECTED 1

/* Firewall marks, set by the loader before the programs are loaded. */
const volatile __u32 mark_mask = 0x3000;
const volatile __u32 mark_capture = 0x1000;
const volatile __u32 mark_daemon = 0x2000;

static __always_inline __u32 slot_of(const struct packet *p)
{
	if (p->proto == IPPROTO_UDP)
		return p->v6 ? C8S_SLOT_UDP6 : C8S_SLOT_UDP4;
	return p->v6 ? C8S_SLOT_TCP6 : C8S_SLOT_TCP4;
}

/* The listener slot must be filled before a packet is handed to the local
 * stack: without the daemon, real host listeners would answer the pod. */
static __always_inline bool listening(__u32 slot)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &slot);

	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/*
 * Whether the kernel delivers to this address without a socket lookup, to
 * every socket that listens for it: __udp4_lib_rcv, __udp6_lib_rcv. IPv4
 * broadcast addresses are a matter of routes, which no helper tells apart from
 * the node's own addresses: the loader lists them.
 */
static __always_inline bool delivered_to_all(const struct packet *p)
{
	__u32 dst = p->dst[3];

	if (p->v6)
		return (p->dst[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
	return (dst & bpf_htonl(0xf0000000)) == bpf_htonl(0xe0000000) || dst == bpf_htonl(0xffffffff) ||
	       bpf_map_lookup_elem(&broadcasts, &dst);
}

static __always_inline __u32 tuple_of(struct bpf_sock_tuple *t, const struct packet *p)
{
	if (p->v6) {
		__builtin_memcpy(t->ipv6.saddr, p->src, 16);
		__builtin_memcpy(t->ipv6.daddr, p->dst, 16);
		t->ipv6.sport = p->sport;
		t->ipv6.dport = p->dport;
		return sizeof(t->ipv6);
	}
	t->ipv4.saddr = p->src[3];
	t->ipv4.daddr = p->dst[3];
	t->ipv4.sport = p->sport;
	t->ipv4.dport = p->dport;
	return sizeof(t->ipv4);
}

static __always_inline bool of_daemon(const struct bpf_sock *sk)
{
	return (sk->mark & mark_mask) == mark_daemon;
}

/*
 * Asks the kernel who will get the packet, and takes a first datagram from its
 * link's budget. The lookup runs steer as delivery
 * does, so it finds the daemon's listener even where a socket of the node is
 * bound to the port, and something else where steer has been taken away or a
 * connected UDP socket of the node comes before steer.
 */
static __always_inline enum c8s_reason judge_receiver(struct __sk_buff *skb, const struct packet *p)
{
	struct bpf_sock_tuple tuple = {};
	__u32 len = tuple_of(&tuple, p);
	struct bpf_sock *sk;
	bool ours, first;

	if (p->proto == IPPROTO_UDP) {
		if (p->later)
			return C8S_ALLOWED;
		sk = bpf_sk_lookup_udp(skb, &tuple, len, BPF_F_CURRENT_NETNS, 0);
	} else {
		if (!first_syn(p))
			return C8S_ALLOWED;
		sk = bpf_sk_lookup_tcp(skb, &tuple, len, BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		/* A connection in TIME_WAIT is no full socket: its port may be
		 * used again. A datagram meets the listener, or nobody. */
		return p->proto == IPPROTO_UDP ? C8S_NO_LISTENER : C8S_ALLOWED;
	ours = of_daemon(sk);
	/* The sockets of flows are connected to the pod; steer's is not. */
	first = p->proto == IPPROTO_UDP && sk->state != UDP_CONNECTED;
	bpf_sk_release(sk);
	if (!ours)
		return C8S_HOST_SOCKET;
	return first && !datagram_admitted(skb, p) ? C8S_DATAGRAM_RATE : C8S_ALLOWED;
}

#endif
