// SPDX-License-Identifier: Apache-2.0

package facts

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxRules bounds how many rules about one system call are looked at. The
// largest profiles have about a hundred; what has more is open for whoever asks
// whether it is, and closed for whoever wants to rely on it.
const maxRules = 2048

// filter is a profile as questions about single system calls need it.
type filter struct {
	permissive bool // what no rule matches is permitted
	rules      map[string][]rule
}

// rule says whether the calls that fulfil all its conditions are permitted.
type rule struct {
	permits bool
	conds   []specs.LinuxSeccompArg
}

func newFilter(p *specs.LinuxSeccomp) *filter {
	f := &filter{permissive: permits(p.DefaultAction), rules: map[string][]rule{}}
	for _, s := range p.Syscalls {
		for _, r := range rulesOf(s) {
			for _, name := range s.Names {
				f.rules[name] = append(f.rules[name], r)
			}
		}
	}
	return f
}

// rulesOf splits as runc does: where one argument is compared twice, every
// comparison is a rule of its own.
func rulesOf(s specs.LinuxSyscall) []rule {
	seen := map[uint]bool{}
	repeated := false
	for _, a := range s.Args {
		repeated = repeated || seen[a.Index]
		seen[a.Index] = true
	}
	if !repeated {
		return []rule{{permits(s.Action), s.Args}}
	}
	var rules []rule
	for _, a := range s.Args {
		rules = append(rules, rule{permits(s.Action), []specs.LinuxSeccompArg{a}})
	}
	return rules
}

// permits reports whether a call can run under an action. A tracer may let it
// pass, and so may a listener; an action that is not known permits.
func permits(a specs.LinuxSeccompAction) bool {
	switch a {
	case specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno:
		return false
	}
	return true
}

// mayPermit reports whether the call passes with some of the values that each
// argument may take. Arguments without values may take any.
func (f *filter) mayPermit(name string, args [][]uint64) bool {
	if len(f.rules[name]) > maxRules {
		return true
	}
	refusedAlways := false
	for _, r := range f.rules[name] {
		some, always := r.matches(args)
		if r.permits && some {
			return true
		}
		refusedAlways = refusedAlways || !r.permits && always
	}
	return f.permissive && !refusedAlways
}

// surelyPermits reports whether the call passes with all values that each
// argument may take.
func (f *filter) surelyPermits(name string, args [][]uint64) bool {
	if len(f.rules[name]) > maxRules {
		return false
	}
	permitted := f.permissive
	for _, r := range f.rules[name] {
		some, always := r.matches(args)
		if !r.permits && some {
			return false
		}
		permitted = permitted || r.permits && always
	}
	return permitted
}

// matches reports whether the rule fits some, and whether it fits all, of the
// combinations of values. Arguments are independent, so each is looked at alone.
func (r rule) matches(args [][]uint64) (some, always bool) {
	always = true
	for _, c := range r.conds {
		if c.Index >= uint(len(args)) || args[c.Index] == nil {
			always = false
			continue
		}
		hits := 0
		for _, v := range args[c.Index] {
			if compare(&c, v) {
				hits++
			}
		}
		always = always && hits == len(args[c.Index])
		if hits == 0 {
			return false, false
		}
	}
	return true, always
}

// compare follows seccomp_rule_add(3): the whole register is compared. An
// operator that is not known fits nothing: runc refuses such a profile.
func compare(c *specs.LinuxSeccompArg, v uint64) bool {
	switch c.Op {
	case specs.OpEqualTo:
		return v == c.Value
	case specs.OpNotEqual:
		return v != c.Value
	case specs.OpLessThan:
		return v < c.Value
	case specs.OpLessEqual:
		return v <= c.Value
	case specs.OpGreaterThan:
		return v > c.Value
	case specs.OpGreaterEqual:
		return v >= c.Value
	case specs.OpMaskedEqual:
		return v&c.Value == c.ValueTwo
	}
	return false
}

// uppers are the upper halves of a register that decide any comparison of a
// call's rules: none and all bits set, and those that the rules name.
func (f *filter) uppers(name string) []uint64 {
	uppers := []uint64{0, 0xffffffff << 32}
	for _, r := range f.rules[name] {
		for _, c := range r.conds {
			for _, v := range []uint64{c.Value, c.ValueTwo} {
				if upper := v &^ 0xffffffff; upper != 0 {
					uppers = append(uppers, upper)
				}
			}
		}
	}
	return uppers
}

// socketArgs are the spellings of every family and type.
type socketArgs struct {
	family   [families][]uint64
	sockType [sockTypes][]uint64
}

// spellings takes each value, a type with its flags, with every upper half.
func spellings(uppers []uint64) *socketArgs {
	var a socketArgs
	for i := range uint64(families) {
		a.family[i] = lowArgs(uppers, i)[0]
	}
	for i := range uint64(sockTypes) {
		a.sockType[i] = lowArgs(uppers, i, i|unix.SOCK_CLOEXEC, i|unix.SOCK_NONBLOCK, i|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)[0]
	}
	return &a
}

func (a *socketArgs) of(family, sockType int) [][]uint64 {
	return [][]uint64{a.family[family], a.sockType[sockType]}
}

// lowArgs are the values with every upper half, as a call's first argument.
func lowArgs(uppers []uint64, values ...uint64) [][]uint64 {
	var all []uint64
	for _, v := range values {
		for _, u := range uppers {
			all = append(all, u|v)
		}
	}
	return [][]uint64{all}
}
