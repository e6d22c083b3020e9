// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"io"
	"testing"
)

// A stream that was there before goes on, and the tunnel carries no other.
func TestRetiredTunnelFinishesItsStreamAndCarriesNoOther(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		near, done := r.connect(t)
		far := r.farEnd(t)
		r.acceptor.retire()
		for range 2 {
			_, err := near.Write([]byte("x"))
			must(t, err)
			_, err = io.ReadFull(far, make([]byte, 1))
			must(t, err)
			_, err = far.Write([]byte("y"))
			must(t, err)
			_, err = io.ReadFull(near, make([]byte, 1))
			must(t, err)
		}
		near.Close()
		far.Close()
		if res := await(t, done); res.Reason != ReasonNone || res.Err != nil {
			t.Errorf("%+v", res)
		}
		if r.opener.Idle() {
			t.Error("the tunnel can be used again")
		}
	})
}

// The opener did not know yet: its stream must not fail.
func TestStreamThatCrossesTheRetirementIsServed(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		r := newRig(t, useTLS)
		if !r.opener.Idle() {
			t.Fatal("a good tunnel is called bad")
		}
		r.acceptor.retire() // after the opener has looked
		near, done := r.connect(t)
		far := r.farEnd(t)
		near.Close()
		far.Close()
		if res := await(t, done); res.Reason != ReasonNone || res.Err != nil {
			t.Errorf("%+v", res)
		}
		if r.opener.Idle() {
			t.Error("the tunnel can be used again")
		}
	})
}

func TestPoolLetsGoOfTunnelsThatTheServerRetires(t *testing.T) {
	r := newPoolRig(t, PoolConfig{})
	get := func() *Lease {
		t.Helper()
		l, err := r.Get(context.Background(), poolKey)
		must(t, err)
		return l
	}
	l := get()
	r.Put(l)
	if again := get(); again != l {
		t.Fatal("the idle tunnel was not used again")
	}
	r.Put(l)
	r.srv.Retire()
	eventually(t, "the pool to hear of the retirement", func() bool {
		fresh := get() // the server retires this one too, as soon as it comes
		r.Put(fresh)
		return fresh != l
	})
}
