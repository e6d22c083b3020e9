// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
)

// maskedPaths and readonlyPaths are what every runtime hides or protects in
// /proc and /sys; newer ones hide more.
func maskedPaths() []string {
	return []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/sys/firmware"}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func (s *start) devices() Decision {
	if s.run.Privileged {
		return s.allow()
	}
	if i := unlistedIn(s.c.Devices, s.run.Devices); i >= 0 {
		return s.refuse(CodeDeviceNotAllowed, ".devices", listOr(s.run.Devices, "no device"), quote(s.c.Devices[i]), "list its path in the container if it is meant")
	}
	return s.allow()
}

// namespaces: being in the node's network, which is judged already, brings the
// node's host name.
func (s *start) namespaces() Decision {
	for _, ns := range s.c.HostNamespaces {
		ofNetwork := s.w.HostNetwork && (ns == NamespaceNetwork || ns == NamespaceUTS)
		if !ofNetwork && !slices.Contains(s.run.HostNamespaces, ns) {
			return s.refuse(CodeHostNamespace, ".hostNamespaces", listOr(s.run.HostNamespaces, "no namespace of the node"), quote(ns), "list it if the container is meant to see the node's")
		}
	}
	return s.allow()
}

// seccomp: without a filter everything is open.
func (s *start) seccomp() Decision {
	f := s.c.Seccomp
	if f == nil {
		if s.c.Early {
			return s.allow()
		}
		return s.refuse(CodeSeccompUnknown, ".sockets", "the container's seccomp filter", "none known", "the node could not tell what the container may open")
	}
	open := f.Open
	if f.Unconfined {
		open = SocketKinds()
	}
	if i := unlistedIn(open, s.run.Sockets); i >= 0 {
		return s.refuse(CodeSocketNotAllowed, ".sockets", "a seccomp filter that leaves open "+listOr(s.run.Sockets, "none of "+strings.Join(SocketKinds(), ", ")),
			"one that leaves open "+quote(open[i]), "the node adds such a filter unless something replaces it; list the kind if it is meant")
	}
	return s.allow()
}

func (s *start) privileges() Decision {
	p := s.c.Privileges
	switch {
	case p == nil && s.c.Early, s.run.Privileged && p != nil:
		return s.allow()
	case p == nil:
		return s.refuse(CodePrivilegesUnknown, ".privileged", "the container's privileges", "none known", "the node could not tell what the container may do")
	}
	if d := s.capabilities(p); !d.Allowed {
		return d
	}
	const remedy = "only privileged containers may have it"
	if p.AllDevices {
		return s.refuse(CodePrivileged, ".privileged", "a container that may open its own devices only", "one that may open every device", remedy)
	}
	if i := unlistedIn(maskedPaths(), p.MaskedPaths); i >= 0 {
		return s.refuse(CodePrivileged, ".privileged", "a hidden "+maskedPaths()[i], "one that is not", remedy)
	}
	protected := slices.Concat(p.ReadonlyPaths, p.MaskedPaths)
	if i := unlistedIn(readonlyPaths(), protected); i >= 0 {
		return s.refuse(CodePrivileged, ".privileged", "a read-only "+readonlyPaths()[i], "a writable one", remedy)
	}
	return s.allow()
}

// capabilities: the runtime's default set is allowed, but not as ambient
// capabilities, which would give it to users that lose it otherwise.
func (s *start) capabilities(p *PrivilegeFacts) Decision {
	for i, list := range [][]string{p.Capabilities, p.Ambient} {
		for _, c := range list {
			name := strings.TrimPrefix(c, "CAP_")
			if slices.Contains(s.run.Capabilities, name) || i == 0 && slices.Contains(defaultCapabilities(), name) {
				continue
			}
			return s.refuse(CodeCapabilityNotAllowed, ".capabilities", listOr(s.run.Capabilities, "the runtime's default set"), quote(c), "list it if it is meant")
		}
	}
	return s.allow()
}
