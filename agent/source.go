// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// PodInfo is what a Source says about one pod. It is a claim by an untrusted
// party (the kubelet, a file): it selects what to look at, and the manifest,
// the kernel and the CDS decide what the pod may be.
type PodInfo struct {
	Namespace string               `json:"namespace"`
	Name      string               `json:"name"`
	UID       string               `json:"uid"`
	Netns     string               `json:"netns"`            // path of the pod's network namespace
	Interface string               `json:"interface"`        // the pod's own link inside Netns, usually eth0
	Addrs     []netip.Addr         `json:"addresses"`        // at most one IPv4 and one IPv6 address
	Images    []policy.Digest      `json:"images"`           // config digest of every container's image
	Signed    []policy.SignedImage `json:"signed,omitempty"` // those whose publisher's signature this node verified
	Cgroup    string               `json:"cgroup,omitempty"` // the pod's own in the cgroup2 hierarchy: path, or systemd slice; only its processes make IP sockets in Netns
	Entry     string               `json:"entry,omitempty"`  // asks for one workload entry; only narrows
}

// Ref names the pod as Kubernetes users do.
func (p PodInfo) Ref() string { return p.Namespace + "/" + p.Name }

// Validate reports every reason why p cannot be acted upon.
func (p PodInfo) Validate() error {
	var errs []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	need(p.Namespace != "", "namespace is empty")
	need(p.Name != "", "name is empty")
	need(p.UID != "", "uid is empty")
	need(strings.HasPrefix(p.Netns, "/"), "netns %q is not an absolute path", p.Netns)
	need(p.Interface != "", "interface is empty")
	need(len(p.Images) > 0, "images is empty")
	var v4, v6 int
	for _, a := range p.Addrs {
		switch {
		case !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.Zone() != "":
			errs = append(errs, fmt.Errorf("address %s cannot be a pod address", a))
		case a.Is4():
			v4++
		case a.Is4In6():
			errs = append(errs, fmt.Errorf("address %s is IPv4-mapped; write it as IPv4", a))
		default:
			v6++
		}
	}
	need(v4+v6 > 0, "addresses is empty")
	need(v4 <= 1 && v6 <= 1, "more than one address of a family: %v", p.Addrs)
	return errors.Join(errs...)
}

// PodEvent is one change in the set of pods of this node.
type PodEvent struct {
	Removed bool // otherwise added or changed
	Pod     PodInfo
}

// Source tells the agent which pods the node has. Watch sends the present
// pods first, then every change, until ctx ends. It never closes out.
type Source interface {
	Watch(ctx context.Context, out chan<- PodEvent) error
}
