// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestBudgetHoldsPerOwnerAndForAll(t *testing.T) {
	b := NewBudget(100, 40)
	takeAll := func(owner string) (got int64) {
		for b.Take(owner, 5) {
			got += 5
		}
		return got
	}
	// The second finds 60 left, of which it may have what leaves as much to
	// others; however many come, the next one finds some.
	for _, tt := range []struct {
		owner string
		want  int64
	}{{"a", 40}, {"a", 0}, {"b", 30}, {"c", 15}, {"d", 10}} {
		if got := takeAll(tt.owner); got != tt.want {
			t.Errorf("%s took %d, want %d", tt.owner, got, tt.want)
		}
	}
	if b.Used() != 95 || b.Refused() != 5 {
		t.Errorf("%d used, %d refused", b.Used(), b.Refused())
	}
	b.Give("a", 40)
	if got := takeAll("f"); got != 25 {
		t.Errorf("after 40 were given back, another took %d", got)
	}
	for owner, n := range map[string]int64{"b": 30, "c": 15, "d": 10, "f": 25} {
		b.Give(owner, n)
	}
	if b.Used() != 0 || len(b.owners) != 0 {
		t.Errorf("everything was given back: %d used, %v", b.Used(), b.owners)
	}
}

// Everything works without a large buffer, only slower.
func TestBytesArriveUnchangedWithoutABudget(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		bufs := &Buffers{Budget: NewBudget(0, 0)}
		r := newRigOn(t, useTLS, bufs, "near", "far")
		for range 3 { // the tunnel stays usable
			near, done := r.connect(t)
			far := r.farEnd(t)
			exchange(t, near, far, randomBytes(1_500_003), randomBytes(700_017))
			if res := await(t, done); res.Reason != 0 || res.Err != nil {
				t.Fatalf("%+v", res)
			}
			await(t, r.farResult)
			if !r.opener.Idle() {
				t.Fatal("the tunnel cannot be used again")
			}
		}
		if bufs.Budget.Refused() == 0 {
			t.Error("nothing was refused")
		}
	})
}

// exchange carries up and down at once, and both ends in order.
func exchange(t *testing.T, near, far *net.TCPConn, up, down []byte) {
	t.Helper()
	var wg sync.WaitGroup
	for _, way := range []struct {
		from, to *net.TCPConn
		p        []byte
	}{{near, far, up}, {far, near, down}} {
		wg.Go(func() {
			if _, err := way.from.Write(way.p); err != nil {
				t.Error(err)
			}
			_ = way.from.CloseWrite()
		})
		wg.Go(func() {
			got, err := io.ReadAll(way.to)
			if err != nil || !bytes.Equal(got, way.p) {
				t.Errorf("read %d bytes, %v; want %d", len(got), err, len(way.p))
			}
		})
	}
	wg.Wait()
}

// stuff writes to c until nothing moves any more, and returns what it wrote.
func stuff(t *testing.T, r *rig, c *net.TCPConn) []byte {
	t.Helper()
	chunk := randomBytes(256 << 10)
	var sent []byte
	for last := int64(-1); ; {
		must(t, c.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		n, err := c.Write(chunk)
		sent = append(sent, chunk[:n]...)
		if err == nil {
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		moved := r.opener.Moved() + r.acceptor.Moved()
		if moved == last {
			return sent
		}
		last = moved
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools keep lives for one more
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestStalledStreamsHoldNoMoreThanTheirBudget(t *testing.T) {
	bothWays(t, func(t *testing.T, useTLS bool) {
		const streams, perOwner = 16, 1 << 20
		bufs := &Buffers{Budget: NewBudget(64<<20, perOwner)}
		type stalled struct {
			*rig
			near, far *net.TCPConn
			done      chan Result
			up        []byte
		}
		all := make([]stalled, streams)
		for i := range all {
			r := newRigOn(t, useTLS, bufs, "hostile", "victim")
			for _, c := range []net.Conn{r.opener.conn, r.acceptor.conn} { // the kernel need not hold megabytes
				must(t, errors.Join(c.(*net.TCPConn).SetWriteBuffer(128<<10), c.(*net.TCPConn).SetReadBuffer(256<<10)))
			}
			near, done := r.connect(t)
			all[i] = stalled{rig: r, near: near, done: done, far: r.farEnd(t)}
			must(t, errors.Join(near.SetWriteBuffer(128<<10), all[i].far.SetReadBuffer(64<<10)))
		}
		quiet := heap()
		var wg sync.WaitGroup
		for i := range all {
			s := &all[i]
			wg.Go(func() { s.up = stuff(t, s.rig, s.near) })
		}
		wg.Wait()
		sent := 0
		for i := range all {
			sent += cap(all[i].up)
		}
		held := heap() - quiet - int64(sent)
		if used := bufs.Budget.Used(); used > 2*perOwner || used < perOwner {
			t.Errorf("two owners hold %d bytes", used)
		}
		// Beyond the budget: small buffers, a TLS record on each side, and what
		// pools keep. Without one these streams hold more than twice the
		// limit or, with TLS, three times.
		t.Logf("%d streams hold %d KiB, of which %d KiB in large buffers", streams, held>>10, bufs.Budget.Used()>>10)
		if limit := int64(2*perOwner + streams*100<<10); held > limit {
			t.Errorf("%d stalled streams hold %d bytes, want at most %d", streams, held, limit)
		}
		other := newRigOn(t, useTLS, bufs, "other", "another")
		if !bufs.Budget.Take("other", perOwner) {
			t.Error("nothing is left for other pods")
		}
		bufs.Budget.Give("other", perOwner)
		near, done := other.connect(t)
		exchange(t, near, other.farEnd(t), randomBytes(8<<20), randomBytes(8<<20))
		if res := await(t, done); res.Reason != 0 {
			t.Errorf("other pods: %+v", res)
		}
		for i := range all {
			s := &all[i]
			deadline := time.Now().Add(30 * time.Second)
			must(t, errors.Join(s.near.SetDeadline(deadline), s.far.SetDeadline(deadline), s.near.CloseWrite()))
			got, err := io.ReadAll(s.far)
			if err != nil || !bytes.Equal(got, s.up) {
				t.Fatalf("after the stall %d bytes arrived of %d, %v", len(got), len(s.up), err)
			}
			must(t, s.far.Close())
			if res := await(t, s.done); res.Reason != 0 || res.Err != nil {
				t.Fatalf("%+v", res)
			}
		}
		if used := bufs.Budget.Used(); used != 0 {
			t.Errorf("%d bytes are held by nobody", used)
		}
	})
}
