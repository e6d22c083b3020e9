// SPDX-License-Identifier: Apache-2.0

// Package facts reads from an OCI runtime configuration what a container is
// about to be started with.
//
// Its invariant: nothing that a configuration asks for is left out. What no
// fact is about ends up in Other, a mount whose source is not recognised is a
// path of the node, and both are refused unless a rule names them. The package
// judges nothing; that is policy's.
//
// It is small, because c8s-runtime links it and starts for every container.
package facts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/policy"
)

// Annotations by which containerd's CRI plugin says what a container is for.
// They come from containerd, and pods cannot set them.
const (
	AnnotationType             = "io.kubernetes.cri.container-type" // TypeSandbox or TypeContainer
	AnnotationName             = "io.kubernetes.cri.container-name"
	AnnotationImage            = "io.kubernetes.cri.image-name"
	AnnotationSandboxID        = "io.kubernetes.cri.sandbox-id"
	AnnotationSandboxName      = "io.kubernetes.cri.sandbox-name"
	AnnotationSandboxNamespace = "io.kubernetes.cri.sandbox-namespace"
	AnnotationSandboxUID       = "io.kubernetes.cri.sandbox-uid"

	TypeSandbox   = "sandbox"
	TypeContainer = "container"
)

// Pod is what is known of a container beside its configuration: which one it is
// to containerd, and the pod that it is meant for.
type Pod struct {
	ContainerID    string
	UID            string
	SandboxID      string
	PID            uint32   // of the sandbox's process; its namespaces are the pod's
	Netns          string   // path; empty in the node's network
	Cgroup         string   // of the whole pod, a path or a systemd slice; empty: not known
	HostNamespaces []string // that the sandbox shares with the node
	Sysctls        []string // that the sandbox was made with
	Processes      []uint32 // first processes of the pod's containers: a debugging container may join their PID namespace
}

// Node answers what only the machine knows.
type Node struct {
	Kubelet    string   // the kubelet's folder; "/var/lib/kubelet" where it was not moved
	Containerd []string // the folders of containerd's CRI plugin, persistent and volatile
	// CgroupNamespaces: containers get a cgroup namespace of their own, as they
	// do where the node has the unified hierarchy alone.
	CgroupNamespaces bool
	OnTmpfs          func(path string) (bool, error)
	Mounts           func() ([]byte, error) // the node's mountinfo, see proc_pid_mountinfo(5)
}

// Parse reads a runtime's config.json. A setting that the specification does
// not have in this version could be one that the runtime knows, and refuses.
func Parse(config []byte) (*specs.Spec, error) {
	var s specs.Spec
	if err := strict(config, &s); err != nil {
		return nil, fmt.Errorf("reading the container's configuration: %w", err)
	}
	if s.Process == nil || s.Root == nil || s.Linux == nil {
		return nil, errors.New("reading the container's configuration: it has no process, root or linux section")
	}
	return &s, nil
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the JSON object")
	}
	return nil
}

// Container returns the facts of a final configuration, except for the image
// and stdin, which it does not tell.
func (n *Node) Container(s *specs.Spec, pod Pod) policy.ContainerFacts {
	f := n.Early(s, pod)
	f.Early = false
	f.Privileges = privileges(s)
	if s.Linux.CgroupsPath == "" && pod.Cgroup != "" {
		f.Other = append(f.Other, "linux.cgroupsPath")
	}
	return f
}

