// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/nri/facts"
)

// specOf is as much of an OCI configuration as NRI tells of a container. It has
// no working directory, capabilities or masked paths.
func specOf(c *api.Container) *specs.Spec {
	linux := c.GetLinux()
	s := &specs.Spec{
		Annotations: maps.Clone(c.GetAnnotations()),
		Process: &specs.Process{
			Args: c.GetArgs(), Env: c.GetEnv(),
			User: specs.User{UID: c.GetUser().GetUid(), GID: c.GetUser().GetGid(), AdditionalGids: c.GetUser().GetAdditionalGids()},
		},
		Hooks: hooksOf(c.GetHooks()),
		Linux: &specs.Linux{
			Namespaces: namespacesOf(linux.GetNamespaces()), Sysctl: linux.GetSysctl(), Seccomp: seccompOf(linux.GetSeccompPolicy()),
			CgroupsPath: linux.GetCgroupsPath(),
		},
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[facts.AnnotationName] = c.GetName()
	for _, r := range c.GetRlimits() {
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: r.GetType(), Hard: r.GetHard(), Soft: r.GetSoft()})
	}
	for _, m := range c.GetMounts() {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: m.GetDestination(), Type: m.GetType(), Source: m.GetSource(), Options: m.GetOptions()})
	}
	for _, d := range linux.GetDevices() {
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: d.GetPath(), Type: d.GetType(), Major: d.GetMajor(), Minor: d.GetMinor()})
	}
	for _, d := range c.GetCDIDevices() { // what they stand for is the runtime's to say
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: d.GetName()})
	}
	for name := range linux.GetNetDevices() {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{name: {}}
	}
	return s
}

func namespacesOf(list []*api.LinuxNamespace) []specs.LinuxNamespace {
	var all []specs.LinuxNamespace
	for _, ns := range list {
		all = append(all, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(ns.GetType()), Path: ns.GetPath()})
	}
	return all
}

func hooksOf(h *api.Hooks) *specs.Hooks {
	n := len(h.GetPrestart()) + len(h.GetCreateRuntime()) + len(h.GetCreateContainer()) + len(h.GetStartContainer()) + len(h.GetPoststart()) + len(h.GetPoststop())
	return &specs.Hooks{CreateRuntime: make([]specs.Hook, n)} // their number is all that counts
}

// seccompOf: no policy is an unconfined container.
func seccompOf(p *api.LinuxSeccomp) *specs.LinuxSeccomp {
	if p == nil {
		return nil
	}
	s := &specs.LinuxSeccomp{
		DefaultAction: specs.LinuxSeccompAction(p.GetDefaultAction()), ListenerPath: p.GetListenerPath(), ListenerMetadata: p.GetListenerMetadata(),
		Syscalls: api.ToOCILinuxSyscalls(p.GetSyscalls()),
	}
	if e := p.GetDefaultErrno(); e != nil {
		ret := uint(e.GetValue())
		s.DefaultErrnoRet = &ret
	}
	for _, a := range p.GetArchitectures() {
		s.Architectures = append(s.Architectures, specs.Arch(a))
	}
	for _, f := range p.GetFlags() {
		s.Flags = append(s.Flags, specs.LinuxSeccompFlag(f))
	}
	return s
}

// adjust applies what all plugins together want to the container as the runtime
// made it, as containerd will.
func adjust(c *api.Container, a *api.ContainerAdjustment) *specs.Spec {
	s := specOf(c)
	linux := a.GetLinux()
	if args := a.GetArgs(); len(args) > 0 {
		s.Process.Args = slices.Clone(args)
		if args[0] == "" { // the mark that others' arguments are replaced
			s.Process.Args = slices.Clone(args[1:])
		}
	}
	for _, e := range a.GetEnv() {
		name, removed := e.IsMarkedForRemoval()
		s.Process.Env = slices.DeleteFunc(slices.Clone(s.Process.Env), func(v string) bool { return strings.HasPrefix(v, name+"=") })
		if !removed {
			s.Process.Env = append(s.Process.Env, name+"="+e.GetValue())
		}
	}
	for _, m := range a.GetMounts() {
		at, removed := m.IsMarkedForRemoval()
		s.Mounts = slices.DeleteFunc(s.Mounts, func(o specs.Mount) bool { return o.Destination == at })
		if !removed {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: at, Type: m.GetType(), Source: m.GetSource(), Options: m.GetOptions()})
		}
	}
	for _, d := range linux.GetDevices() {
		path, removed := d.IsMarkedForRemoval()
		s.Linux.Devices = slices.DeleteFunc(s.Linux.Devices, func(o specs.LinuxDevice) bool { return o.Path == path })
		if !removed {
			s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: path, Type: d.GetType(), Major: d.GetMajor(), Minor: d.GetMinor()})
		}
	}
	for _, d := range a.GetCDIDevices() {
		s.Linux.Devices = append(s.Linux.Devices, specs.LinuxDevice{Path: d.GetName()})
	}
	for _, ns := range linux.GetNamespaces() {
		kind, removed := ns.IsMarkedForRemoval()
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(o specs.LinuxNamespace) bool { return string(o.Type) == kind })
		if !removed {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.LinuxNamespaceType(kind), Path: ns.GetPath()})
		}
	}
	s.Linux.Sysctl = maps.Clone(s.Linux.Sysctl)
	for name, value := range linux.GetSysctl() {
		name, removed := api.IsMarkedForRemoval(name)
		if s.Linux.Sysctl == nil {
			s.Linux.Sysctl = map[string]string{}
		}
		if s.Linux.Sysctl[name] = value; removed {
			delete(s.Linux.Sysctl, name)
		}
	}
	for _, r := range a.GetRlimits() {
		s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{Type: r.GetType(), Hard: r.GetHard(), Soft: r.GetSoft()})
	}
	s.Hooks.CreateRuntime = append(s.Hooks.CreateRuntime, hooksOf(a.GetHooks()).CreateRuntime...)
	if p := linux.GetCgroupsPath(); p != "" {
		s.Linux.CgroupsPath = p
	}
	if p := linux.GetSeccompPolicy(); p != nil {
		s.Linux.Seccomp = seccompOf(p)
	}
	for name := range linux.GetNetDevices() {
		s.Linux.NetDevices = map[string]specs.LinuxNetDevice{name: {}}
	}
	for name := range a.GetAnnotations() {
		s.Annotations[name] = ""
	}
	return s
}

// addresses reads a pod's addresses; what is not one is not there.
func addresses(ips []string) []netip.Addr {
	var addrs []netip.Addr
	for _, ip := range ips {
		if a, err := netip.ParseAddr(ip); err == nil {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}
