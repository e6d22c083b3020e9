// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// lsmList is where the kernel lists its security modules.
const lsmList = "/sys/kernel/security/lsm"

// haveLSM attaches a program to the hook of bpf(2) for a moment and sees
// whether the kernel calls it: where BPF is not in its list of security modules,
// programs load and attach, and nothing happens.
func haveLSM() error {
	called, err := ebpf.NewMap(&ebpf.MapSpec{Name: "c8s_probe", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("making a map: %w", err)
	}
	defer called.Close()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "c8s_probe", Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "bpf", License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.StoreImm(asm.R10, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, called.FD()),
			asm.Mov.Reg(asm.R2, asm.R10), asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
			asm.Mov.Imm(asm.R1, 1),
			asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		},
	})
	if errors.Is(err, unix.EPERM) { // the library would blame the memory limit
		return fmt.Errorf("loading a program for a security hook: %w (not as root, or the kernel is locked down)", unix.EPERM)
	}
	if err != nil {
		return fmt.Errorf("loading a program for a security hook: %w", err)
	}
	defer prog.Close()
	l, err := link.AttachLSM(link.LSMOptions{Program: prog})
	if err != nil {
		return fmt.Errorf("attaching a program to a security hook: %w", err)
	}
	defer l.Close()
	var n uint64
	// The hook is asked about this very call, before it reads.
	if err := called.Lookup(uint32(0), &n); err != nil {
		return fmt.Errorf("reading what the program noted: %w", err)
	}
	if n == 0 {
		return notCalled(os.ReadFile(lsmList))
	}
	return nil
}

// notCalled is the reason for hooks that nobody asks, given the kernel's list
// if that can be read.
func notCalled(list []byte, err error) error {
	if err != nil {
		return errors.New("the kernel does not ask programs at its security hooks (boot with bpf at the end of lsm=)")
	}
	return fmt.Errorf("the kernel's security modules are %s, without bpf (boot with lsm=%[1]s,bpf)", strings.TrimSpace(string(list)))
}
