// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// skb is the part of struct __sk_buff that a test may fill in.
type skb struct {
	Len, PktType, Mark, QueueMapping, Protocol, VLANPresent, VLANTci, VLANProto uint32
	Priority, IngressIfindex, Ifindex, TCIndex                                  uint32
	_                                                                           [36]uint32 // to the end in 6.x
}

// lookup is struct bpf_sk_lookup.
type lookup struct {
	Cookie           uint64
	Family, Protocol uint32
	RemoteIP4        uint32
	RemoteIP6        [4]uint32
	RemotePort       uint16
	_                uint16
	LocalIP4         uint32
	LocalIP6         [4]uint32
	LocalPort        uint32
	IngressIfindex   uint32
	_                uint32
}

const (
	loopback = 1 // the device that test packets are on
	verdictOK,
	verdictShot = 0, 2
	skPass, skDrop = 1, 0
)

var (
	pod4, pod6     = netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd01::5")
	other4, other6 = netip.MustParseAddr("10.1.0.6"), netip.MustParseAddr("fd01::6")
	local6         = netip.MustParseAddr("fe80::5")
	gatewayMAC     = [6]uint8{2, 0, 0, 0, 0, 1}
)

// kernel is the loaded programs, with one pod on the loopback device.
type kernel struct {
	C8sObjects
	t testing.TB
}

func load(t testing.TB) *kernel {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Skipf("loading BPF programs needs root: %v", err)
	}
	k := &kernel{t: t}
	err := LoadC8sObjects(&k.C8sObjects, nil)
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		t.Fatalf("%+v", refused)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

func words(a netip.Addr) (w [4]uint32) {
	b := a.As16()
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// pod puts the pod on the loopback device.
func (k *kernel) pod(change func(*Pod)) {
	k.t.Helper()
	p := Pod{State: PodOpen, Addr4: words(pod4)[3], Addr6: words(pod6)}
	if change != nil {
		change(&p)
	}
	if err := k.Pods.Put(uint32(loopback), p); err != nil {
		k.t.Fatal(err)
	}
	for _, a := range []netip.Addr{pod4, pod6} {
		if err := k.PodAddrs.Put(words(a), PodAddr{Ifindex: loopback, Master: p.Master}); err != nil {
			k.t.Fatal(err)
		}
	}
}

// listen fills both TCP slots.
func (k *kernel) listen() {
	k.t.Helper()
	for slot, addr := range map[uint32]string{SlotTCP4: "127.0.0.1:0", SlotTCP6: "[::1]:0"} {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		ln, err := lc.Listen(k.t.Context(), "tcp", addr)
		if err != nil {
			k.t.Fatal(err)
		}
		k.t.Cleanup(func() { ln.Close() })
		raw, err := ln.(*net.TCPListener).SyscallConn()
		if err != nil {
			k.t.Fatal(err)
		}
		var inner error
		err = raw.Control(func(fd uintptr) { inner = k.Listeners.Put(slot, uint64(fd)) })
		if err := errors.Join(err, inner); err != nil {
			k.t.Fatal(err)
		}
	}
}

// result is what a program did with a packet.
type result struct {
	verdict uint32
	mark    uint32
	data    []byte
	reason  Reason // ReasonAllowed if nothing was counted
}

func (k *kernel) run(p *ebpf.Program, frame []byte, in skb) result {
	k.t.Helper()
	before := k.drops()
	out, data := skb{}, make([]byte, len(frame)+256)
	opts := &ebpf.RunOptions{Data: frame, DataOut: data, Context: &in, ContextOut: &out}
	verdict, err := p.Run(opts)
	if err != nil {
		k.t.Fatal(err)
	}
	return result{verdict, out.Mark, opts.DataOut, k.counted(before)}
}

func (k *kernel) lookup(in lookup) (result, uint64) {
	k.t.Helper()
	before, out := k.drops(), lookup{}
	verdict, err := k.Steer.Run(&ebpf.RunOptions{Context: &in, ContextOut: &out})
	if err != nil {
		k.t.Fatal(err)
	}
	return result{verdict: verdict, reason: k.counted(before)}, out.Cookie
}

func (k *kernel) drops() map[Reason]uint64 {
	k.t.Helper()
	all := map[Reason]uint64{}
	for _, r := range Reasons() {
		var perCPU []uint64
		if err := k.Drops.Lookup(uint32(r), &perCPU); err != nil {
			k.t.Fatal(err)
		}
		for _, n := range perCPU {
			all[r] += n
		}
	}
	return all
}

// counted is the one reason whose counter grew by one.
func (k *kernel) counted(before map[Reason]uint64) Reason {
	k.t.Helper()
	found := ReasonAllowed
	for r, n := range k.drops() {
		switch n - before[r] {
		case 0:
		case 1:
			if found != ReasonAllowed {
				k.t.Errorf("counted as %s and as %s", found, r)
			}
			found = r
		default:
			k.t.Errorf("%s was counted %d times", r, n-before[r])
		}
	}
	return found
}

// cgroup is the id of this process's cgroup, which BPF_PROG_RUN gives to the
// packets of a test: their socket is made here.
func (k *kernel) cgroup() uint64 {
	k.t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		k.t.Fatal(err)
	}
	defer m.Close()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.FnSkbCgroupId.Call(),
			asm.StoreMem(asm.R10, -8, asm.R0, asm.DWord),
			asm.StoreImm(asm.R10, -12, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.R10), asm.Add.Imm(asm.R2, -12),
			asm.Mov.Reg(asm.R3, asm.R10), asm.Add.Imm(asm.R3, -8),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnMapUpdateElem.Call(),
			asm.Mov.Imm(asm.R0, 0), asm.Return(),
		},
	})
	if err != nil {
		k.t.Fatal(err)
	}
	defer prog.Close()
	if _, err := prog.Run(&ebpf.RunOptions{Data: ip(other4, pod4, 6, tcp())}); err != nil {
		k.t.Fatal(err)
	}
	var id uint64
	if err := m.Lookup(uint32(0), &id); err != nil {
		k.t.Fatal(err)
	}
	return id
}

// kubelet makes a cgroup the kubelet's.
func (k *kernel) kubelet(cgroup uint64) {
	k.t.Helper()
	if err := k.Node.Put(uint32(0), Node{Kubelet: cgroup}); err != nil {
		k.t.Fatal(err)
	}
}
