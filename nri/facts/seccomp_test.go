// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/policy"
)

// runs says what a kernel does with a call under a profile, from the text of
// seccomp_rule_add(3) and runc's handling of repeated arguments, so that it
// shares no code with what it checks. It fails the test where rules of two
// actions match, which nobody should rely on.
func runs(t *testing.T, p *specs.LinuxSeccomp, arch specs.Arch, name string, args ...uint64) bool {
	t.Helper()
	if p == nil {
		return true
	}
	if len(p.Architectures) > 0 && !slices.Contains(p.Architectures, arch) {
		return false
	}
	permissive := func(a specs.LinuxSeccompAction) bool {
		return a == specs.ActAllow || a == specs.ActLog || a == specs.ActTrace || a == specs.ActNotify
	}
	var actions []bool
	for _, s := range p.Syscalls {
		if !slices.Contains(s.Names, name) || s.Action == p.DefaultAction {
			continue
		}
		count, hit, all := map[uint]int{}, false, true
		for _, c := range s.Args {
			count[c.Index]++
			v := args[c.Index]
			ok := map[specs.LinuxSeccompOperator]bool{
				specs.OpEqualTo: v == c.Value, specs.OpNotEqual: v != c.Value, specs.OpLessThan: v < c.Value,
				specs.OpGreaterThan: v > c.Value, specs.OpMaskedEqual: v&c.Value == c.ValueTwo,
			}[c.Op]
			hit, all = hit || ok, all && ok
		}
		if len(s.Args) == 0 || all || hit && slices.ContainsFunc([]uint{0, 1, 2}, func(i uint) bool { return count[i] > 1 }) {
			actions = append(actions, permissive(s.Action))
		}
	}
	if len(actions) == 0 {
		return permissive(p.DefaultAction)
	}
	if slices.Contains(actions, true) && slices.Contains(actions, false) {
		t.Fatalf("%s(%v): rules of different actions overlap", name, args)
	}
	return actions[0]
}

func allowRule(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
	return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActAllow, Args: args}
}

func arg(i uint, op specs.LinuxSeccompOperator, v uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: i, Op: op, Value: v}
}

// profiles are what real runtimes hand to NRI, reduced to what matters here.
func profiles() map[string]*specs.LinuxSeccomp {
	allArches := []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
	return map[string]*specs.LinuxSeccomp{
		"unconfined": nil,
		"containerd 2.4": {
			DefaultAction: specs.ActErrno, DefaultErrnoRet: errno(unix.EPERM), Architectures: allArches,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"read", "socketcall", "socketpair"}, Action: specs.ActAllow},
				allowRule("socket", arg(0, specs.OpLessThan, 38)), allowRule("socket", arg(0, specs.OpEqualTo, 39)),
				allowRule("socket", arg(0, specs.OpEqualTo, 41)), allowRule("socket", arg(0, specs.OpEqualTo, 44)),
			},
		},
		"containerd 1.7": {
			DefaultAction: specs.ActErrno, Architectures: allArches,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"bpf", "read", "io_uring_setup", "io_uring_enter", "socketcall"}, Action: specs.ActAllow},
				allowRule("socket", arg(0, specs.OpNotEqual, unix.AF_VSOCK)),
			},
		},
		"allows all by name": {
			DefaultAction: specs.ActKill, Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"read", "socket", "bpf", "io_uring_register"}, Action: specs.ActAllow}},
		},
		"refuses by list": {
			DefaultAction: specs.ActAllow, Architectures: allArches,
			Syscalls: []specs.LinuxSyscall{
				{Names: []string{"mount", "socket"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{arg(0, specs.OpEqualTo, unix.AF_ALG)}},
				{Names: []string{"socket"}, Action: specs.ActTrap, Args: []specs.LinuxSeccompArg{arg(0, specs.OpGreaterThan, 42)}},
			},
		},
		"logs": {DefaultAction: specs.ActLog, Architectures: allArches},
	}
}

