/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_MAPS_H
#define C8S_MAPS_H

#include "report.h"

#define C8S_AF_INET6 10

enum c8s_pod_state {
	C8S_POD_CLOSED = 0, /* deny-all: known, not admitted */
	C8S_POD_OPEN = 1,
};

enum c8s_pod_flags {
	C8S_POD_HOST_ACCESS = 1 << 0, /* processes on the node may connect */
};

/* How many ports of a pod the kubelet may probe. */
#define C8S_PROBE_PORTS 16

enum c8s_slot {
	C8S_SLOT_TCP4,
	C8S_SLOT_TCP6,
	C8S_SLOT_UDP4,
	C8S_SLOT_UDP6,
	C8S_SLOTS,
};

/* Value of `pods`, by the ifindex of the host side of the link. */
struct c8s_pod {
	__u64 netns; /* cookie of the pod's namespace: an ifindex is reused */
	__u32 state;
	__u32 flags;
	__u32 master;   /* ifindex of the bridge, 0 for a routed pod */
	__u32 addr4;    /* network order, 0 for none */
	__u32 addr6[4]; /* network order, 0 for none */
	__u8 gateway[6]; /* the bridge's own MAC address */
	__u8 pad[2];
	__u16 probes[C8S_PROBE_PORTS]; /* TCP ports, host order; 0 ends the list */
};

/* Value of `pod_addrs`, by IPv6 or IPv4-mapped address. */
struct c8s_pod_addr {
	__u32 ifindex;
	__u32 master;
};

/* The only value of `node`. */
struct c8s_node {
	__u64 kubelet; /* id of the kubelet's cgroup, 0 for none: no probes */
};

/* Key of `probe_flows`: a connection of the kubelet to a pod, as its packets
 * to the pod name it. The value is the cookie of the pod's namespace. */
struct c8s_flow {
	__u32 src[4];
	__u32 dst[4];
	__u16 sport; /* network order, as dport */
	__u16 dport;
};

/* Value of `netns_owners`, by the cookie of a pod's namespace. */
struct c8s_netns_owner {
	__u64 cgroup; /* only processes in and below it make IP sockets there */
	__u32 ifindex; /* of the pod's link, for events */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct c8s_pod);
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u32[4]);
	__type(value, struct c8s_pod_addr);
} pod_addrs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct c8s_node);
} node SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct c8s_flow);
	__type(value, __u64);
} probe_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct c8s_netns_owner);
} netns_owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, C8S_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

/* IPv4 broadcast addresses of the node's own networks, network order. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u32);
} broadcasts SEC(".maps");

/* When the SYN budget of a link is whole again, CLOCK_MONOTONIC ns. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} syn_budget SEC(".maps");

/* Likewise, of the link's first datagrams. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, __u64);
} datagram_budget SEC(".maps");

#endif
