// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// imageKeys names the rules: by what they list, and its further rules by their
// number.
func imageKeys(images []Image) []string {
	keys, seen := make([]string, len(images)), map[string]int{}
	for i := range images {
		source := images[i].source()
		if seen[source]++; seen[source] > 1 {
			keys[i] = fmt.Sprintf("%s, %d", source, seen[source])
		} else {
			keys[i] = source
		}
	}
	return keys
}

type namedImage struct {
	key string
	Image
}

func named(images []Image) []namedImage {
	list := make([]namedImage, len(images))
	for i, key := range imageKeys(images) {
		list[i] = namedImage{key, images[i]}
	}
	return list
}

func (d *differ) images(path string, a, b []Image) {
	keyed(d, path, named(a), named(b), func(i namedImage) string { return i.key }, func(i namedImage) string { return i.summary() },
		func(path string, a, b namedImage) {
			d.value(path+".name", a.Name, b.Name, Changes)
			d.run(path+".run", a.Run, b.Run)
		})
}

// summary names the image and what it may have beyond what it says itself.
func (i *Image) summary() string {
	r := orNone(i.Run)
	var more []string
	for _, field := range []struct {
		name string
		has  bool
	}{
		{"args", r.Args != nil},
		{"env", r.Env != nil},
		{"serviceEnv", r.ServiceEnv},
		{"cwd", r.Cwd != ""},
		{"user", r.User != ""},
		{"groups", r.Groups != nil},
		{"mounts", r.Mounts != nil},
		{"devices", r.Devices != nil},
		{"capabilities", r.Capabilities != nil},
		{"PRIVILEGED", r.Privileged},
		{"hostNamespaces", r.HostNamespaces != nil},
		{"sockets", r.Sockets != nil},
		{"rlimits", r.Rlimits != nil},
		{"sysctls", r.Sysctls != nil},
		{"stdin", r.Stdin},
	} {
		if field.has {
			more = append(more, field.name)
		}
	}
	if len(more) == 0 {
		return i.Name
	}
	return i.Name + ", with " + strings.Join(more, ", ")
}

func (d *differ) signers(a, b []Signer) {
	id := func(s Signer) string {
		if id, err := s.ID(); err == nil {
			return string(id)
		}
		return s.PublicKey
	}
	keyed(d, "signers", a, b, id, func(s Signer) string { return s.Name + " (" + s.Algorithm + ")" },
		func(path string, a, b Signer) { d.value(path+".name", a.Name, b.Name, Changes) })
}

func (d *differ) run(path string, before, after *Run) {
	a, b := orNone(before), orNone(after)
	d.commandLines(path+".args", a.Args, b.Args)
	d.env(path+".env", a.Env, b.Env)
	d.allowed(path+".serviceEnv", a.ServiceEnv, b.ServiceEnv)
	d.own(path+".cwd", a.Cwd, b.Cwd)
	d.own(path+".user", a.User, b.User)
	values(d, path+".groups", a.Groups, b.Groups)
	d.mounts(path+".mounts", a.Mounts, b.Mounts)
	values(d, path+".devices", a.Devices, b.Devices)
	values(d, path+".capabilities", a.Capabilities, b.Capabilities)
	d.allowed(path+".privileged", a.Privileged, b.Privileged)
	values(d, path+".hostNamespaces", a.HostNamespaces, b.HostNamespaces)
	values(d, path+".sockets", a.Sockets, b.Sockets)
	values(d, path+".rlimits", a.Rlimits, b.Rlimits)
	values(d, path+".sysctls", a.Sysctls, b.Sysctls)
	d.allowed(path+".stdin", a.Stdin, b.Stdin)
}

func orNone(r *Run) *Run {
	if r == nil {
		return &Run{}
	}
	return r
}

func (d *differ) commandLines(path string, a, b []string) {
	text := func(args []string) string {
		if args == nil {
			return "the image's own"
		}
		return commandLine(args)
	}
	if isAny(a) || isAny(b) {
		d.flag(path, isAny(a), isAny(b), text(a), text(b))
		return
	}
	d.value(path, text(a), text(b), Changes)
}

// own compares what replaces the image's own word.
func (d *differ) own(path, a, b string) {
	text := func(v string) string {
		if v == "" {
			return "the image's own"
		}
		return v
	}
	d.value(path, text(a), text(b), Changes)
}

// env: a rule with a value demands it, so that neither adding nor removing one
// only widens.
func (d *differ) env(path string, a, b []EnvRule) {
	name := func(e EnvRule) string { return e.Name }
	was, is := byKey(a, name), byKey(b, name)
	effect := func(e EnvRule, ofAny Effect) Effect {
		if e.Any {
			return ofAny
		}
		return Changes
	}
	for _, e := range a {
		at := path + "[" + e.Name + "]"
		after, both := is[e.Name]
		switch {
		case !both:
			d.add(at, envText(e), "", effect(e, Narrows))
		case e.Any != after.Any:
			d.flag(at, e.Any, after.Any, envText(e), envText(after))
		default:
			d.value(at, envText(e), envText(after), Changes)
		}
	}
	for _, e := range b {
		if _, both := was[e.Name]; !both {
			d.add(path+"["+e.Name+"]", "", envText(e), effect(e, Widens))
		}
	}
}

func envText(e EnvRule) string {
	if e.Value == nil {
		return Any
	}
	return strconv.Quote(*e.Value)
}

// mounts: a rule that demands its mount does not only widen when it comes.
func (d *differ) mounts(path string, a, b []MountRule) {
	place := func(m MountRule) string { return m.Destination }
	was, is := byKey(a, place), byKey(b, place)
	effect := func(m MountRule, otherwise Effect) Effect {
		if m.Required {
			return Changes
		}
		return otherwise
	}
	for _, m := range a {
		at := path + "[" + m.Destination + "]"
		after, both := is[m.Destination]
		if !both {
			d.add(at, mountRuleText(m), "", effect(m, Narrows))
			continue
		}
		d.value(at+".source", m.Source, after.Source, Changes)
		d.demanded(at+".readOnly", m.ReadOnly, after.ReadOnly)
		d.demanded(at+".required", m.Required, after.Required)
	}
	for _, m := range b {
		if _, both := was[m.Destination]; !both {
			d.add(path+"["+m.Destination+"]", "", mountRuleText(m), effect(m, Widens))
		}
	}
}

func mountRuleText(m MountRule) string {
	text := m.Source
	if m.ReadOnly {
		text += ", read-only"
	}
	if m.Required {
		text += ", required"
	}
	return text
}

func (d *differ) exec(path string, a, b []Exec) {
	keyed(d, path, a, b, func(e Exec) string { return commandLine(e.Args) }, execText, func(path string, a, b Exec) {
		d.allowed(path+".tty", a.TTY, b.TTY)
	})
}

func execText(e Exec) string {
	if e.TTY {
		return commandLine(e.Args) + " with a terminal"
	}
	return commandLine(e.Args)
}