func TestRestrictedProfilesRefuseEverySpelling(t *testing.T) {
	uppers := []uint64{0, 1 << 32, 1 << 63, 0xffffffff << 32}
	for name, p := range profiles() {
		r := Restrict(p, nil)
		if open := Open(r); len(open) > 0 {
			t.Errorf("%s: %v stay open", name, open)
		}
		for _, arch := range []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32} {
			for _, up := range uppers {
				for _, family := range []uint64{unix.AF_VSOCK, unix.AF_PACKET, unix.AF_XDP} {
					for typ := range uint64(16) {
						if runs(t, r, arch, "socket", up|family, typ|unix.SOCK_CLOEXEC, 0) {
							t.Errorf("%s on %s: socket(%#x, %d) runs", name, arch, up|family, typ)
						}
					}
				}
				for _, family := range []uint64{unix.AF_INET, unix.AF_INET6, unix.AF_KEY, unix.AF_CAN, unix.AF_BLUETOOTH} {
					for _, typ := range []uint64{unix.SOCK_RAW, sockPacket} {
						if runs(t, r, arch, "socket", family, up|typ|unix.SOCK_NONBLOCK, 255) {
							t.Errorf("%s on %s: raw socket(%d, %#x) runs", name, arch, family, up|typ)
						}
					}
				}
			}
			for _, call := range []string{"bpf", "io_uring_setup", "io_uring_enter", "io_uring_register"} {
				if runs(t, r, arch, call, 0, 0, 0) {
					t.Errorf("%s on %s: %s runs", name, arch, call)
				}
			}
			if arch == specs.ArchX86 && runs(t, r, arch, "socketcall", sysSocket, 0xffffd000) {
				t.Errorf("%s: socketcall makes sockets", name)
			}
		}
	}
}

func TestRestrictedProfilesKeepOrdinarySockets(t *testing.T) {
	ordinary := [][2]uint64{
		{unix.AF_INET, unix.SOCK_STREAM},
		{unix.AF_INET, unix.SOCK_DGRAM},
		{unix.AF_INET6, unix.SOCK_STREAM},
		{unix.AF_UNIX, unix.SOCK_STREAM},
		{unix.AF_UNIX, unix.SOCK_SEQPACKET},
		{unix.AF_NETLINK, unix.SOCK_RAW},
		{unix.AF_NETLINK, unix.SOCK_DGRAM},
	}
	for name, p := range profiles() {
		r := Restrict(p, nil)
		for _, s := range ordinary {
			for _, flags := range []uint64{0, unix.SOCK_CLOEXEC, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
				if !runs(t, r, specs.ArchX86_64, "socket", s[0], s[1]|flags, 0) {
					t.Errorf("%s: socket(%d, %d) is refused", name, s[0], s[1])
				}
			}
		}
		if !runs(t, r, specs.ArchX86_64, "read", 0, 0, 0) {
			t.Errorf("%s: read is refused", name)
		}
	}
}

func TestRestrictAllowsNothingThatWasRefused(t *testing.T) {
	for name, p := range profiles() {
		for _, allowed := range [][]string{nil, {policy.SocketVsock}, {policy.SocketRaw, policy.SocketPacket}, {policy.SocketBPF, policy.SocketIOUring}, policy.SocketKinds()[:5]} {
			r := Restrict(p, allowed)
			for family := range uint64(families) {
				for typ := range uint64(sockTypes) {
					if p != nil && p.DefaultAction == specs.ActAllow && family > 42 {
						continue // the two refusals of that profile overlap by design
					}
					if runs(t, r, specs.ArchX86_64, "socket", family, typ, 0) && !runs(t, p, specs.ArchX86_64, "socket", family, typ, 0) {
						t.Fatalf("%s with %v: socket(%d, %d) became possible", name, allowed, family, typ)
					}
				}
			}
			for _, call := range []string{"bpf", "io_uring_setup", "mount"} {
				if runs(t, r, specs.ArchX86_64, call, unix.AF_ALG, 0, 0) && !runs(t, p, specs.ArchX86_64, call, unix.AF_ALG, 0, 0) {
					t.Fatalf("%s with %v: %s became possible", name, allowed, call)
				}
			}
		}
	}
}

func TestRestrictOpensWhatIsListed(t *testing.T) {
	for _, kind := range policy.SocketKinds() {
		r := Restrict(nil, []string{kind})
		if open := Open(r); !slices.Equal(open, []string{kind}) {
			t.Errorf("%s allowed: %v open", kind, open)
		}
	}
	if r := Restrict(nil, policy.SocketKinds()); r != nil {
		t.Errorf("everything allowed, still a profile: %+v", r)
	}
}

