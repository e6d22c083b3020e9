// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// syns runs pod_egress n times over a frame and returns how many it refused
// for their rate. The time it takes admits some more than the burst.
func (k *kernel) syns(frame []byte, n uint32) uint64 {
	k.t.Helper()
	before := k.drops()[ReasonSYNRate]
	in := skb{Ifindex: loopback}
	k.do(func() error {
		_, err := k.PodEgress.Run(&ebpf.RunOptions{Data: frame, Context: &in, Repeat: n})
		return err
	})
	return k.drops()[ReasonSYNRate] - before
}

// clock sets when the budget of the pod's link is whole again, from now in ns;
// time begins with the machine.
func (k *kernel) clock(ahead int64) {
	k.t.Helper()
	if err := k.SynBudget.Put(uint32(loopback), uint64(max(0, int64(monotonic())+ahead))); err != nil {
		k.t.Fatal(err)
	}
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

// segmentOf is the frame of a SYN with other flags.
func segmentOf(frame []byte, flags byte) []byte { return with(frame, len(frame)-7, flags) }
