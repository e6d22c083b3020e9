// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
)

const (
	// featureTCX is the one feature whose absence changes how programs attach.
	featureTCX = "tcx"
	// featureLSM is what the hardening needs, which is not part of the lock.
	featureLSM = "security hooks (lsm), beside pods' seccomp filters"
)

// Feature is something the lock needs of the kernel.
type Feature struct {
	Name    string `json:"name"`
	Present bool   `json:"present"`
	// Since is the first kernel version that has it, or the option it needs.
	Since string `json:"since"`
	// Required features have no replacement.
	Required bool `json:"required"`
	// Err is why it is not present.
	Err error `json:"-"`
}

// Probe asks the kernel for each feature rather than for its version, since
// distributions backport. It leaves nothing behind.
func Probe() []Feature {
	lsm := haveLSM()
	return append(probeLock(), Feature{Name: featureLSM, Present: lsm == nil, Since: "5.7, CONFIG_BPF_LSM and bpf in its list of security modules", Err: lsm})
}

// probeLock probes what the lock can make use of.
func probeLock() []Feature {
	required := func(name, since string, err error) Feature {
		return Feature{Name: name, Present: err == nil, Since: since, Required: true, Err: err}
	}
	_, btfErr := os.Stat("/sys/kernel/btf/vmlinux")
	tcx := haveTCX()
	_, cgroup2Err := findCgroups()
	return []Feature{
		required("tc programs", "4.1, CONFIG_NET_CLS_ACT", features.HaveProgramType(ebpf.SchedCLS)),
		required("sk_lookup programs", "5.9", features.HaveProgramType(ebpf.SkLookup)),
		required("steering to a socket", "5.9", features.HaveProgramHelper(ebpf.SkLookup, asm.FnSkAssign)),
		required("knowing a flow's link in sk_lookup", "5.17", haveIngressIfindex()),
		required("socket maps", "4.14, CONFIG_BPF_STREAM_PARSER or 5.11", features.HaveMapType(ebpf.SockMap)),
		required("looking a socket up from a packet", "4.20", errors.Join(
			features.HaveProgramHelper(ebpf.SchedCLS, asm.FnSkLookupTcp), features.HaveProgramHelper(ebpf.SchedCLS, asm.FnSkLookupUdp))),
		required("ring buffers", "5.8", features.HaveMapType(ebpf.RingBuf)),
		required("LRU maps", "4.10", features.HaveMapType(ebpf.LRUHash)),
		required("changing a packet's type", "4.8", features.HaveProgramHelper(ebpf.SchedCLS, asm.FnSkbChangeType)),
		required("knowing a packet's cgroup", "4.18, CONFIG_SOCK_CGROUP_DATA", features.HaveProgramHelper(ebpf.SchedCLS, asm.FnSkbCgroupId)),
		required("knowing a new socket's cgroup and network namespace", "5.7, CONFIG_CGROUP_BPF", errors.Join(
			features.HaveProgramHelper(ebpf.CGroupSock, asm.FnGetNetnsCookie),
			features.HaveProgramHelper(ebpf.CGroupSock, asm.FnGetCurrentAncestorCgroupId))),
		{Name: "cgroup2 mount, for the kubelet's probes and against kubectl port-forward", Present: cgroup2Err == nil, Since: "4.5", Err: cgroup2Err},
		{Name: featureTCX, Present: tcx == nil, Since: "6.6", Err: tcx},
		{Name: "kernel BTF", Present: btfErr == nil, Since: "5.2, CONFIG_DEBUG_INFO_BTF", Err: btfErr},
	}
}

// haveIngressIfindex loads a program that reads what steer decides by: the
// ingress_ifindex of struct bpf_sk_lookup, at offset 64.
func haveIngressIfindex() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "c8s_probe", Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R0, asm.R1, 64, asm.Word),
			asm.Mov.Imm(asm.R0, 1), // SK_PASS
			asm.Return(),
		},
	})
	if err != nil {
		return err
	}
	return prog.Close()
}

// haveTCX attaches a program to a device that does not exist: with tcx the
// kernel says so, without it the attach type is invalid.
func haveTCX() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "c8s_probe", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.LoadImm(asm.R0, -1, asm.DWord), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("loading a tc program: %w", err)
	}
	defer prog.Close()
	l, err := link.AttachTCX(link.TCXOptions{Interface: 1<<31 - 1, Program: prog, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		_ = l.Close()
		return nil
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	return nil
}

// missing is the error that names every required feature that is not there.
func missing(all []Feature) error {
	var errs []error
	for _, f := range all {
		if f.Required && !f.Present {
			errs = append(errs, fmt.Errorf("the kernel lacks %s (since %s): %w", f.Name, f.Since, f.Err))
		}
	}
	return errors.Join(errs...)
}

func present(all []Feature, name string) bool {
	return slices.ContainsFunc(all, func(f Feature) bool { return f.Name == name && f.Present })
}
