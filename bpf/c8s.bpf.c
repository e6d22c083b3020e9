// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * The lock. Nothing a pod sends is ever forwarded, nothing forwarded ever
 * reaches a pod, and what cannot be parsed completely is dropped.
 *
 * Every program counts what it drops in `drops` by reason and reports it,
 * rate-limited per link, in `events`. Verdicts: deny is TC_ACT_SHOT, capture
 * and delivery are TC_ACT_OK; under tcx any verdict but TCX_NEXT ends the
 * chain, so the programs stand at its head.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "budget.h"
#include "maps.h"
#include "packet.h"
#include "probe.h"
#include "reasons.h"
#include "socket.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* pod_ingress stamps what it lets through; skb->tc_index survives the veth
 * crossing into the pod's namespace, where skb->mark is scrubbed. */
#define GUARD_STAMP 0xc8a5

/* Puts struct c8s_event into the BTF, for the Go bindings and layout check. */
const struct c8s_event *const event_layout __attribute__((unused)) = 0;

static __always_inline int drop(struct __sk_buff *skb, struct packet *p, enum c8s_reason reason)
{
	refuse(skb->ifindex, p, reason);
	return TC_ACT_SHOT;
}

static __always_inline enum c8s_reason judge_egress(struct __sk_buff *skb, const struct c8s_pod *pod, struct packet *p)
{
	enum c8s_reason reason;

	reason = parse_link(skb, p);
	if (reason)
		return reason;
	if (p->neighbour) {
		if (!neighbour_of(pod, p))
			return C8S_NEIGHBOUR_SPOOF;
		return neighbour_fits(skb, p) ? C8S_ALLOWED : C8S_MALFORMED;
	}
	if (!own_address(pod, p, p->src))
		return C8S_SPOOFED_SOURCE;
	reason = parse_transport(skb, p);
	if (reason)
		return reason;
	if (delivered_to_all(p))
		return C8S_MULTICAST;
	if (listening(slot_of(p))) {
		if (first_syn(p) && !syn_admitted(skb->ifindex))
			return C8S_SYN_RATE;
		return judge_receiver(skb, p);
	}
	/* Probes go on without the daemon, or the kubelet would restart every
	 * pod. Local delivery finds the kubelet's connection; for anything
	 * else steer finds no listener either, and drops. */
	return is_probe_reply(pod, p) ? C8S_ALLOWED : C8S_NO_LISTENER;
}

/*
 * pod_egress: host side of a pod's link, ingress hook.
 * Contract: TCP and UDP from the pod's own address are marked for local
 * delivery where the daemon receives them, ARP and neighbour discovery about
 * the pod's own address pass, the rest drops.
 */
SEC("tc")
int pod_egress(struct __sk_buff *skb)
{
	struct packet p = {};
	__u32 ifindex = skb->ifindex;
	struct c8s_pod *pod = bpf_map_lookup_elem(&pods, &ifindex);
	enum c8s_reason reason;

	if (!pod)
		return drop(skb, &p, C8S_POD_UNKNOWN);
	if (pod->state != C8S_POD_OPEN) {
		parse_link(skb, &p); /* for the event only */
		return drop(skb, &p, C8S_POD_LOCKED);
	}
	reason = judge_egress(skb, pod, &p);
	if (reason)
		return drop(skb, &p, reason);
	if (p.neighbour)
		return TC_ACT_OK;
	if (pod->master) {
		/* A bridge port: addressed to the bridge itself, or it would
		 * switch the packet to another pod below IP. */
		if (bpf_skb_store_bytes(skb, 0, pod->gateway, ETH_ALEN, 0))
			return drop(skb, &p, C8S_MALFORMED);
	}
	if (bpf_skb_change_type(skb, 0 /* PACKET_HOST */))
		return drop(skb, &p, C8S_MALFORMED);
	skb->mark = (skb->mark & ~mark_mask) | mark_capture;
	return TC_ACT_OK;
}

/*
 * pod_ingress: host side of a pod's link, egress hook.
 * Contract: only the daemon's packets, the kubelet's probes of the pod's probe
 * ports, and the node's own where the pod admits them, reach the pod, if they
 * are for its own address; forwarded ones never do.
 */
SEC("tc")
int pod_ingress(struct __sk_buff *skb)
{
	struct packet p = {};
	__u32 ifindex = skb->ifindex;
	struct c8s_pod *pod = bpf_map_lookup_elem(&pods, &ifindex);
	enum c8s_reason reason;

	if (!pod)
		return drop(skb, &p, C8S_POD_UNKNOWN);
	reason = parse_link(skb, &p);
	if (pod->state != C8S_POD_OPEN)
		return drop(skb, &p, C8S_POD_LOCKED);
	if (reason)
		return drop(skb, &p, reason);
	if (p.neighbour) {
		if (!neighbour_fits(skb, &p))
			return drop(skb, &p, C8S_MALFORMED);
	} else {
		if (skb->ingress_ifindex)
			return drop(skb, &p, C8S_FORWARDED_TO_POD);
		if (!own_address(pod, &p, p.dst))
			return drop(skb, &p, C8S_NOT_FOR_POD);
		if ((skb->mark & mark_mask) != mark_daemon && !(pod->flags & C8S_POD_HOST_ACCESS) && !is_probe(skb, pod, &p))
			return drop(skb, &p, C8S_NOT_FROM_DAEMON);
	}
	/* On TC_ACT_OK both tcx (tcx_action_code) and clsact (tc_run) copy
	 * tc_classid over tc_index. */
	skb->tc_classid = GUARD_STAMP;
	skb->tc_index = GUARD_STAMP;
	return TC_ACT_OK;
}

