/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_PROBE_H
#define C8S_PROBE_H

#include "transport.h"

/*
 * The kubelet's probes. A connection begins with a SYN of a socket of the
 * kubelet's cgroup to one of the pod's probe ports, and is remembered; its
 * other packets are told by that memory and not by their socket, since those
 * that TIME_WAIT and reset answer have none.
 */

static __always_inline bool probe_port(const struct c8s_pod *pod, __u16 port)
{
	port = bpf_ntohs(port);
	for (int i = 0; i < C8S_PROBE_PORTS; i++) {
		if (!pod->probes[i])
			return false;
		if (pod->probes[i] == port)
			return true;
	}
	return false;
}

/* Sockets belong to the cgroup in which they were made. */
static __always_inline bool from_kubelet(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct c8s_node *n = bpf_map_lookup_elem(&node, &zero);

	return n && n->kubelet && bpf_skb_cgroup_id(skb) == n->kubelet;
}

static __always_inline bool probe_known(const struct c8s_pod *pod, const struct c8s_flow *flow)
{
	__u64 *netns = bpf_map_lookup_elem(&probe_flows, flow);

	return netns && *netns == pod->netns;
}

/* Whether a packet of the node to the pod belongs to a probe. */
static __always_inline bool is_probe(struct __sk_buff *skb, const struct c8s_pod *pod, struct packet *p)
{
	struct c8s_flow flow = {};
	__u64 netns = pod->netns;

	if (!pod->probes[0] || parse_transport(skb, p) || p->proto != IPPROTO_TCP)
		return false;
	if (!own_address(pod, p, p->dst) || !probe_port(pod, p->dport))
		return false;
	__builtin_memcpy(flow.src, p->src, sizeof(flow.src));
	__builtin_memcpy(flow.dst, p->dst, sizeof(flow.dst));
	flow.sport = p->sport;
	flow.dport = p->dport;
	if (!first_syn(p))
		return probe_known(pod, &flow);
	return from_kubelet(skb) && !bpf_map_update_elem(&probe_flows, &flow, &netns, BPF_ANY);
}

/* Whether a packet of the pod answers a probe. */
static __always_inline bool is_probe_reply(const struct c8s_pod *pod, const struct packet *p)
{
	struct c8s_flow flow = {};

	if (p->proto != IPPROTO_TCP || !probe_port(pod, p->sport))
		return false;
	__builtin_memcpy(flow.src, p->dst, sizeof(flow.src));
	__builtin_memcpy(flow.dst, p->src, sizeof(flow.dst));
	flow.sport = p->dport;
	flow.dport = p->sport;
	return probe_known(pod, &flow);
}

#endif