func TestRestrictTwiceIsRestrictOnce(t *testing.T) {
	for name, p := range profiles() {
		for _, allowed := range [][]string{nil, {policy.SocketVsock}, {policy.SocketRaw}, {policy.SocketBPF}} {
			once := Restrict(p, allowed)
			if twice := Restrict(once, allowed); !reflect.DeepEqual(once, twice) {
				t.Errorf("%s with %v:\n once %+v\ntwice %+v", name, allowed, once, twice)
			}
		}
	}
}

// libseccomp refuses to load rules for one call that overlap and differ.
func TestAllRulesForSocketsHaveOneAction(t *testing.T) {
	for name, p := range profiles() {
		actions := map[string]bool{}
		for _, s := range Restrict(p, nil).Syscalls {
			if slices.Contains(s.Names, "socket") || slices.Contains(s.Names, "socketcall") {
				ret := uint(0)
				if s.ErrnoRet != nil {
					ret = *s.ErrnoRet
				}
				actions[fmt.Sprint(s.Action, ret)] = true
			}
		}
		if len(actions) != 1 {
			t.Errorf("%s: %v", name, actions)
		}
	}
}

func TestRestrictDoesNotWriteToItsArgument(t *testing.T) {
	p, fresh := profiles()["containerd 1.7"], profiles()["containerd 1.7"]
	Restrict(p, nil)
	if !reflect.DeepEqual(p, fresh) {
		t.Errorf("%+v", p)
	}
}

func TestOpenSeesThroughProfilesThatOnlyLookRestricted(t *testing.T) {
	refusing := func(name string, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{name}, Action: specs.ActErrno, Args: args}
	}
	restricted := Restrict(nil, nil)
	with := func(change func(*specs.LinuxSeccomp)) *specs.LinuxSeccomp {
		p := *restricted
		p.Syscalls = slices.Clone(p.Syscalls)
		change(&p)
		return &p
	}
	for name, tc := range map[string]struct {
		p    *specs.LinuxSeccomp
		want string
	}{
		"the comparison takes 64 bits, the kernel 32": {&specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{refusing("socket", arg(0, specs.OpEqualTo, unix.AF_VSOCK))},
		}, policy.SocketVsock},
		"the type without its flags": {&specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{refusing("socket", arg(1, specs.OpEqualTo, unix.SOCK_RAW))},
		}, policy.SocketRaw},
		"only some protocols": {&specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{refusing("socket", arg(2, specs.OpLessThan, 256))},
		}, policy.SocketPacket},
		"a listener": {with(func(p *specs.LinuxSeccomp) { p.ListenerPath = "/run/agent.sock" }), policy.SocketVsock},
		"a tracer": {&specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"bpf"}, Action: specs.ActTrace}},
		}, policy.SocketBPF},
		"an action nobody knows": {&specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_LATER"}, policy.SocketXDP},
		"an upper bit that is allowed": {&specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{allowRule("socket", arg(0, specs.OpEqualTo, 7<<32|unix.AF_VSOCK))},
		}, policy.SocketVsock},
		"libseccomp allows socketcall with socket": {&specs.LinuxSeccomp{
			DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86},
			Syscalls: []specs.LinuxSyscall{allowRule("socket", arg(0, specs.OpEqualTo, unix.AF_INET))},
		}, policy.SocketVsock},
		"half of io_uring": {with(func(p *specs.LinuxSeccomp) { strip(p, "io_uring_enter") }), policy.SocketIOUring},
	} {
		if open := Open(tc.p); !slices.Contains(open, tc.want) {
			t.Errorf("%s: open %v, want %s among them", name, open, tc.want)
		}
	}
}

func BenchmarkRestrict(b *testing.B) {
	p := profiles()["containerd 2.4"]
	for b.Loop() {
		Restrict(p, nil)
	}
}

func BenchmarkOpen(b *testing.B) {
	p := Restrict(profiles()["containerd 2.4"], nil)
	for b.Loop() {
		Open(p)
	}
}
