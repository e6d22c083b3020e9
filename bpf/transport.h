/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_TRANSPORT_H
#define C8S_TRANSPORT_H

#include "packet.h"

#define TCP_SYN 0x02
#define TCP_ACK 0x10

#define TCP_HLEN 20
#define UDP_HLEN 8

/* Of IPv6's fragment header: the offset, and the bits that must be zero. */
#define IP6_OFFSET 0xfff8
#define IP6_RESERVED 0x0006

struct fragment6 {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

/* Steps over a fragment header that follows the fixed header. A chain with
 * anything between them is refused by its first extension. */
static __always_inline enum c8s_reason parse_fragment6(struct __sk_buff *skb, struct packet *p)
{
	struct fragment6 f;

	if (p->l4_len < sizeof(f) || bpf_skb_load_bytes(skb, p->l4, &f, sizeof(f)))
		return C8S_MALFORMED;
	if (f.reserved || f.offset & bpf_htons(IP6_RESERVED))
		return C8S_MALFORMED;
	p->proto = f.next;
	p->l4 += sizeof(f);
	p->l4_len -= sizeof(f);
	p->fragment = true;
	p->later = f.offset & bpf_htons(IP6_OFFSET);
	return C8S_ALLOWED;
}

/* Only such a packet makes a connection; what comes later belongs to one, or
 * the stack refuses it. */
static __always_inline bool first_syn(const struct packet *p)
{
	return p->proto == IPPROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline enum c8s_reason parse_tcp(struct __sk_buff *skb, struct packet *p)
{
	__u8 tcp[TCP_HLEN];
	__u32 head;

	if (bpf_skb_load_bytes(skb, p->l4, tcp, sizeof(tcp)))
		return C8S_MALFORMED;
	head = (tcp[12] >> 4) * 4;
	if (head < sizeof(tcp) || head > p->l4_len)
		return C8S_MALFORMED;
	__builtin_memcpy(&p->sport, tcp, 2);
	__builtin_memcpy(&p->dport, tcp + 2, 2);
	p->tcp_flags = tcp[13];
	return C8S_ALLOWED;
}

/*
 * A later fragment has no ports. It becomes a datagram only together with a
 * first one, which is judged like a whole datagram: fragments are multiples of
 * eight bytes, so the first holds the whole header, and what overlaps another
 * makes both stacks throw the whole datagram away (RFC 5722; IPv4 since 4.19).
 */
static __always_inline enum c8s_reason parse_udp(struct __sk_buff *skb, struct packet *p)
{
	__be16 udp[4];
	__u32 len;

	if (p->later)
		return p->l4_len ? C8S_ALLOWED : C8S_MALFORMED;
	if (p->l4_len < UDP_HLEN || bpf_skb_load_bytes(skb, p->l4, udp, sizeof(udp)))
		return C8S_MALFORMED;
	p->sport = udp[0];
	p->dport = udp[1];
	len = bpf_ntohs(udp[2]);
	if (len < UDP_HLEN || (!p->fragment && len > p->l4_len))
		return C8S_MALFORMED;
	return C8S_ALLOWED;
}

/* Allows TCP and UDP with a whole header and nothing between it and the IP
 * header, and fragments of UDP. */
static __always_inline enum c8s_reason parse_transport(struct __sk_buff *skb, struct packet *p)
{
	enum c8s_reason reason;

	if (p->options)
		return C8S_IP_OPTIONS;
	if (p->v6 && p->proto == IPPROTO_FRAGMENT) {
		reason = parse_fragment6(skb, p);
		if (reason)
			return reason;
	}
	if (p->fragment && p->proto != IPPROTO_UDP)
		return C8S_FRAGMENT;
	switch (p->proto) {
	case IPPROTO_TCP:
		return parse_tcp(skb, p);
	case IPPROTO_UDP:
		return parse_udp(skb, p);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return C8S_ICMP;
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
		return p->v6 ? C8S_EXTENSION_HEADER : C8S_PROTOCOL;
	}
	return C8S_PROTOCOL;
}

#endif
