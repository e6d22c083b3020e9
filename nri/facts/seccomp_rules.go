// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// libseccomp decides by one action beside the default one for each system call:
// rules of different actions that overlap are resolved by an order that nobody
// documents. So the rules for a call are all replaced by new ones that permit,
// argument by argument, what the old ones surely did and the manifest allows.

// restrictSockets rewrites the rules for socket(2) and socketcall(2).
func restrictSockets(out *specs.LinuxSeccomp, before *filter, refused []string) {
	var permitted [families]uint16  // of each family: a bit for each type
	plain := spellings([]uint64{0}) // as the C library calls
	for family := range families {
		for t := range sockTypes {
			taken := slices.ContainsFunc(refused, func(kind string) bool { return isKind(kind, family, t) })
			if !taken && before.surelyPermits("socket", plain.of(family, t)) {
				permitted[family] |= 1 << t
			}
		}
	}
	strip(out, "socket", "socketcall")
	if before.permissive {
		out.Syscalls = append(out.Syscalls, socketRules(invert(permitted), specs.ActErrno, errno(unix.EPERM))...)
		out.Syscalls = append(out.Syscalls, callRules(before)...)
		return
	}
	out.Syscalls = append(out.Syscalls, socketRules(permitted, specs.ActAllow, nil)...)
	out.Architectures = slices.DeleteFunc(slices.Clone(out.Architectures), multiplexed)
}

func invert(rows [families]uint16) [families]uint16 {
	for i := range rows {
		rows[i] = ^rows[i]
	}
	return rows
}

// socketRules match the types set in each family's row. The kernel reads the
// lower half of both registers, so the rules do too: with a plain comparison,
// which takes all 64 bits, a caller would set an upper bit and pass.
//
// All have one action and errno: what libseccomp makes of them for socketcall(2)
// overlaps, and it refuses to load overlapping rules that differ.
func socketRules(rows [families]uint16, action specs.LinuxSeccompAction, ret *uint) []specs.LinuxSyscall {
	var rules []specs.LinuxSyscall
	var done []uint16
	for _, row := range rows {
		if row == 0 || slices.Contains(done, row) {
			continue
		}
		done = append(done, row)
		for _, f := range cover(familyBits, func(i int) bool { return rows[i] == row }) {
			for _, t := range cover(typeBits, func(i int) bool { return row>>i&1 == 1 }) {
				args := []specs.LinuxSeccompArg{masked(0, 0xffffffff, f)}
				if t.size < sockTypes {
					args = append(args, masked(1, sockTypes-1, t))
				}
				rules = append(rules, specs.LinuxSyscall{Names: []string{"socket"}, Action: action, ErrnoRet: ret, Args: args})
			}
		}
	}
	return rules
}

// callRules refuse what the profile refused of socketcall(2), and the making of
// sockets.
func callRules(before *filter) []specs.LinuxSyscall {
	refused := func(call int) bool {
		return call == sysSocket || !before.surelyPermits("socketcall", [][]uint64{{uint64(call)}})
	}
	var rules []specs.LinuxSyscall
	for _, b := range cover(callBits, refused) {
		rules = append(rules, specs.LinuxSyscall{
			Names: []string{"socketcall"}, Action: specs.ActErrno, ErrnoRet: errno(unix.EPERM),
			Args: []specs.LinuxSeccompArg{masked(0, 0xffffffff, b)},
		})
	}
	return rules
}

// refuseCalls refuses whole system calls.
func refuseCalls(out *specs.LinuxSeccomp, before *filter, names ...string) {
	strip(out, names...)
	if before.permissive {
		out.Syscalls = append(out.Syscalls, specs.LinuxSyscall{Names: slices.Clone(names), Action: specs.ActErrno, ErrnoRet: errno(unix.EPERM)})
	}
}

// strip removes the rules for some calls and keeps those for the calls that
// stand in the same rule.
func strip(p *specs.LinuxSeccomp, names ...string) {
	kept := make([]specs.LinuxSyscall, 0, len(p.Syscalls))
	for _, s := range p.Syscalls {
		if slices.ContainsFunc(s.Names, func(n string) bool { return slices.Contains(names, n) }) {
			s.Names = slices.DeleteFunc(slices.Clone(s.Names), func(n string) bool { return slices.Contains(names, n) })
			if len(s.Names) == 0 {
				continue
			}
		}
		kept = append(kept, s)
	}
	p.Syscalls = kept
}

// block is the values start to start+size-1: size is a power of two and start a
// multiple of it, so that one comparison under a mask finds them.
type block struct{ start, size int }

// cover returns the fewest blocks that hold exactly the members of a set of
// bits-wide numbers.
func cover(bits int, member func(int) bool) []block {
	var blocks []block
	var split func(b block)
	split = func(b block) {
		n := 0
		for i := range b.size {
			if member(b.start + i) {
				n++
			}
		}
		switch n {
		case 0:
		case b.size:
			blocks = append(blocks, b)
		default:
			half := b.size / 2
			split(block{b.start, half})
			split(block{b.start + half, half})
		}
	}
	split(block{0, 1 << bits})
	return blocks
}

// masked compares an argument, of which the kernel reads the bits in width.
func masked(index uint, width uint64, b block) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Op: specs.OpMaskedEqual, Value: width &^ uint64(b.size-1), ValueTwo: uint64(b.start)}
}

func errno(e unix.Errno) *uint {
	n := uint(e)
	return &n
}
