// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

// syns runs pod_egress n times over a frame and returns how many it refused
// for their rate. The time it takes admits some more than the burst.
func (k *kernel) syns(frame []byte, n uint32) uint64 {
	k.t.Helper()
	return k.refused(frame, skb{}, n, ReasonSYNRate)
}

func (k *kernel) refused(frame []byte, in skb, n uint32, why Reason) uint64 {
	k.t.Helper()
	in.Ifindex = loopback
	spent, err := k.budgets()
	if err != nil {
		k.t.Fatal(err)
	}
	before := k.drops()[why]
	again := func() { // a signal came between: what has run does not count
		if err := k.setBudgets(spent); err != nil {
			k.t.Error(err)
		}
		before = k.drops()[why]
	}
	k.do(func() error {
		//lint:ignore SA1019 deprecated for benchmarks; nothing else tells of a signal
		_, err := k.PodEgress.Run(&ebpf.RunOptions{Data: frame, Context: &in, Repeat: n, Reset: again})
		return err
	})
	return k.drops()[why] - before
}

// clock sets when the budgets of the pod's link are whole again, from now in
// ns; time begins with the machine.
func (k *kernel) clock(ahead int64) {
	k.t.Helper()
	at := uint64(max(0, int64(monotonic())+ahead))
	if err := k.setBudgets([2]uint64{at, at}); err != nil {
		k.t.Fatal(err)
	}
}

// budgets are those of the pod's link, for connections and for datagrams.
func (k *kernel) budgets() (at [2]uint64, err error) {
	return at, errors.Join(k.SynBudget.Lookup(uint32(loopback), &at[0]), k.DatagramBudget.Lookup(uint32(loopback), &at[1]))
}

func (k *kernel) setBudgets(at [2]uint64) error {
	return errors.Join(k.SynBudget.Put(uint32(loopback), at[0]), k.DatagramBudget.Put(uint32(loopback), at[1]))
}

func TestSYNsHaveABudget(t *testing.T) {
	const second = 1e9
	k := load(t)
	k.pod(nil)
	k.listen()
	for name, frame := range map[string][]byte{"v4": ip(pod4, other4, 6, tcp()), "v6": ip(pod6, other6, 6, tcp())} {
		t.Run(name, func(t *testing.T) {
			k.t = t
			// An idle link has its whole burst, however long it was idle.
			for _, ahead := range []int64{-3600 * second, 0} {
				k.clock(ahead)
				if n := k.syns(frame, 8000); n != 0 {
					t.Errorf("idle until %d ns: %d of 8,000 refused", ahead, n)
				}
			}
			// 1,000 s ahead, time does not matter to this test.
			k.clock(1000 * second)
			if n := k.syns(frame, 100); n != 100 {
				t.Errorf("%d of 100 refused with the budget used up", n)
			}
			if n := k.syns(segmentOf(frame, ack), 100) + k.syns(segmentOf(frame, syn|ack), 100); n != 0 {
				t.Errorf("%d packets of connections were refused", n)
			}
		})
	}
	k.t = t
	// A budget is refilled by time only: 50,000 at once are not admitted.
	k.clock(0)
	if n := k.syns(ip(pod4, other4, 6, tcp()), 50000); n == 0 {
		t.Error("50,000 SYNs in a row were admitted")
	}
	// The budget is the link's own.
	if err := k.SynBudget.Put(uint32(77), uint64(1)<<62); err != nil {
		t.Fatal(err)
	}
	k.clock(0)
	if n := k.syns(ip(pod4, other4, 6, tcp()), 1); n != 0 {
		t.Error("another link's flood refuses this one's SYN")
	}
}

