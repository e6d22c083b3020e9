/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef C8S_HARDENING_H
#define C8S_HARDENING_H

#include "report.h"

/* Kinds of sockets, and the bpf system call, that a pod may have. */
enum c8s_socket_kind {
	C8S_SOCKET_VSOCK = 1 << 0,
	C8S_SOCKET_PACKET = 1 << 1,
	C8S_SOCKET_XDP = 1 << 2,
	C8S_SOCKET_RAW = 1 << 3,
	C8S_SOCKET_BPF = 1 << 4,
};

/* Value of `pod_cgroups`, by the id of a pod's cgroup. */
struct c8s_pod_cgroup {
	__u32 ifindex; /* of the pod's link, for events */
	__u32 allowed; /* of enum c8s_socket_kind */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct c8s_pod_cgroup);
} pod_cgroups SEC(".maps");

/* Pods' cgroups lie less deep than this; how deep their processes are below
 * them does not matter. */
#define POD_CGROUP_DEPTH 32

/* The pod that the calling process belongs to. */
static __always_inline const struct c8s_pod_cgroup *current_pod(void)
{
	const struct c8s_pod_cgroup *pod;

	/* Level 0 is the root of the hierarchy, which is nobody's alone. */
	for (int level = 1; level < POD_CGROUP_DEPTH; level++) {
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);

		if (!id)
			break; /* deeper than the process */
		pod = bpf_map_lookup_elem(&pod_cgroups, &id);
		if (pod)
			return pod;
	}
	return 0;
}

#endif
