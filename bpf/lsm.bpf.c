// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//go:build ignore

/*
 * Hardening by the kernel's security hooks, where it has BPF among them. It is
 * never the lock: a pod's seccomp filter refuses the same before it, and a
 * node without it is as closed for everything that goes over pods' links.
 *
 * Processes are told by their cgroup: in and below a pod's, what the pod's
 * entry does not list is refused with EPERM. Anybody else is not asked about.
 */
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#include "hardening.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define EPERM 1

#define AF_INET 2
#define AF_INET6 10
#define AF_PACKET 17
#define AF_VSOCK 40
#define AF_XDP 44
#define SOCK_RAW 3

static __always_inline __u32 kind_of(int family, int type)
{
	switch (family) {
	case AF_VSOCK:
		return C8S_SOCKET_VSOCK;
	case AF_PACKET:
		return C8S_SOCKET_PACKET;
	case AF_XDP:
		return C8S_SOCKET_XDP;
	case AF_INET:
	case AF_INET6:
		return type == SOCK_RAW ? C8S_SOCKET_RAW : 0;
	}
	return 0;
}

static __always_inline int judge(__u32 kind, __u8 proto, enum c8s_reason reason)
{
	const struct c8s_pod_cgroup *pod = current_pod();
	struct packet p = { .proto = proto };

	if (!pod || (pod->allowed & kind))
		return 0;
	refuse(pod->ifindex, &p, reason);
	return -EPERM;
}

/*
 * pod_socket: security_socket_create(family, type, protocol, kern).
 * Contract: a process of a pod makes no vsock, packet, XDP or raw socket that
 * its entry does not list. Sockets of the kernel itself are not asked about.
 */
SEC("lsm/socket_create")
int pod_socket(__u64 *ctx)
{
	__u32 kind = kind_of((int)ctx[0], (int)ctx[1]);

	if (!kind || (int)ctx[3])
		return 0;
	return judge(kind, kind == C8S_SOCKET_RAW ? ctx[2] : 0, C8S_POD_SOCKET);
}

/*
 * pod_bpf: security_bpf(cmd, attr, size).
 * Contract: a process of a pod makes no bpf system call, unless its entry
 * lists it.
 */
SEC("lsm/bpf")
int pod_bpf(__u64 *ctx)
{
	return judge(C8S_SOCKET_BPF, 0, C8S_POD_BPF);
}
