// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func (g *guests) shaking() (strangers, known int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.strangers.shaking, g.known.shaking
}

// wantNobody checks that nothing is left of guests who have gone.
func (g *guests) wantNobody(t *testing.T) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range []*class{&g.strangers, &g.known} {
		if len(c.hosts) != 0 || c.here != 0 || c.shaking != 0 || c.line.Len() != 0 {
			t.Errorf("still counted: %+v", c)
		}
	}
	if len(g.nets) != 0 || g.order.Len() != 0 {
		t.Errorf("still ranked: %v, %d", g.nets, g.order.Len())
	}
}

// inn is guests in a bubble of synctest, whose handshakes last until told.
type inn struct {
	*guests
	t  *testing.T
	wg sync.WaitGroup
}

type stay struct {
	*guest
	shook bool
	over  context.CancelFunc
}

// arrive has a guest wait for its turn; it keeps its slot until over or evicted.
func (i *inn) arrive(addr string, known bool) *stay {
	i.t.Helper()
	v := i.enter(context.Background(), netip.MustParseAddr(addr), known)
	if v == nil {
		return nil
	}
	s := &stay{guest: v}
	over, cancel := context.WithCancel(v.ctx)
	s.over = cancel
	i.wg.Go(func() {
		defer i.leave(v)
		if s.shook = i.await(v, time.Hour); s.shook {
			<-over.Done()
		}
	})
	synctest.Wait()
	return s
}

func (s *stay) evicted() bool { return errors.Is(context.Cause(s.ctx), errCrowded) }

func (s *stay) shakesNow(g *guests) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return s.guest.shaking
}

func inBubble(t *testing.T, handshakes int, fn func(t *testing.T, i *inn)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		i := &inn{guests: newGuests(handshakes, time.Minute), t: t}
		fn(t, i)
		i.wg.Wait()
		i.wantNobody(t)
	})
}

