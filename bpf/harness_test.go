// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/thread"
)

// skb is the part of struct __sk_buff that a test may fill in.
type skb struct {
	Len, PktType, Mark, QueueMapping, Protocol, VLANPresent, VLANTci, VLANProto uint32
	Priority, IngressIfindex, Ifindex, TCIndex                                  uint32
	_                                                                           [29]uint32
	GSOSegs                                                                     uint32
	_                                                                           [2]uint32
	GSOSize                                                                     uint32
	_                                                                           [3]uint32
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
	broadcast4     = netip.MustParseAddr("10.1.0.255")
	local6         = netip.MustParseAddr("fe80::5")
	gatewayMAC     = [6]uint8{2, 0, 0, 0, 0, 1}
)

// kernel is the loaded programs, with one pod on the loopback device of a
// network namespace of its own, where steer is attached.
type kernel struct {
	C8sObjects
	t     testing.TB
	work  chan func()
	steer link.Link
}

func load(t testing.TB) *kernel {
	t.Helper()
	privileged.Require(t)
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
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
	k.isolate()
	return k
}

// isolate makes the namespace, which ends with its thread.
func (k *kernel) isolate() {
	k.t.Helper()
	k.work = make(chan func())
	ready := make(chan error)
	thread.Go(func() {
		ready <- k.enter()
		for fn := range k.work {
			fn()
		}
	})
	k.t.Cleanup(func() { close(k.work) })
	if err := <-ready; err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("making a network namespace: %w", err)
	}
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	if k.steer, err = link.AttachNetNs(int(ns.Fd()), k.Steer); err != nil {
		return fmt.Errorf("attaching steer: %w", err)
	}
	k.t.Cleanup(func() { k.steer.Close() })
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} { // sockets connect to the pod
		dst, err := netlink.ParseIPNet(all)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst}); err != nil {
			return fmt.Errorf("adding the route to %s: %w", all, err)
		}
	}
	return nil
}

// do runs fn on the thread in the namespace.
func (k *kernel) do(fn func() error) {
	k.t.Helper()
	done := make(chan error)
	k.work <- func() { done <- fn() }
	if err := <-done; err != nil {
		k.t.Fatal(err)
	}
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

// broadcast makes an address one of the node's broadcast addresses.
func (k *kernel) broadcast(a netip.Addr) {
	k.t.Helper()
	if err := k.Broadcasts.Put(words(a)[3], uint32(1)); err != nil {
		k.t.Fatal(err)
	}
}

// listen fills all slots as the daemon does.
func (k *kernel) listen() {
	k.t.Helper()
	for slot, at := range []struct{ network, addr string }{
		SlotTCP4: {"tcp4", "127.0.0.1:0"}, SlotTCP6: {"tcp6", "[::1]:0"}, SlotUDP4: {"udp4", "127.0.0.1:0"}, SlotUDP6: {"udp6", "[::1]:0"},
	} {
		sock := k.socket(at.network, at.addr, "", daemonMark)
		k.do(func() error {
			raw, err := sock.SyscallConn()
			if err != nil {
				return err
			}
			var inner error
			err = raw.Control(func(fd uintptr) { inner = k.Listeners.Put(uint32(slot), uint64(fd)) })
			return errors.Join(err, inner)
		})
	}
}

const daemonMark = 0x2000

// socket opens a transparent socket of the node with a mark: a listener or, of
// UDP with a remote address, a connected one.
func (k *kernel) socket(network, local, remote string, mark int) syscall.Conn {
	k.t.Helper()
	control := func(_, _ string, c syscall.RawConn) error {
		var inner error
		err := c.Control(func(fd uintptr) {
			level, option := unix.SOL_IP, unix.IP_TRANSPARENT
			if strings.HasSuffix(network, "6") {
				level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			}
			inner = errors.Join(unix.SetsockoptInt(int(fd), level, option, 1), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark))
		})
		return errors.Join(err, inner)
	}
	var made any
	k.do(func() (err error) {
		lc := net.ListenConfig{Control: control}
		lc.SetMultipathTCP(false)
		switch {
		case remote != "":
			made, err = (&net.Dialer{Control: control, LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))}).Dial(network, remote)
		case strings.HasPrefix(network, "udp"):
			made, err = lc.ListenPacket(k.t.Context(), network, local)
		default:
			made, err = lc.Listen(k.t.Context(), network, local)
		}
		return err
	})
	k.t.Cleanup(func() { made.(io.Closer).Close() })
	return made.(syscall.Conn)
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
	var verdict uint32
	k.do(func() (err error) { verdict, err = p.Run(opts); return err })
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

// monotonic is the clock of bpf_ktime_get_ns.
func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return uint64(ts.Nano())
}

// event is the next one.
func (k *kernel) event() (e Event) {
	k.t.Helper()
	r, err := ringbuf.NewReader(k.Events)
	if err != nil {
		k.t.Fatal(err)
	}
	defer r.Close()
	r.SetDeadline(time.Now().Add(5 * time.Second))
	record, err := r.Read()
	if err != nil {
		k.t.Fatal(err)
	}
	if err := binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &e); err != nil {
		k.t.Fatal(err)
	}
	return e
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
