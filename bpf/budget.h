/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_BUDGET_H
#define C8S_BUDGET_H

#include "maps.h"

/* New TCP connections of a link, set by the loader: one each interval, and so
 * many at once. */
const volatile __u64 syn_interval = 250000; /* ns */
const volatile __u64 syn_burst = 8000;

/*
 * Takes one SYN from the link's budget, so that no pod fills the accept queue
 * that all pods of the node share. The budget is a point in time: every SYN
 * moves it on by an interval, and it may lie a burst ahead. Races between CPUs
 * admit at most one SYN too many for each CPU.
 */
static __always_inline bool syn_admitted(__u32 ifindex)
{
	__u64 now = bpf_ktime_get_ns(), fresh = now, due;
	__u64 *budget = bpf_map_lookup_elem(&syn_budget, &ifindex);

	if (!budget) {
		bpf_map_update_elem(&syn_budget, &ifindex, &fresh, BPF_NOEXIST);
		budget = bpf_map_lookup_elem(&syn_budget, &ifindex);
		if (!budget)
			return false; /* no room: more links than pods can be */
	}
	due = *(volatile __u64 *)budget;
	if (due < now) {
		__sync_val_compare_and_swap(budget, due, now);
		due = now;
	}
	if (due - now > (syn_burst - 1) * syn_interval)
		return false;
	__sync_fetch_and_add(budget, syn_interval);
	return true;
}

#endif