func TestOldestStrangerOfTheLargestNetworkMakesRoom(t *testing.T) {
	inBubble(t, 4, func(t *testing.T, i *inn) {
		var all []*stay
		for _, a := range []string{"192.0.2.1", "198.51.100.1", "198.51.100.2", "203.0.113.1"} {
			all = append(all, i.arrive(a, false))
		}
		late := i.arrive("203.0.114.1", false)
		time.Sleep(i.patience - time.Nanosecond)
		synctest.Wait()
		if late.shakesNow(i.guests) {
			t.Error("a stranger did not wait for a slot to get free")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !late.shakesNow(i.guests) {
			t.Error("a stranger waits although it has been patient")
		}
		for n, s := range all {
			if s.evicted() != (n == 1) {
				t.Errorf("%d: evicted %t", n, s.evicted())
			}
		}
		// With one of each network, the oldest goes.
		later := i.arrive("203.0.115.1", false)
		time.Sleep(i.patience)
		synctest.Wait()
		if !all[0].evicted() || !later.shakesNow(i.guests) {
			t.Error("the oldest stranger did not make room")
		}
		for _, s := range append(all, late, later) {
			s.over()
		}
	})
}

func TestKnownAddressesTakeStrangersSlotsExceptTheirPart(t *testing.T) {
	inBubble(t, 16, func(t *testing.T, i *inn) {
		var all []*stay
		for n := range 16 {
			all = append(all, i.arrive(fmt.Sprintf("198.18.%d.1", n), false))
		}
		for n := range 16 {
			all = append(all, i.arrive(fmt.Sprintf("10.0.0.%d", n+1), true))
		}
		if strangers, known := i.shaking(); strangers != 2 || known != 14 {
			t.Errorf("%d strangers and %d known addresses shake hands, want 2 and 14", strangers, known)
		}
		// A known address that ends gives its slot to one that waits.
		all[16].over()
		synctest.Wait()
		if !all[30].shakesNow(i.guests) || all[31].shakesNow(i.guests) {
			t.Error("the slot went to another than the first in line")
		}
		for _, s := range all {
			s.over()
		}
		synctest.Wait()
		all[31].over()
	})
}

func TestStrangersAlwaysHaveAPart(t *testing.T) {
	inBubble(t, 16, func(t *testing.T, i *inn) {
		var all []*stay
		for n := range 20 {
			all = append(all, i.arrive(fmt.Sprintf("10.0.0.%d", n+1), true))
		}
		for n := range 2 {
			all = append(all, i.arrive(fmt.Sprintf("198.18.%d.1", n), false))
		}
		if strangers, known := i.shaking(); strangers != 2 || known != 14 {
			t.Errorf("%d strangers and %d known addresses shake hands, want 2 and 14", strangers, known)
		}
		for _, s := range all {
			s.over()
		}
	})
}

func TestManyHonestStrangersAtOnceEvictNobody(t *testing.T) {
	inBubble(t, 8, func(t *testing.T, i *inn) {
		for n := range 60 {
			v := i.enter(t.Context(), netip.MustParseAddr(fmt.Sprintf("198.18.%d.1", n)), false)
			i.wg.Go(func() {
				defer i.leave(v)
				if !i.await(v, time.Minute) {
					t.Errorf("stranger %d had no turn: %v", n, context.Cause(v.ctx))
				}
				time.Sleep(i.patience / 10)
			})
		}
	})
}

func TestStrangersThatComeLaterAreNeverRefused(t *testing.T) {
	inBubble(t, 4, func(t *testing.T, i *inn) {
		var all []*stay
		for n := range 3 * i.room {
			s := i.arrive(fmt.Sprintf("198.18.%d.1", n), false)
			if s == nil || s.evicted() {
				t.Fatalf("stranger %d was refused", n)
			}
			all = append(all, s)
			if here := i.count(); here > i.room {
				t.Fatalf("%d strangers where %d have room", here, i.room)
			}
		}
		for _, s := range all {
			s.over()
		}
	})
}

func TestKnownAddressesHaveNoMoreRoomThanTheirs(t *testing.T) {
	inBubble(t, 4, func(t *testing.T, i *inn) {
		var all []*stay
		for n := range i.room {
			all = append(all, i.arrive(fmt.Sprintf("10.0.%d.1", n), true))
		}
		if i.arrive("10.1.0.1", true) != nil {
			t.Error("one more was let in")
		}
		stranger := i.arrive("198.18.0.1", false)
		if !stranger.shakesNow(i.guests) {
			t.Error("they keep strangers out")
		}
		for _, s := range append(all, stranger) {
			s.over()
		}
	})
}

// What a known address and strangers in its /64 do is not each other's.
func TestKnownAddressSharesNothingWithItsNetwork(t *testing.T) {
	inBubble(t, 8, func(t *testing.T, i *inn) {
		var all []*stay
		for n := range i.queue {
			all = append(all, i.arrive(fmt.Sprintf("fd00::%x", n+10), false))
		}
		if i.arrive("fd00::9", false) != nil {
			t.Error("a host has more connections than it may")
		}
		known := i.arrive("fd00::1", true)
		if known == nil || !known.shakesNow(i.guests) {
			t.Error("a known address pays for its network")
		}
		for _, s := range append(all, known) {
			s.over()
			synctest.Wait()
		}
	})
}

// Whatever happens in whatever order, limits hold and nothing is left behind.
func TestGuestsAreCountedRight(t *testing.T) {
	for seed := range uint64(20) {
		inBubble(t, 6, func(t *testing.T, i *inn) {
			r := rand.New(rand.NewPCG(seed, 1))
			for range 500 {
				addr := netip.AddrFrom4([4]byte{198, 18, byte(r.IntN(4)), byte(r.IntN(6))})
				v := i.enter(t.Context(), addr, r.IntN(3) == 0)
				if v == nil {
					continue
				}
				patient, busy := time.Duration(r.Int64N(int64(2*i.patience))), time.Duration(r.Int64N(int64(2*i.patience)))
				i.wg.Go(func() {
					defer i.leave(v)
					if i.await(v, patient) {
						select {
						case <-v.ctx.Done():
						case <-time.After(busy):
						}
					}
				})
				time.Sleep(time.Duration(r.Int64N(int64(i.patience / 20))))
				strangers, known := i.shaking()
				if strangers+known > i.slots || known > i.peers || i.count() > 2*i.room {
					t.Fatalf("%d strangers and %d known addresses shake hands, %d are here", strangers, known, i.count())
				}
			}
		})
	}
}
