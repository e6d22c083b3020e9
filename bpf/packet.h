/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_PACKET_H
#define C8S_PACKET_H

#include "maps.h"

/* Ethernet minimum frame without FCS: an honest ARP packet is no longer, so
 * no data hides behind it. Neighbour discovery carries at most a few options. */
#define ARP_MAX_LEN 60
#define ND_MAX_LEN 128

/* Flags and offset of IPv4's frag_off. */
#define IP_MORE 0x2000
#define IP_OFFSET 0x1fff

static __always_inline void map_v4(__u32 *to, __u32 addr)
{
	to[0] = 0;
	to[1] = 0;
	to[2] = bpf_htonl(0xffff);
	to[3] = addr;
}

static __always_inline bool same(const __u32 *a, const __u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

static __always_inline bool unspecified(const __u32 *a)
{
	return !(a[0] | a[1] | a[2] | a[3]);
}

static __always_inline bool mapped_v4(const __u32 *a)
{
	return !(a[0] | a[1]) && a[2] == bpf_htonl(0xffff);
}

static __always_inline bool link_local(const __u32 *a)
{
	return (a[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

struct arp_ipv4 {
	__be16 hrd, pro;
	__u8 hln, pln;
	__be16 op;
	__u8 sha[6];
	__u8 sip[4];
	__u8 tha[6];
	__u8 tip[4];
} __attribute__((packed));

static __always_inline enum c8s_reason parse_arp(struct __sk_buff *skb, struct packet *p)
{
	struct arp_ipv4 arp;
	__u32 ip;

	p->neighbour = true;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)))
		return C8S_MALFORMED;
	if (arp.hrd != bpf_htons(1 /* Ethernet */) || arp.pro != bpf_htons(ETH_P_IP) || arp.hln != ETH_ALEN || arp.pln != 4)
		return C8S_MALFORMED;
	__builtin_memcpy(&ip, arp.sip, 4);
	map_v4(p->src, ip);
	__builtin_memcpy(&ip, arp.tip, 4);
	map_v4(p->dst, ip);
	return C8S_ALLOWED;
}

/* Neighbour discovery that a pod and its neighbours need: RFC 4861. */
static __always_inline enum c8s_reason parse_icmp6(struct __sk_buff *skb, struct packet *p, __u8 hop_limit)
{
	__u8 head[24];

	if (bpf_skb_load_bytes(skb, p->l4, head, 8))
		return C8S_MALFORMED;
	p->nd_type = head[0];
	if (p->nd_type < 133 || p->nd_type > 137)
		return C8S_ALLOWED; /* plain ICMPv6: refused by its protocol */
	p->neighbour = true;
	if (hop_limit != 255)
		return C8S_NEIGHBOUR_SPOOF;
	if (p->nd_type == 135 || p->nd_type == 136) {
		if (bpf_skb_load_bytes(skb, p->l4, head, sizeof(head)))
			return C8S_MALFORMED;
		__builtin_memcpy(p->target, head + 8, 16);
	}
	return C8S_ALLOWED;
}

/* What the IP header says follows it. Segments above 64 KiB, which only the
 * kernel's own segmentation makes, say 0. */
static __always_inline __u32 payload(const struct __sk_buff *skb, __u32 said)
{
	return said || !skb->gso_size ? said : 0xffff;
}

/* Reads the link and network headers into p. What is refused here could not
 * be understood; whether the rest may pass is for the caller. */
static __always_inline enum c8s_reason parse_link(struct __sk_buff *skb, struct packet *p)
{
	__be16 proto;

	if (skb->vlan_present)
		return C8S_VLAN;
	if (bpf_skb_load_bytes(skb, 12, &proto, 2))
		return C8S_MALFORMED;
	if (proto == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		__u32 total, head;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
			return C8S_MALFORMED;
		total = bpf_ntohs(ip.tot_len);
		head = ip.ihl * 4;
		if (total && total < head)
			return C8S_MALFORMED;
		p->proto = ip.protocol;
		map_v4(p->src, ip.saddr);
		map_v4(p->dst, ip.daddr);
		p->l4 = ETH_HLEN + head;
		p->l4_len = total ? total - head : payload(skb, 0);
		p->options = ip.ihl != 5;
		p->fragment = ip.frag_off & bpf_htons(IP_OFFSET | IP_MORE);
		p->later = ip.frag_off & bpf_htons(IP_OFFSET);
		return C8S_ALLOWED;
	}
	if (proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 6)
			return C8S_MALFORMED;
		p->v6 = true;
		p->proto = ip.nexthdr;
		__builtin_memcpy(p->src, &ip.saddr, 16);
		__builtin_memcpy(p->dst, &ip.daddr, 16);
		/* Written this way an IPv4 address is not for packets: it
		 * would be taken for the address itself from here on. */
		if (mapped_v4(p->src) || mapped_v4(p->dst))
			return C8S_MALFORMED;
		p->l4 = ETH_HLEN + sizeof(ip);
		p->l4_len = payload(skb, bpf_ntohs(ip.payload_len));
		if (p->proto == IPPROTO_ICMPV6)
			return parse_icmp6(skb, p, ip.hop_limit);
		return C8S_ALLOWED;
	}
	if (proto == bpf_htons(ETH_P_ARP))
		return parse_arp(skb, p);
	return proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD) ? C8S_VLAN : C8S_ETHERTYPE;
}

/* Whether an address in the packet is the pod's own, of the packet's family. */
static __always_inline bool own_address(const struct c8s_pod *pod, const struct packet *p, const __u32 *addr)
{
	if (p->v6)
		return !unspecified(pod->addr6) && same(addr, pod->addr6);
	return pod->addr4 && addr[3] == pod->addr4;
}

/* Whether an IPv6 address is one that the pod may say it has. Nobody tells the
 * daemon the link-local ones, which carry nothing but these messages. */
static __always_inline bool claims(const struct c8s_pod *pod, const struct packet *p, const __u32 *addr)
{
	return link_local(addr) || own_address(pod, p, addr);
}

/* Whether a neighbour message speaks for the pod itself and for nobody else.
 * A question without a sender asks whether an address is taken, and whoever
 * else is about to have it gives it up (RFC 4862 5.4.3, RFC 5227 2.1.1): it
 * speaks for what it asks about. Routers' messages are never a pod's to send. */
static __always_inline bool neighbour_of(const struct c8s_pod *pod, const struct packet *p)
{
	if (!p->v6)
		return own_address(pod, p, p->src[3] ? p->src : p->dst);
	switch (p->nd_type) {
	case 133: /* router solicitation */
		return unspecified(p->src) || claims(pod, p, p->src);
	case 135: /* neighbour solicitation */
		return claims(pod, p, unspecified(p->src) ? p->target : p->src);
	case 136: /* neighbour advertisement */
		return claims(pod, p, p->src) && claims(pod, p, p->target);
	}
	return false;
}

/* Whether a neighbour message is short enough to carry nothing else. */
static __always_inline bool neighbour_fits(const struct __sk_buff *skb, const struct packet *p)
{
	return skb->len <= (p->v6 ? ND_MAX_LEN : ARP_MAX_LEN);
}

#endif
