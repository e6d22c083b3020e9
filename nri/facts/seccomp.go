// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/policy"
)

// refusedFamilies maps the kinds that are an address family of their own. The
// kind raw is SOCK_RAW and SOCK_PACKET of every other family but AF_NETLINK and
// AF_UNIX, where they are ordinary.
var refusedFamilies = map[string]int{policy.SocketVsock: unix.AF_VSOCK, policy.SocketPacket: unix.AF_PACKET, policy.SocketXDP: unix.AF_XDP}

// families and sockTypes bound what socket(2) takes: the kernel knows families
// below AF_MAX (46 in Linux 6.18) and masks the type by SOCK_TYPE_MASK, 0xf.
const (
	familyBits = 6
	families   = 1 << familyBits
	typeBits   = 4
	sockTypes  = 1 << typeBits

	sockPacket = 10 // SOCK_PACKET
)

// The socketcall(2) multiplexer of 32-bit x86. Its arguments lie behind a
// pointer, so a filter sees only which call it is.
const (
	callBits  = 5 // SYS_SENDMMSG is 20
	callNames = 1 << callBits
	sysSocket = 1
)

var ioUring = []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}

// Restrict returns the profile that allows no more than p and none of the
// socket kinds that are not listed. No profile (nil) is an unconfined
// container. Applying it again changes nothing.
//
// A profile that allows by list also loses the 32-bit x86 architecture: there
// libseccomp turns every rule that allows socket(2) into one that allows
// socketcall(2), whose arguments it cannot see (libseccomp 2.5, arch-x86.c).
// Programs of that architecture are then killed by it.
func Restrict(p *specs.LinuxSeccomp, allowed []string) *specs.LinuxSeccomp {
	refused := slices.DeleteFunc(policy.SocketKinds(), func(k string) bool { return slices.Contains(allowed, k) })
	if len(refused) == 0 {
		return p
	}
	out := unlisten(p)
	before := newFilter(out)
	if slices.ContainsFunc(refused, isSocket) {
		restrictSockets(out, before, refused)
	}
	if slices.Contains(refused, policy.SocketBPF) {
		refuseCalls(out, before, "bpf")
	}
	if slices.Contains(refused, policy.SocketIOUring) {
		refuseCalls(out, before, ioUring...)
	}
	return out
}

// Open lists the kinds that a profile leaves open to a program that wants them,
// by whatever spelling of the arguments and on whatever architecture the
// profile admits.
func Open(p *specs.LinuxSeccomp) []string {
	if p == nil || p.ListenerPath != "" {
		return policy.SocketKinds() // a listener answers system calls with descriptors of its own
	}
	f := newFilter(p)
	var open []string
	for _, kind := range policy.SocketKinds() {
		if f.leavesOpen(kind, p.Architectures) {
			open = append(open, kind)
		}
	}
	return open
}

func (f *filter) leavesOpen(kind string, arches []specs.Arch) bool {
	switch kind {
	case policy.SocketBPF:
		return f.mayPermit("bpf", nil)
	case policy.SocketIOUring:
		return slices.ContainsFunc(ioUring, func(name string) bool { return f.mayPermit(name, nil) })
	}
	if slices.ContainsFunc(arches, multiplexed) && f.multiplexerOpen() {
		return true
	}
	args := spellings(f.uppers("socket"))
	for family := range families {
		for t := range sockTypes {
			if isKind(kind, family, t) && f.mayPermit("socket", args.of(family, t)) {
				return true
			}
		}
	}
	return false
}

// multiplexerOpen reports whether socketcall(2) can make a socket, by a rule of
// its own or by what libseccomp makes of a rule that allows socket(2).
func (f *filter) multiplexerOpen() bool {
	byRule := f.mayPermit("socketcall", lowArgs(f.uppers("socketcall"), sysSocket))
	return byRule || slices.ContainsFunc(f.rules["socket"], func(r rule) bool { return r.permits })
}

// isKind reports whether a socket of this family and type is one of the kind.
func isKind(kind string, family, sockType int) bool {
	if f, ok := refusedFamilies[kind]; ok {
		return family == f
	}
	if kind != policy.SocketRaw || sockType != unix.SOCK_RAW && sockType != sockPacket {
		return false
	}
	switch family {
	case unix.AF_NETLINK, unix.AF_UNIX, unix.AF_VSOCK, unix.AF_PACKET, unix.AF_XDP:
		return false
	}
	return true
}

func isSocket(kind string) bool { return kind != policy.SocketBPF && kind != policy.SocketIOUring }

// multiplexed reports whether sockets of an architecture can be made by
// socketcall(2). An architecture that is not known may.
func multiplexed(a specs.Arch) bool {
	switch a {
	case specs.ArchX86_64, specs.ArchX32, specs.ArchAARCH64, specs.ArchARM, specs.ArchRISCV64:
		return false
	}
	return true
}

// unlisten copies p without what hands system calls to another process; no
// profile becomes the one that allows everything.
func unlisten(p *specs.LinuxSeccomp) *specs.LinuxSeccomp {
	if p == nil {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: ownArchitectures()}
	}
	out := *p
	out.ListenerPath, out.ListenerMetadata = "", ""
	if out.DefaultAction == specs.ActNotify {
		out.DefaultAction = specs.ActErrno
	}
	out.Syscalls = slices.Clone(p.Syscalls)
	for i := range out.Syscalls {
		if out.Syscalls[i].Action == specs.ActNotify {
			out.Syscalls[i].Action = specs.ActErrno
		}
	}
	return &out
}

func ownArchitectures() []specs.Arch {
	if runtime.GOARCH == "arm64" {
		return []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	}
	return []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
}
