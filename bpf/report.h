/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_REPORT_H
#define C8S_REPORT_H

/* How a refusal is counted and reported, by the lock and by the hardening. */

#include "reasons.h"

#define EVENTS_PER_SECOND 20
#define SECOND_NS 1000000000ULL

/* What is known of a packet. Addresses are IPv6 or IPv4-mapped. */
struct packet {
	__u32 src[4];
	__u32 dst[4];
	__u32 target[4]; /* of neighbour discovery */
	__u16 sport;
	__u16 dport;
	__u8 proto;
	bool v6;
	bool neighbour; /* ARP or neighbour discovery */
	bool options;  /* IPv4 options */
	bool fragment; /* of a larger packet, or with a header that says so */
	bool later;    /* a fragment behind the transport header */
	__u8 nd_type;
	__u8 tcp_flags;
	__u32 l4;     /* offset of the transport header */
	__u32 l4_len; /* bytes from there on, as the IP header says */
};

/* One refusal. Addresses are IPv6 or IPv4-mapped, ports network order. */
struct c8s_event {
	__u64 time; /* CLOCK_MONOTONIC, ns */
	__u32 ifindex;
	__u32 reason;
	__u32 src[4];
	__u32 dst[4];
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 pad[3];
	__u32 suppressed; /* refusals of this link not reported since the last event */
	__u32 pad2;
};

struct c8s_budget {
	__u64 window; /* start of the current second, ns */
	__u32 used;
	__u32 suppressed;
};

/* Room for reasons to come, so that a new one does not change the map. */
#define C8S_REASONS_MAX 64
_Static_assert(C8S_REASON_COUNT <= C8S_REASONS_MAX, "drops has no room for all reasons");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, C8S_REASONS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct c8s_budget);
} event_budget SEC(".maps");

/* Takes one event from the link's budget of the current second. */
static __always_inline bool may_report(__u32 ifindex, __u64 now, __u32 *suppressed)
{
	struct c8s_budget fresh = { .window = now, .used = 1 };
	struct c8s_budget *b = bpf_map_lookup_elem(&event_budget, &ifindex);

	*suppressed = 0;
	if (!b) {
		bpf_map_update_elem(&event_budget, &ifindex, &fresh, BPF_ANY);
		return true;
	}
	/* Races between CPUs misjudge a few events, never a verdict. */
	if (now - b->window >= SECOND_NS) {
		*suppressed = b->suppressed;
		b->window = now;
		b->used = 1;
		b->suppressed = 0;
		return true;
	}
	if (b->used < EVENTS_PER_SECOND) {
		b->used++;
		return true;
	}
	__sync_fetch_and_add(&b->suppressed, 1);
	return false;
}

/* Counts a refusal, and reports it while the link's budget lasts. */
static __always_inline void refuse(__u32 ifindex, const struct packet *p, enum c8s_reason reason)
{
	__u32 key = reason, suppressed;
	__u64 *count = bpf_map_lookup_elem(&drops, &key);
	__u64 now = bpf_ktime_get_ns();
	struct c8s_event *e;

	if (count)
		(*count)++;
	if (!may_report(ifindex, now, &suppressed))
		return;
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	e->time = now;
	e->ifindex = ifindex;
	e->reason = reason;
	__builtin_memcpy(e->src, p->src, sizeof(e->src));
	__builtin_memcpy(e->dst, p->dst, sizeof(e->dst));
	e->sport = p->sport;
	e->dport = p->dport;
	e->proto = p->proto;
	e->suppressed = suppressed;
	bpf_ringbuf_submit(e, 0);
}

#endif
