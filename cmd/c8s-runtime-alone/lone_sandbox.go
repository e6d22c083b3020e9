// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

// sandbox admits the sandbox of a pod in the node's network: bootstrap entries
// have no other, and a pod with a network needs the daemon to lock it. It is a
// listed image as it is, and shares what some bootstrap entry may share.
func (l lone) sandbox(m *policy.Manifest, spec *specs.Spec, c image.Container) error {
	if d := m.AdmitSandbox(c.Image.Digest); !d.Allowed {
		return d
	}
	shared := facts.HostNamespaces(spec.Linux.Namespaces)
	if !slices.Contains(shared, policy.NamespaceNetwork) {
		return notRunning("a pod with a network of its own")
	}
	f := l.node.Container(spec, facts.Pod{
		ContainerID: c.Pod.SandboxID, SandboxID: c.Pod.SandboxID, UID: spec.Annotations[facts.AnnotationSandboxUID], HostNamespaces: shared,
	})
	for _, ns := range f.HostNamespaces {
		if !slices.ContainsFunc(m.Workloads, func(w policy.Workload) bool { return bootstrapShares(&w, ns) }) {
			return notRunning(fmt.Sprintf("a sandbox in the node's %s namespace, which no bootstrap entry shares", ns))
		}
	}
	f.Image = c.Image
	if expected, actual := facts.BeyondImage(f); expected != "" {
		return fmt.Errorf("a sandbox with %s instead of %s", actual, expected)
	}
	return nil
}

// bootstrapShares: the node's host name comes with its network.
func bootstrapShares(w *policy.Workload, ns string) bool {
	if !w.Bootstrap || !w.HostNetwork {
		return false
	}
	return ns == policy.NamespaceNetwork || ns == policy.NamespaceUTS || slices.ContainsFunc(w.Images, func(i policy.Image) bool {
		return i.Run != nil && (slices.Contains(i.Run.HostNamespaces, ns) || i.Run.Privileged && ns == policy.NamespaceCgroup)
	})
}
