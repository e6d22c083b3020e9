// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// start is one container that one rule is about.
type start struct {
	w    *Workload
	path string // of the rule
	run  *Run   // never nil
	c    *ContainerFacts
}

// judge asks every question, the telling ones first, and says how many passed
// before the first refusal.
func (s *start) judge() (d Decision, passed int) {
	for _, question := range [...]func(*start) Decision{
		(*start).known, (*start).args, (*start).environment, (*start).cwd, (*start).user, (*start).stdin, (*start).mounts,
		(*start).devices, (*start).namespaces, (*start).added, (*start).seccomp, (*start).privileges,
	} {
		if d = question(s); !d.Allowed {
			return d, passed
		}
		passed++
	}
	return d, passed
}

func (s *start) allow() Decision { return Decision{Allowed: true, Code: CodeAllowed, Rule: s.path} }

func (s *start) refuse(code Code, field, expected, actual, remedy string) Decision {
	return Decision{Code: code, Rule: s.path + ".run" + field, Expected: expected, Actual: actual, Remedy: remedy}
}

// known: a rule that speaks of the image's own word needs that word.
func (s *start) known() Decision {
	if s.c.Image.Config == nil {
		return s.refuse(CodeImageConfigUnknown, "", "the image's configuration", "none", "the node's runtime must have the image's configuration in its content store")
	}
	return s.allow()
}

func (s *start) args() Decision {
	if isAny(s.run.Args) && len(s.c.Args) > 0 {
		return s.allow()
	}
	want, whose := s.run.Args, ""
	if want == nil {
		config := s.c.Image.Config
		want, whose = slices.Concat(config.Entrypoint, config.Cmd), "the image's own "
	}
	if len(want) > 0 && slices.Equal(want, s.c.Args) {
		return s.allow()
	}
	return s.refuse(CodeArgsNotAllowed, ".args", whose+commandLine(want), commandLine(s.c.Args), "list the whole argv, the image's entrypoint included, if it is meant to run")
}

// commandLine prints an argv, short.
func commandLine(args []string) string {
	if len(args) == 0 {
		return "command line, which is empty"
	}
	var b strings.Builder
	b.WriteByte('[')
	for i, arg := range args {
		if b.Len() > maxShown {
			fmt.Fprintf(&b, " … %d more", len(args)-i)
			break
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(quote(arg))
	}
	b.WriteByte(']')
	return b.String()
}

func (s *start) cwd() Decision {
	want := s.run.Cwd
	if want == "" {
		want = s.c.Image.Config.Cwd
	}
	if want == "" {
		want = "/"
	}
	if want == s.c.Cwd || s.c.Early && s.c.Cwd == "" {
		return s.allow()
	}
	return s.refuse(CodeCwdNotAllowed, ".cwd", quote(want), quote(s.c.Cwd), "list the working directory if it is meant")
}

// user: the image's numbers, or the rule's. A uid alone leaves the group to the
// image's passwd file: where that is not known, it is what runtimes make of a
// missing line, or the group that users commonly have for themselves.
func (s *start) user() Decision {
	got, account := s.c.User, s.c.Image.Account
	text := s.run.User
	if text == "" {
		text = s.c.Image.Config.User
		if account != nil {
			text = fmt.Sprintf("%d:%d", account.UID, account.GID)
		}
	}
	if text == "" {
		text = "0"
	}
	uid, gid, ok := parseUser(text)
	if !ok {
		if s.c.Early {
			return s.allow()
		}
		return s.refuse(CodeUserUnknown, ".user", "a numeric user", "the image's user "+quote(text), `what a name means is up to the image; write its numbers as "uid:gid"`)
	}
	actual := fmt.Sprintf("%d:%d", got.UID, got.GID)
	if got.UID != uid {
		return s.refuse(CodeUserNotAllowed, ".user", text, actual, `write "uid:gid" if the container is meant to run as that user`)
	}
	own := gid < 0 && (got.GID == 0 || got.GID == uid || s.c.Early || account != nil && account.UID == uid && account.GID == got.GID)
	// Of an image's "uid:gid" the kubelet hands on the uid alone.
	own = own || s.run.User == "" && strings.Contains(s.c.Image.Config.User, ":") && got.GID == 0
	if !own && int64(got.GID) != gid {
		return s.refuse(CodeUserNotAllowed, ".user", text, actual, `write "uid:gid" if the container is meant to run with that group`)
	}
	return s.groups()
}

func (s *start) groups() Decision {
	got, account := s.c.User, s.c.Image.Account
	for _, g := range got.Groups {
		if g == got.GID || slices.Contains(s.run.Groups, g) || account != nil && account.UID == got.UID && slices.Contains(account.Groups, g) {
			continue
		}
		if account == nil && s.c.Early {
			continue // may be the image's
		}
		return s.refuse(CodeGroupNotAllowed, ".groups", "the image's own groups and those listed", "group "+strconv.FormatUint(uint64(g), 10), "list it; fsGroup and supplementalGroups of a pod add groups")
	}
	return s.allow()
}

func (s *start) stdin() Decision {
	if (s.c.Stdin || s.c.Terminal) && !s.run.Stdin {
		return s.refuse(CodeStdinNotAllowed, ".stdin", "no open stdin and no terminal", stdinText(s.c), "whoever reaches the kubelet can type into it; allow it only if that is meant")
	}
	return s.allow()
}

func stdinText(c *ContainerFacts) string {
	if c.Terminal {
		return "a terminal"
	}
	return "an open stdin"
}

// added: what no image asks for and what only names can allow.
func (s *start) added() Decision {
	if s.c.Hooks != 0 {
		return s.refuse(CodeHookNotAllowed, "", "no OCI hook", strconv.Itoa(s.c.Hooks)+" hooks", "hooks are programs that the node runs for a container; no rule allows them: remove the NRI plugin or device configuration that adds them")
	}
	if len(s.c.Other) > 0 {
		return s.refuse(CodeSettingUnknown, "", "settings that rules are about", quote(s.c.Other[0]), "no rule of this version allows it")
	}
	if i := unlistedIn(s.c.Rlimits, s.run.Rlimits); i >= 0 {
		return s.refuse(CodeRlimitNotAllowed, ".rlimits", listOr(s.run.Rlimits, "no resource limit"), quote(s.c.Rlimits[i]), "list its name if it may be set")
	}
	// Two that the runtime sets for every pod, so that programs need no
	// privilege for low ports and ping.
	own := []string{"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"}
	if i := slices.IndexFunc(s.c.Sysctls, func(v string) bool { return !slices.Contains(own, v) && !slices.Contains(s.run.Sysctls, v) }); i >= 0 {
		return s.refuse(CodeSysctlNotAllowed, ".sysctls", listOr(s.run.Sysctls, "no sysctl"), quote(s.c.Sysctls[i]), "list its name if it may be set")
	}
	return s.allow()
}

// unlistedIn returns the index of the first of values that is not listed, or -1.
func unlistedIn(values, listed []string) int {
	return slices.IndexFunc(values, func(v string) bool { return !slices.Contains(listed, v) })
}

func listOr(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return oneOf(list)
}
