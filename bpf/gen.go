// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the kernel half of the lock: the C programs that keep
// whatever a pod sends from being forwarded and whatever was forwarded from
// reaching a pod, and their Go bindings. The programs refuse what they cannot
// parse completely; every refusal has one Reason, shared by C, Go, metrics
// and docs/drop-reasons.md.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type c8s_pod -type c8s_pod_addr -type c8s_event -type c8s_node -type c8s_flow -type c8s_netns_owner C8s c8s.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -type c8s_pod_cgroup LSM lsm.bpf.c -- -O2 -g -mcpu=v3 -Wall -Werror -I/usr/include/x86_64-linux-gnu
//go:generate go run ./internal/genreasons -in reasons.h -go reason_gen.go -doc ../docs/drop-reasons.md

// What the maps hold.
type (
	Pod        = C8sC8sPod
	PodAddr    = C8sC8sPodAddr
	Event      = C8sC8sEvent
	Node       = C8sC8sNode
	Flow       = C8sC8sFlow
	NetnsOwner = C8sC8sNetnsOwner
	PodCgroup  = LSMC8sPodCgroup
)

// States of a Pod and its flags, as in maps.h.
const (
	PodClosed     = 0
	PodOpen       = 1
	PodHostAccess = 1 << 0
)

// ProbePorts is how many ports of a pod the kubelet may probe.
const ProbePorts = len(Pod{}.Probes)

// Slots of the map listeners, as in maps.h.
const (
	SlotTCP4 = iota
	SlotTCP6
	SlotUDP4
	SlotUDP6
)

// What a PodCgroup allows, as in hardening.h.
const (
	SocketVsock = 1 << iota
	SocketPacket
	SocketXDP
	SocketRaw
	SocketBPF
)