/*
 * pod_guard: the pod's own link, ingress hook, inside its namespace.
 * Contract: a packet that did not pass pod_ingress (bpf_redirect_peer and
 * other shortcuts) drops.
 */
SEC("tc")
int pod_guard(struct __sk_buff *skb)
{
	struct packet p = {};

	if (skb->tc_index == GUARD_STAMP)
		return TC_ACT_OK;
	parse_link(skb, &p);
	return drop(skb, &p, C8S_GUARD_BYPASS);
}

/*
 * Whether an ICMP error quotes a packet that was not sent to where the error
 * comes from. What the node says about packets that it received itself comes
 * from the address that they were sent to; any other error is about a packet on
 * its way, and the only ones are those that the daemon sends to pods.
 */
static __always_inline bool quotes_another(struct __sk_buff *skb, const struct packet *p)
{
	__u32 sent_to[4];
	__u8 type;

	if (p->proto != (p->v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		return false;
	if (bpf_skb_load_bytes(skb, p->l4, &type, 1))
		return true;
	if (p->v6) {
		if (type >= 128) /* no error: RFC 4443, section 2.1 */
			return false;
		if (bpf_skb_load_bytes(skb, p->l4 + 8 + offsetof(struct ipv6hdr, daddr), sent_to, 16))
			return true;
	} else {
		__u32 addr;

		if (type != 3 && type != 4 && type != 5 && type != 11 && type != 12) /* RFC 1122, section 3.2.2 */
			return false;
		if (bpf_skb_load_bytes(skb, p->l4 + 8 + offsetof(struct iphdr, daddr), &addr, 4))
			return true;
		map_v4(sent_to, addr);
	}
	return !same(sent_to, p->src);
}

/*
 * node_egress: uplinks, egress hook.
 * Contract: packets the node forwards drop, so that a pod whose link was
 * missed still cannot talk. So do the daemon's packets to pods, which are in
 * the clear, and errors that quote them: both come here when a pod is gone.
 */
SEC("tc")
int node_egress(struct __sk_buff *skb)
{
	struct packet p = {};
	enum c8s_reason unread = parse_link(skb, &p);

	if (skb->ingress_ifindex)
		return drop(skb, &p, C8S_FORWARDED);
	if ((skb->mark & mark_mask) == mark_daemon)
		return drop(skb, &p, C8S_ASTRAY);
	if (!unread && quotes_another(skb, &p))
		return drop(skb, &p, C8S_ICMP_QUOTE);
	return TC_ACT_OK;
}

static __always_inline int steer_drop(struct bpf_sk_lookup *ctx, const struct packet *p, enum c8s_reason reason)
{
	refuse(ctx->ingress_ifindex, p, reason);
	return SK_DROP;
}

/*
 * steer: socket lookup in the host namespace.
 * Contract: a new flow from a pod goes to the daemon's transparent socket
 * of its protocol and to no other; a pod's address on any other link drops.
 */
SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	struct packet p = { .proto = ctx->protocol, .v6 = ctx->family == C8S_AF_INET6 };
	struct c8s_pod_addr *owner;
	struct bpf_sock *sk;
	__u32 slot;
	long err;

	if (p.v6) {
		for (int i = 0; i < 4; i++) {
			p.src[i] = ctx->remote_ip6[i];
			p.dst[i] = ctx->local_ip6[i];
		}
	} else {
		map_v4(p.src, ctx->remote_ip4);
		map_v4(p.dst, ctx->local_ip4);
	}
	p.sport = ctx->remote_port;
	p.dport = bpf_htons(ctx->local_port);
	owner = bpf_map_lookup_elem(&pod_addrs, p.src);
	if (!owner)
		return SK_PASS;
	if (ctx->ingress_ifindex != owner->ifindex && !(owner->master && ctx->ingress_ifindex == owner->master))
		return steer_drop(ctx, &p, C8S_STEER_SPOOFED);
	slot = slot_of(&p);
	sk = bpf_map_lookup_elem(&listeners, &slot);
	if (!sk)
		return steer_drop(ctx, &p, C8S_STEER_NO_LISTENER);
	/* To this very socket, whoever else shares its port. */
	err = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_REPLACE | BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(sk);
	return err ? steer_drop(ctx, &p, C8S_STEER_NO_LISTENER) : SK_PASS;
}

/* Deeper cgroups than this are refused. */
#define CGROUP_DEPTH 32

/*
 * netns_guard: socket creation, at the root of the node's cgroups.
 * Contract: in the network namespace of a pod whose cgroup is known, only
 * processes in and below that cgroup make IP sockets. The kernel's own
 * sockets, netlink and packet sockets are not asked about.
 */
SEC("cgroup/sock_create")
int netns_guard(struct bpf_sock *sk)
{
	__u64 cookie = bpf_get_netns_cookie(sk);
	struct c8s_netns_owner *owner = bpf_map_lookup_elem(&netns_owners, &cookie);
	struct packet p = {};

	if (!owner)
		return 1;
	/* Level 0 is the root of the hierarchy, which is nobody's alone. */
	for (int level = 1; level < CGROUP_DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			break; /* deeper than the process */
		if (id == owner->cgroup)
			return 1;
	}
	p.proto = sk->protocol;
	refuse(owner->ifindex, &p, C8S_FOREIGN_SOCKET);
	return 0;
}
