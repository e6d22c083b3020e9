// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/policy"
)

// CodePodLink refuses a pod whose network cannot be locked as a whole.
const CodePodLink policy.Code = "pod-link"

// LinkLock answers c8s-cni at the gate: it locks a pod's link before the pod
// has a process. Its error is nil only if the link is locked, and no other link
// leads out of the pod.
type LinkLock struct {
	Kernel interface {
		LockNew(ctx context.Context, link loader.PodLink) error
	}
}

// Lock implements the gate's question of that name.
func (l LinkLock) Lock(ctx context.Context, r gate.LockRequest) error {
	refuse := func(expected, actual, remedy string) error {
		return policy.Decision{Code: CodePodLink, Rule: "the lock of pod links", Expected: expected, Actual: actual, Remedy: remedy}
	}
	ifindex, err := hostLink(r.NetNS, r.Interface)
	if err != nil {
		return refuse("a veth or netkit pair between pod and node", err.Error(), "use a CNI plugin that gives pods such a pair")
	}
	if r.HostInterface != "" {
		host, err := netlink.LinkByIndex(ifindex)
		if err != nil {
			return fmt.Errorf("locking the pod's link: %w", err)
		}
		if host.Attrs().Name != r.HostInterface {
			return refuse("the node's side of the link to be "+r.HostInterface, "it is "+host.Attrs().Name, "")
		}
	}
	// Looked for before the lock, which then keeps the kernel's links busy, and
	// judged after it: the lock is never wrong to have.
	others, listed := otherLinks(r.NetNS, r.Interface)
	if err := l.Kernel.LockNew(ctx, loader.PodLink{Ifindex: ifindex, NetnsPath: r.NetNS, GuestInterface: r.Interface}); err != nil {
		return fmt.Errorf("locking the pod's link: %w", err)
	}
	if listed != nil {
		return fmt.Errorf("locking the pod's link: %w", listed)
	}
	if len(others) > 0 {
		return refuse("no link in the pod but "+r.Interface, "there is "+named(others), "take the additional networks off the pod")
	}
	return nil
}

// fallbackTunnels are made by the kernel in every new network namespace where
// their modules are loaded. What they send leaves through the locked link.
var fallbackTunnels = []string{"ipip", "sit", "ip6tnl", "gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan", "vti", "vti6"}

// strayLinks lists the links of a network namespace that could carry packets
// past the one that is locked, with the handle to change them.
func strayLinks(netnsPath, name string) ([]netlink.Link, *netlink.Handle, error) {
	ns, err := netns.GetFromPath(netnsPath)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the pod's network namespace %s: %w", netnsPath, err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE) // not of every family: a kernel may lack some
	if err != nil {
		return nil, nil, fmt.Errorf("asking in the pod's network namespace: %w", err)
	}
	links, err := h.LinkList()
	if err != nil {
		h.Close()
		return nil, nil, fmt.Errorf("listing the pod's links: %w", err)
	}
	return slices.DeleteFunc(links, func(link netlink.Link) bool {
		a := link.Attrs()
		tunnel := slices.Contains(fallbackTunnels, link.Type()) && a.ParentIndex == 0
		return a.Name == name || a.Flags&net.FlagLoopback != 0 || tunnel
	}), h, nil
}
