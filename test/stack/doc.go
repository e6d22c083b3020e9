// SPDX-License-Identifier: Apache-2.0

// Package stack runs the real thing for tests: containerd, runc and CNI
// plugins on nodes (Node), and Kubernetes across them (Cluster).
//
// Invariant: nothing of a node outlives the process that made it, and nothing
// it does reaches the machine. A node has network, mount, UTS and cgroup
// namespaces of its own; its folders /etc, /var, /opt, /usr/local, /run and
// /sys are its own; its network ends at a bridge that only other nodes are
// on. Everything that runs on it is in one cgroup, which is killed as a whole
// when the node is closed or its owner dies. Process ids are the machine's,
// so that those in NRI events, in eBPF and in /proc agree.
//
// See docs/stack.md for how to use it and what to know.
package stack