// Small datagrams, large ones, those that the kernel will cut into many and
// those that come in fragments take what they may take of the queue.
func TestFirstDatagramsHaveABudget(t *testing.T) {
	const burst = 2 << 20 // the default; datagrams take 2 bytes for each byte of the packet, and 768
	k := load(t)
	k.pod(nil)
	k.listen()
	mtu := make([]byte, 1400)
	for name, c := range map[string]struct {
		frame []byte
		in    skb
		room  int
	}{
		"v4":               {ip(pod4, other4, 17, udp(53, nil)), skb{}, 2*42 + 768},
		"v6":               {ip(pod6, other6, 17, udp(53, nil)), skb{}, 2*62 + 768},
		"v4, full packets": {ip(pod4, other4, 17, udp(53, mtu)), skb{}, 2*1442 + 768},
		"v4, segments":     {ip(pod4, other4, 17, udp(53, mtu)), skb{GSOSize: 100}, 2*1442 + 15*768},
		"v4, fragments":    {fragment4(0, true, udp(53, mtu)), skb{}, 2*65535 + 768},
		"v6, fragments":    {fragment6(17, 0, true, udp(53, mtu)), skb{}, 2*65535 + 768},
	} {
		t.Run(name, func(t *testing.T) {
			k.t = t
			fits := burst / c.room
			for _, ahead := range []int64{-3600e9, 0} {
				k.clock(ahead)
				if n := k.refused(c.frame, c.in, uint32(fits), ReasonDatagramRate); n != 0 {
					t.Errorf("idle until %d ns: %d of %d refused", ahead, n, fits)
				}
			}
			// A second's rate more than the burst, which takes far less than a second.
			k.clock(0)
			if n := k.refused(c.frame, c.in, uint32(fits+(32<<20)/c.room), ReasonDatagramRate); n == 0 {
				t.Error("a second's datagrams at once were admitted")
			}
			k.clock(1000e9)
			if n := k.refused(c.frame, c.in, 100, ReasonDatagramRate); n != 100 {
				t.Errorf("%d of 100 refused with the budget used up", n)
			}
			if got := k.run(k.PodEgress, c.frame, skb{Ifindex: loopback, GSOSize: c.in.GSOSize}); got.verdict != verdictShot {
				t.Errorf("verdict %d", got.verdict)
			}
		})
	}
}

// What a flow has a socket for, later fragments, and SYNs are not asked for.
func TestOnlyFirstDatagramsTakeFromTheBudget(t *testing.T) {
	k := load(t)
	k.pod(nil)
	k.listen()
	k.socket("udp4", "10.1.0.6:53", "10.1.0.5:40000", daemonMark)
	k.socket("udp6", "[fd01::6]:53", "[fd01::5]:40000", daemonMark)
	k.clock(1000e9)
	for name, frame := range map[string][]byte{
		"a flow's datagram":           ip(pod4, other4, 17, udp(53, nil)),
		"an IPv6 flow's datagram":     ip(pod6, other6, 17, udp(53, nil)),
		"a flow's first fragment":     fragment4(0, true, udp(53, make([]byte, 64))),
		"an IPv6 flow's fragment":     fragment6(17, 0, true, udp(53, make([]byte, 64))),
		"a later fragment":            fragment4(9, true, make([]byte, 64)),
		"a segment of a connection":   ip(pod4, other4, 6, segment(40000, 80, ack)),
		"a message about a neighbour": arp(pod4, 0),
	} {
		if got := k.run(k.PodEgress, frame, skb{Ifindex: loopback}); got.verdict != verdictOK {
			t.Errorf("%s: %s", name, got.reason)
		}
	}
	// Another link's flood is its own.
	if err := k.DatagramBudget.Put(uint32(77), uint64(1)<<62); err != nil {
		t.Fatal(err)
	}
	k.clock(0)
	if got := k.run(k.PodEgress, ip(pod4, other4, 17, udp(54, nil)), skb{Ifindex: loopback}); got.verdict != verdictOK {
		t.Errorf("with another link's budget used up: %s", got.reason)
	}
	// What no socket of ours would receive takes nothing.
	k.socket("udp4", "10.1.0.6:55", "10.1.0.5:40000", 0)
	k.clock(1000e9)
	if got := k.run(k.PodEgress, ip(pod4, other4, 17, udp(55, nil)), skb{Ifindex: loopback}); got.reason != ReasonHostSocket {
		t.Errorf("for a socket of the node: %s", got.reason)
	}
}

// segmentOf is the frame of a SYN with other flags.
func segmentOf(frame []byte, flags byte) []byte { return with(frame, len(frame)-7, flags) }
