// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/policy"
)

const serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// kernelMounts are the file systems that the runtime mounts in every container,
// by destination, and what they are called as sources.
var kernelMounts = map[string][]string{
	"/proc": {"proc"}, "/dev": {"tmpfs"}, "/dev/pts": {"devpts"}, "/dev/mqueue": {"mqueue"},
	"/sys": {"sysfs"}, "/sys/fs/cgroup": {"cgroup", "cgroup2"}, "/dev/shm": {"tmpfs"},
}

// sandboxFiles are what containerd makes for a pod, and where it belongs.
var sandboxFiles = map[string]string{
	"hostname": "/etc/hostname", "hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf", "shm": "/dev/shm",
}

// volumePlugins maps the kubelet's volume plugins to the words of manifests.
// Others keep what they hold beyond the pod.
var volumePlugins = map[string]string{
	"empty-dir": policy.MountEmptyDir, "configmap": policy.MountConfigMap, "secret": policy.MountSecret,
	"projected": policy.MountProjected, "downward-api": policy.MountDownwardAPI, "csi": policy.MountCSI,
}

// localVolume is the plugin that binds whichever path of the node a
// PersistentVolume names: what it mounts is a path of the node.
const localVolume = "local-volume"

// mount says where a mount comes from.
func (n *Node) mount(m specs.Mount, s *specs.Spec, pod Pod, hostNamespaces []string) policy.MountFacts {
	readOnly, propagation := options(m)
	f := policy.MountFacts{Destination: path.Clean(m.Destination), ReadOnly: readOnly, Propagation: propagation}
	switch {
	case isBind(m):
		f.Source, f.HostPath = n.bindSource(m.Source, f.Destination, pod, hostNamespaces)
	case slices.Contains(kernelMounts[f.Destination], m.Type):
		f.Source = policy.MountRuntime
	case m.Type == "tmpfs":
		f.Source = policy.MountTmpfs
	default:
		f.Source = "a file system of type " + m.Type
	}
	if f.Source == policy.MountProjected && f.Destination == serviceAccountPath && strings.HasPrefix(path.Base(m.Source), "kube-api-access-") {
		f.Source = policy.MountServiceAccount
	}
	return f
}

// bindSource tells the kind of what is bound from the node. Only paths spelled
// exactly as the kubelet and containerd spell theirs are theirs: one element
// more, a ".." or another pod's UID makes it a path of the node.
func (n *Node) bindSource(source, destination string, pod Pod, hostNamespaces []string) (kind, hostPath string) {
	if path.Clean(source) == source && path.IsAbs(source) {
		if kind := n.podSource(source, destination, pod); kind != "" {
			return kind, ""
		}
		if kind := n.containerdSource(source, destination, pod); kind != "" {
			return kind, ""
		}
		if source == destination && source == "/dev/shm" && slices.Contains(hostNamespaces, policy.NamespaceIPC) {
			return policy.MountRuntime, ""
		}
		if of := n.behind(source, pod); of != "" {
			return policy.MountHostPath, of
		}
	}
	return policy.MountHostPath, source
}

// podSource recognises what the kubelet made for this pod.
func (n *Node) podSource(source, destination string, pod Pod) string {
	rest, ok := below(n.podFolder(pod), source)
	if !ok {
		return ""
	}
	parts := strings.Split(rest, "/")
	switch {
	case rest == "etc-hosts" && destination == "/etc/hosts":
		return policy.MountRuntime
	case parts[0] == "containers" && len(parts) == 3: // the termination log
		if destination == "/dev/termination-log" {
			return policy.MountRuntime
		}
		return policy.MountEmptyDir // a file, empty at first, that the pod placed elsewhere
	case parts[0] == "volumes" && len(parts) >= 3:
		return n.volume(parts[1], parts[3:], source)
	case parts[0] == "volume-subpaths" && len(parts) == 4:
		return n.subPath(source, pod)
	}
	return ""
}

func (n *Node) podFolder(pod Pod) string {
	if pod.UID == "" || strings.ContainsAny(pod.UID, "/.") {
		return "" // nothing is below it
	}
	return path.Join(n.Kubelet, "pods", pod.UID)
}

// volume reads <pod>/volumes/kubernetes.io~<plugin>/<name>, which for CSI ends
// in /mount.
func (n *Node) volume(plugin string, more []string, source string) string {
	plugin, own := strings.CutPrefix(plugin, "kubernetes.io~")
	csi := plugin == "csi" && len(more) == 1 && more[0] == "mount"
	if !own || plugin == localVolume || len(more) > 0 && !csi {
		return ""
	}
	kind, known := volumePlugins[plugin]
	switch {
	case !known:
		return policy.MountPersistentVolume
	case kind == policy.MountEmptyDir && n.onTmpfs(source):
		return policy.MountMemory
	}
	return kind
}

// onTmpfs: where it cannot be told, a volume is taken for one on disk, which is
// the lesser promise.
func (n *Node) onTmpfs(source string) bool {
	if n.OnTmpfs == nil {
		return false
	}
	on, err := n.OnTmpfs(source)
	return on && err == nil
}

// containerdSource recognises what containerd made for this pod and for this
// container.
func (n *Node) containerdSource(source, destination string, pod Pod) string {
	for _, folder := range n.Containerd {
		rest, ok := below(folder, source)
		if !ok || pod.SandboxID == "" {
			continue
		}
		parts := strings.Split(rest, "/")
		switch {
		case len(parts) == 3 && parts[0] == "sandboxes" && parts[1] == pod.SandboxID && sandboxFiles[parts[2]] == destination:
			return policy.MountRuntime
		case len(parts) == 3 && parts[0] == "image-volumes" && parts[1] == pod.SandboxID:
			return policy.MountImage
		case len(parts) == 4 && parts[0] == "containers" && parts[1] == pod.ContainerID && parts[2] == "volumes":
			return policy.MountImageVolume
		}
	}
	return ""
}

// below returns the rest of a path that is below a folder.
func below(folder, p string) (string, bool) {
	if folder == "" || folder == "/" {
		return "", false
	}
	rest, ok := strings.CutPrefix(p, folder+"/")
	return rest, ok && rest != ""
}

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// options reads those that facts are about; the last of a kind counts.
func options(m specs.Mount) (readOnly bool, propagation string) {
	for _, o := range m.Options {
		switch o {
		case "ro", "rro":
			readOnly = true
		case "rw", "rrw":
			readOnly = false
		case "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable":
			propagation = o
		}
	}
	return readOnly, propagation
}