// Early returns the facts of a configuration that is not final and of which
// parts are not known.
func (n *Node) Early(s *specs.Spec, pod Pod) policy.ContainerFacts {
	f := policy.ContainerFacts{
		Name: s.Annotations[AnnotationName], Early: true,
		Hooks:   hooks(s.Hooks),
		Sysctls: slices.Clone(pod.Sysctls),
		Other:   other(s),
	}
	if p := s.Process; p != nil {
		f.Args, f.Env, f.Cwd, f.Terminal = p.Args, p.Env, p.Cwd, p.Terminal
		f.User = policy.UserFacts{UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids}
		for _, r := range p.Rlimits {
			f.Rlimits = append(f.Rlimits, r.Type)
		}
	}
	if l := s.Linux; l != nil {
		for name := range l.Sysctl {
			f.Sysctls = append(f.Sysctls, name)
		}
		slices.Sort(f.Sysctls)
		f.Devices = devices(l)
		f.Seccomp = &policy.SeccompFacts{Open: Open(l.Seccomp), Unconfined: l.Seccomp == nil}
		var foreign []string
		f.HostNamespaces, foreign = n.namespaces(l.Namespaces, pod)
		f.Other = append(f.Other, foreign...)
		if l.CgroupsPath != "" && !pod.holds(l.CgroupsPath) {
			f.Other = append(f.Other, "linux.cgroupsPath")
		}
	}
	for _, m := range s.Mounts {
		f.Mounts = append(f.Mounts, n.mount(m, s, pod, f.HostNamespaces))
	}
	return f
}

// holds reports whether a container's cgroup is in the pod's: the kernel tells
// by it which processes are the pod's.
func (p *Pod) holds(cgroup string) bool {
	if p.Cgroup == "" {
		return true
	}
	return path.Clean(cgroup) == cgroup && strings.HasPrefix(cgroup, p.Cgroup+"/") || strings.HasPrefix(cgroup, path.Base(p.Cgroup)+":")
}

func hooks(h *specs.Hooks) int {
	if h == nil {
		return 0
	}
	//lint:ignore SA1019 deprecated, and runtimes still run them
	return len(h.Prestart) + len(h.CreateRuntime) + len(h.CreateContainer) + len(h.StartContainer) + len(h.Poststart) + len(h.Poststop)
}

func privileges(s *specs.Spec) *policy.PrivilegeFacts {
	p := &policy.PrivilegeFacts{
		MaskedPaths: s.Linux.MaskedPaths, ReadonlyPaths: s.Linux.ReadonlyPaths, AllDevices: allDevices(s.Linux),
	}
	if c := s.Process.Capabilities; c != nil {
		all := slices.Concat(c.Bounding, c.Effective, c.Permitted, c.Inheritable, c.Ambient)
		slices.Sort(all)
		p.Capabilities, p.Ambient = slices.Compact(all), c.Ambient
	}
	return p
}

// other lists what the configuration asks for and no fact is about, by its
// path in config.json. Limits of resources are not among it: they can make a
// container slow or end it, and nothing else. Nor are labels of Linux security
// modules, which the node's own policy gives a meaning.
func other(s *specs.Spec) []string {
	var found []string
	note := func(asked bool, at string) {
		if asked {
			found = append(found, at)
		}
	}
	note(s.Solaris != nil, "solaris")
	note(s.Windows != nil, "windows")
	note(s.VM != nil, "vm")
	note(s.ZOS != nil, "zos")
	note(s.FreeBSD != nil, "freebsd")
	if p := s.Process; p != nil {
		note(p.CommandLine != "", "process.commandLine")
		note(p.User.Username != "", "process.user.username")
	}
	if l := s.Linux; l != nil {
		note(len(l.NetDevices) > 0, "linux.netDevices")
		note(l.Personality != nil, "linux.personality")
		note(len(l.TimeOffsets) > 0, "linux.timeOffsets")
		note(l.RootfsPropagation != "" && !slices.Contains(rootPropagations(s), l.RootfsPropagation), "linux.rootfsPropagation")
		if l.Seccomp != nil {
			note(l.Seccomp.ListenerPath != "", "linux.seccomp.listenerPath")
		}
	}
	// systemd and crun take orders by annotations. Pods' own annotations reach
	// a container only where the runtime class says so.
	for name := range s.Annotations {
		for _, prefix := range []string{"org.systemd.property.", "run.oci."} {
			note(strings.HasPrefix(name, prefix), "annotations["+name+"]")
		}
	}
	slices.Sort(found)
	return found
}

// rootPropagations: the root has to propagate where a mount does, which is a
// fact of that mount.
func rootPropagations(s *specs.Spec) []string {
	allowed := []string{"private", "rprivate", "slave", "rslave"}
	for _, m := range s.Mounts {
		if _, p := options(m); p == "shared" || p == "rshared" {
			return append(allowed, "shared", "rshared")
		}
	}
	return allowed
}
