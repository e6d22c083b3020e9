// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

const serviceAccountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// runtimeMounts are the places where runtime and kubelet mount something in
// every container. A pod can move the termination log, which could hide any
// file of the image: only its default place is among them.
func runtimeMounts() []string {
	return []string{
		"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/termination-log",
		"/sys", "/sys/fs/cgroup", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
	}
}

// mounts: each is the runtime's own, the image's, or a rule's for exactly this
// place.
func (s *start) mounts() Decision {
	for i := range s.c.Mounts {
		m := &s.c.Mounts[i]
		if slices.ContainsFunc(s.c.Mounts[:i], func(o MountFacts) bool { return o.Destination == m.Destination }) {
			return s.refuse(CodeMountNotAllowed, ".mounts", "one mount at a place", "a second one at "+quote(m.Destination), "the later one hides the other")
		}
		if in := s.foreignAbove(m); in != nil {
			return s.refuse(CodeMountNotAllowed, ".mounts", "mounts in directories of the image", quote(m.Destination)+" below "+mountText(in),
				"what is in a volume can lead a mount below it anywhere in the container: mount it beside the volume")
		}
		if d := s.mount(m); !d.Allowed {
			return d
		}
	}
	return s.required()
}

// required: without its state a program would begin anew, and without its
// configuration do what the image says.
func (s *start) required() Decision {
	for i, r := range s.run.Mounts {
		if r.Required && !slices.ContainsFunc(s.c.Mounts, func(m MountFacts) bool { return m.Destination == r.Destination }) {
			return s.refuse(CodeMountMissing, elementPath(".mounts", i)+".required", fmt.Sprintf("%s at %s", quote(r.Source), quote(r.Destination)), "nothing mounted there", "mount it as the rule says")
		}
	}
	return s.allow()
}

// foreignAbove finds a volume in whose directories m is to be mounted, and which
// others fill: runtimes follow links on the way, so that a link in it would put
// m over any file of the image.
func (s *start) foreignAbove(m *MountFacts) *MountFacts {
	for i := range s.c.Mounts {
		o := &s.c.Mounts[i]
		foreign := o.Source == MountPersistentVolume || o.Source == MountCSI || o.Source == MountImage
		if foreign && strings.HasPrefix(m.Destination, strings.TrimSuffix(o.Destination, "/")+"/") {
			return o
		}
	}
	return nil
}

func (s *start) mount(m *MountFacts) Decision {
	switch m.Source {
	case MountRuntime:
		return s.runtimeMount(m)
	case MountServiceAccount:
		if m.Destination == serviceAccountPath && m.ReadOnly && private(m) {
			return s.allow()
		}
	case MountImageVolume:
		if slices.Contains(s.c.Image.Config.Volumes, m.Destination) && private(m) {
			return s.allow()
		}
	}
	i := slices.IndexFunc(s.run.Mounts, func(r MountRule) bool { return r.Destination == m.Destination })
	if i < 0 {
		return s.refuse(CodeMountNotAllowed, ".mounts", "mounts that are listed", mountText(m), "list destination and source if it is meant")
	}
	rule, field := &s.run.Mounts[i], elementPath(".mounts", i)
	if !rule.accepts(m) {
		return s.refuse(CodeMountNotAllowed, field+".source", rule.Source, mountText(m), "a mount's source decides who fills it")
	}
	if rule.ReadOnly && !m.ReadOnly {
		return s.refuse(CodeMountWritable, field+".readOnly", "a read-only mount", "a writable one", "mount it read-only, or allow writing")
	}
	return s.propagation(m, field)
}

// accepts compares the kind, or of the node's paths the path.
func (r *MountRule) accepts(m *MountFacts) bool {
	if strings.HasPrefix(r.Source, "/") {
		return m.Source == MountHostPath && m.HostPath == r.Source
	}
	return m.Source == r.Source && slices.Contains(MountKinds(), r.Source)
}

func (s *start) runtimeMount(m *MountFacts) Decision {
	if !slices.Contains(runtimeMounts(), m.Destination) || !private(m) {
		return s.refuse(CodeMountNotAllowed, ".mounts", "the runtime's own mounts at their places", mountText(m), "a termination log elsewhere than /dev/termination-log could hide a file")
	}
	if strings.HasPrefix(m.Destination, "/sys") && !m.ReadOnly && !s.run.Privileged {
		return s.refuse(CodeMountWritable, ".privileged", "a read-only "+m.Destination, "a writable one", "only privileged containers may write there")
	}
	return s.allow()
}

// propagation: what is mounted later must not come in, or go out, unseen.
func (s *start) propagation(m *MountFacts, field string) Decision {
	slave := m.Propagation == "slave" || m.Propagation == "rslave"
	shared := m.Propagation == "shared" || m.Propagation == "rshared"
	if private(m) || slave && m.Source == MountHostPath || (slave || shared) && s.run.Privileged {
		return s.allow()
	}
	return s.refuse(CodeMountPropagation, field, "a mount that is private, or of a node's path one that follows the node", quote(m.Propagation)+" propagation", "only privileged containers may have it")
}

func private(m *MountFacts) bool {
	return m.Propagation == "" || m.Propagation == "private" || m.Propagation == "rprivate"
}

func mountText(m *MountFacts) string {
	text := fmt.Sprintf("%s at %s", quote(m.Source), quote(m.Destination))
	if m.HostPath != "" {
		text += " from the node's " + quote(m.HostPath)
	}
	return text
}
