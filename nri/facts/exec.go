// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/policy"
)

// Exec returns the facts of a process that is to be added to a container: what
// it is, and in what it has more, or something else, than the container's own.
func Exec(process, config []byte) (policy.ExecFacts, error) {
	var p specs.Process
	if err := strict(process, &p); err != nil {
		return policy.ExecFacts{}, fmt.Errorf("reading the added process: %w", err)
	}
	s, err := Parse(config)
	if err != nil {
		return policy.ExecFacts{}, err
	}
	if len(p.Args) == 0 {
		return policy.ExecFacts{}, errors.New("reading the added process: it has no arguments")
	}
	return policy.ExecFacts{Args: p.Args, Terminal: p.Terminal, Differs: differs(&p, s.Process)}, nil
}

func differs(p, own *specs.Process) []string {
	var found []string
	note := func(differs bool, what string) {
		if differs {
			found = append(found, what)
		}
	}
	note(!sameEnv(p, own), "env")
	note(!sameUser(p.User, own.User), "user")
	note(!within(p.Capabilities, own.Capabilities), "capabilities")
	note(p.Cwd != own.Cwd, "cwd")
	note(p.CommandLine != "", "commandLine")
	note(own.NoNewPrivileges && !p.NoNewPrivileges, "noNewPrivileges")
	note(!reflect.DeepEqual(p.Rlimits, own.Rlimits) && len(p.Rlimits) > 0, "rlimits")
	note(p.ApparmorProfile != own.ApparmorProfile, "apparmorProfile")
	note(p.SelinuxLabel != own.SelinuxLabel, "selinuxLabel")
	return found
}

// sameEnv: the runtime adds the kind of terminal.
func sameEnv(p, own *specs.Process) bool {
	extra := slices.DeleteFunc(slices.Clone(p.Env), func(v string) bool { return slices.Contains(own.Env, v) })
	missing := slices.ContainsFunc(own.Env, func(v string) bool { return !slices.Contains(p.Env, v) })
	return !missing && (len(extra) == 0 || p.Terminal && len(extra) == 1 && extra[0] == "TERM=xterm")
}

func sameUser(a, b specs.User) bool {
	return a.UID == b.UID && a.GID == b.GID && a.Username == b.Username &&
		!slices.ContainsFunc(a.AdditionalGids, func(g uint32) bool { return g != b.GID && !slices.Contains(b.AdditionalGids, g) })
}

// within reports whether no set of capabilities has more than the same set of
// the other.
func within(a, b *specs.LinuxCapabilities) bool {
	if a == nil {
		a = &specs.LinuxCapabilities{}
	}
	if b == nil {
		b = &specs.LinuxCapabilities{}
	}
	subset := func(x, y []string) bool {
		return !slices.ContainsFunc(x, func(c string) bool { return !slices.Contains(y, c) })
	}
	return subset(a.Bounding, b.Bounding) && subset(a.Effective, b.Effective) && subset(a.Permitted, b.Permitted) &&
		subset(a.Inheritable, b.Inheritable) && subset(a.Ambient, b.Ambient)
}
