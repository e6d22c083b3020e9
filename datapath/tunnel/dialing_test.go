// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

func keyOf(owner string, n int) Key {
	return Key{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), Node: netip.MustParseAddr("10.0.0.9"), Owner: owner}
}

func TestDialsOfOneOwnerAreLimitedAndOthersGoOn(t *testing.T) {
	r := newPoolRig(t, PoolConfig{OwnerDials: 3, TotalDials: 5})
	r.gate = make(chan struct{})
	var wg sync.WaitGroup
	want := func(owner string, n int) {
		for i := range n {
			wg.Go(func() {
				l, err := r.Get(t.Context(), keyOf(owner, i))
				if err != nil {
					t.Error(err)
					return
				}
				r.Put(l)
			})
		}
	}
	want("hostile", 50)
	eventually(t, "the hostile owner's limit", func() bool { s := r.Stats(); return s.Dialing == 3 && s.Waiting == 47 })
	want("honest", 1)
	eventually(t, "the honest owner's dial", func() bool { return r.Stats().Dialing == 4 })
	want("third", 4)
	eventually(t, "the limit of all", func() bool { s := r.Stats(); return s.Dialing == 5 && s.Waiting == 50 })
	if held := r.Stats().Held; held != 50 {
		t.Errorf("%d dials were held, want 50", held)
	}
	close(r.gate)
	wg.Wait()
	eventually(t, "nothing left", func() bool { s := r.Stats(); return s.Dialing == 0 && s.Waiting == 0 })
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.caps.owners) != 0 || len(r.caps.turn) != 0 {
		t.Errorf("left behind: %+v", r.caps)
	}
}

func TestFreeDialsGoToWaitingOwnersInTurn(t *testing.T) {
	d := dialing{total: 1, perOwner: 1, owners: map[string]*dialer{}}
	if !d.take(keyOf("a", 0)) {
		t.Fatal("the first dial had to wait")
	}
	for n := 1; n < 4; n++ {
		for _, owner := range []string{"a", "b"} {
			for range 2 { // asking twice is waiting once
				if d.take(keyOf(owner, n)) {
					t.Fatal("a dial did not have to wait")
				}
			}
		}
	}
	running, order := "a", ""
	for range 6 {
		d.give(running)
		key, ok := d.next()
		if !ok {
			t.Fatal("nobody's turn")
		}
		running, order = key.Owner, order+fmt.Sprint(key.Owner, key.Dst.As4()[3], " ")
	}
	if order != "a1 b1 a2 b2 a3 b3 " {
		t.Errorf("the order was %s", order)
	}
	d.give(running)
	if _, ok := d.next(); ok || d.waiting() != 0 || len(d.owners) != 0 {
		t.Errorf("left behind: %+v", d)
	}
}

func TestWaitingForATurnInVainSaysSo(t *testing.T) {
	r := newPoolRig(t, PoolConfig{OwnerDials: 1})
	r.gate = make(chan struct{})
	go func() {
		if l, err := r.Get(t.Context(), keyOf("a", 0)); err == nil {
			r.Put(l)
		}
	}()
	eventually(t, "the first dial", func() bool { return r.Stats().Dialing == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Get(ctx, keyOf("a", 1)); !errors.Is(err, ErrDialLimit) {
		t.Errorf("%v", err)
	}
	// Nobody wants that tunnel any more: it is not dialled.
	close(r.gate)
	eventually(t, "the end of the dials", func() bool { s := r.Stats(); return s.Dialing == 0 && s.Waiting == 0 })
	if n := r.dials.Load(); n != 1 {
		t.Errorf("%d dials", n)
	}
}

func TestIdleTunnelsOfOneOwnerAreLimited(t *testing.T) {
	r := newPoolRig(t, PoolConfig{OwnerIdle: 3})
	var leases []*Lease
	for i := range 6 {
		l, err := r.Get(t.Context(), keyOf("a", i))
		if err != nil {
			t.Fatal(err)
		}
		leases = append(leases, l)
	}
	other, err := r.Get(t.Context(), keyOf("b", 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range append(leases, other) {
		r.Put(l)
	}
	if s := r.Stats(); s.Idle != 4 || s.Busy != 0 {
		t.Errorf("%+v", s)
	}
	r.CloseWhere(func(k Key, _ Meta, _ *Tunnel) *Ending {
		if k.Owner == "a" {
			return &Ending{Reason: ReasonPolicyChanged}
		}
		return nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.idleOf) != 1 || r.idleOf["b"] != 1 {
		t.Errorf("counted %v", r.idleOf)
	}
}
