/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_BUDGET_H
#define C8S_BUDGET_H

#include "maps.h"

/* New TCP connections of a link, set by the loader: one each interval, and so
 * many at once. */
const volatile __u64 syn_interval = 250000; /* ns */
const volatile __u64 syn_burst = 8000;

/* Memory of the queue of first datagrams that a link may fill, set by the
 * loader: a KiB each interval, and so many ns of that at once. */
const volatile __u64 datagram_interval = 30517;
const volatile __u64 datagram_burst = 62500000;

/*
 * Takes cost from the link's budget, so that no pod fills a queue that all pods
 * of the node share. The budget is a point in time: what is taken moves it on,
 * and it may lie a burst ahead. Races between CPUs admit at most one packet too
 * many for each CPU.
 */
static __always_inline bool admitted(void *budgets, __u32 ifindex, __u64 cost, __u64 burst)
{
	__u64 now = bpf_ktime_get_ns(), fresh = now, due;
	__u64 *budget = bpf_map_lookup_elem(budgets, &ifindex);

	if (!budget) {
		bpf_map_update_elem(budgets, &ifindex, &fresh, BPF_NOEXIST);
		budget = bpf_map_lookup_elem(budgets, &ifindex);
		if (!budget)
			return false; /* no room: more links than pods can be */
	}
	due = *(volatile __u64 *)budget;
	if (due < now) {
		__sync_val_compare_and_swap(budget, due, now);
		due = now;
	}
	if (due - now + cost > burst)
		return false;
	__sync_fetch_and_add(budget, cost);
	return true;
}

/* One SYN: the queue is that of connections to be accepted. */
static __always_inline bool syn_admitted(__u32 ifindex)
{
	return admitted(&syn_budget, ifindex, syn_interval, syn_burst * syn_interval);
}

/* sk_buff and skb_shared_info of a datagram in a queue, and the smallest data
 * between them, on 64 bit. */
#define DATAGRAM_OVERHEAD 768
#define DATAGRAM_MAX 65535

/*
 * What a packet may take of a socket's receive buffer, nearly: the kernel
 * allocates data in powers of two. A packet for the kernel to segment is a
 * datagram for each segment. How much will follow a first fragment is unknown,
 * so it counts as the largest datagram there is.
 */
static __always_inline __u64 queue_room(const struct __sk_buff *skb, const struct packet *p)
{
	__u64 len = p->fragment ? DATAGRAM_MAX : skb->len, datagrams = 1;

	if (skb->gso_size)
		datagrams += len / skb->gso_size;
	return 2 * len + datagrams * DATAGRAM_OVERHEAD;
}

/* A datagram that no socket of a flow will receive: the queue is that of the
 * daemon's socket for the first datagrams of flows. */
static __always_inline bool datagram_admitted(const struct __sk_buff *skb, const struct packet *p)
{
	return admitted(&datagram_budget, skb->ifindex, queue_room(skb, p) * datagram_interval / 1024, datagram_burst);
}

#endif
