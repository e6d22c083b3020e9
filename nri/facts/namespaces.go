// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/policy"
)

// namespaceFile maps the namespaces that a pod's containers share to their
// names in manifests and in /proc/<pid>/ns.
var namespaceFile = map[specs.LinuxNamespaceType]struct{ name, file string }{
	specs.NetworkNamespace: {policy.NamespaceNetwork, "net"},
	specs.IPCNamespace:     {policy.NamespaceIPC, "ipc"},
	specs.UTSNamespace:     {policy.NamespaceUTS, "uts"},
	specs.PIDNamespace:     {policy.NamespacePID, "pid"},
}

// namespaces returns those of the node that a container of the pod would
// share, and as foreign those that are neither its own, nor the pod's, nor the
// node's. What a configuration does not name is the node's.
func (n *Node) namespaces(list []specs.LinuxNamespace, pod Pod) (host, foreign []string) {
	found := map[specs.LinuxNamespaceType]bool{}
	for i, ns := range list {
		if found[ns.Type] {
			foreign = append(foreign, fmt.Sprintf("linux.namespaces[%d].type", i))
		}
		found[ns.Type] = true
		kind, shared := namespaceFile[ns.Type]
		switch {
		case ns.Type == specs.TimeNamespace:
			foreign = append(foreign, fmt.Sprintf("linux.namespaces[%d].type", i))
		case ns.Path == "": // a new one
		case ns.Type == specs.UserNamespace && ns.Path == procNamespace(pod.PID, "user") && pod.PID != 0:
		case !shared || !pod.owns(ns.Type, ns.Path, kind.file):
			foreign = append(foreign, fmt.Sprintf("linux.namespaces[%d].path", i))
		case slices.Contains(pod.HostNamespaces, kind.name):
			host = append(host, kind.name)
		}
	}
	if !found[specs.MountNamespace] {
		foreign = append(foreign, "linux.namespaces: no mount namespace")
	}
	for kind, names := range namespaceFile {
		if !found[kind] {
			host = append(host, names.name)
		}
	}
	if !found[specs.CgroupNamespace] && n.CgroupNamespaces {
		host = append(host, policy.NamespaceCgroup)
	}
	slices.Sort(host)
	return host, foreign
}

// owns reports whether a path leads to the namespace that the pod's sandbox is
// in, which may be the node's, or to the PID namespace of one of its containers.
func (p *Pod) owns(kind specs.LinuxNamespaceType, path, file string) bool {
	if p.PID != 0 && path == procNamespace(p.PID, file) {
		return true
	}
	if kind == specs.NetworkNamespace {
		return p.Netns != "" && path == p.Netns
	}
	return kind == specs.PIDNamespace && !slices.Contains(p.HostNamespaces, policy.NamespacePID) &&
		slices.ContainsFunc(p.Processes, func(pid uint32) bool { return pid != 0 && path == procNamespace(pid, file) })
}

func procNamespace(pid uint32, file string) string { return fmt.Sprintf("/proc/%d/ns/%s", pid, file) }

// HostNamespaces lists those of the node that a sandbox shares: the ones it
// does not name.
func HostNamespaces(list []specs.LinuxNamespace) []string {
	var host []string
	for kind, names := range namespaceFile {
		if !slices.ContainsFunc(list, func(ns specs.LinuxNamespace) bool { return ns.Type == kind }) {
			host = append(host, names.name)
		}
	}
	slices.Sort(host)
	return host
}

// Netns is the path of a sandbox's network namespace, or empty.
func Netns(list []specs.LinuxNamespace) string {
	for _, ns := range list {
		if ns.Type == specs.NetworkNamespace {
			return ns.Path
		}
	}
	return ""
}
