// SPDX-License-Identifier: Apache-2.0

package external

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// clock is the time of the tests.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newBindings(cfg Config) (*Bindings, *clock) {
	c := &clock{at: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)}
	cfg.Now = c.now
	return New(cfg), c
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

func names(b *Bindings, uid, addr string) []string {
	list := b.Names(uid, netip.MustParseAddr(addr))
	slices.Sort(list)
	return list
}

func wantNames(t *testing.T, b *Bindings, uid, addr string, want ...string) {
	t.Helper()
	if got := names(b, uid, addr); !slices.Equal(got, want) {
		t.Errorf("%s knows %s as %v, want %v", uid, addr, got, want)
	}
}

func TestOnlyThePodThatWasAnsweredKnows(t *testing.T) {
	b, _ := newBindings(Config{})
	b.Learn("a", "api.example.com", addrs("192.0.2.1", "2001:db8::1"), time.Hour)
	b.Learn("a", "www.example.com", addrs("::ffff:192.0.2.1"), time.Hour)
	wantNames(t, b, "a", "192.0.2.1", "api.example.com", "www.example.com")
	wantNames(t, b, "a", "::ffff:192.0.2.1", "api.example.com", "www.example.com")
	wantNames(t, b, "a", "2001:db8::1", "api.example.com")
	wantNames(t, b, "a", "192.0.2.2")
	wantNames(t, b, "b", "192.0.2.1")
	b.Forget("b")
	wantNames(t, b, "a", "2001:db8::1", "api.example.com")
	b.Forget("a")
	wantNames(t, b, "a", "192.0.2.1")
	if s := b.Stats(); s.Held != 0 || len(b.pods) != 0 {
		t.Errorf("%+v and %d pods are left", s, len(b.pods))
	}
}

func TestBindingsLastAsLongAsTheirAnswersWithinBounds(t *testing.T) {
	for name, tt := range map[string]struct{ ttl, lasts time.Duration }{
		"an answer not to be kept": {0, DefaultFloor},
		"a short one":              {5 * time.Second, DefaultFloor},
		"a usual one":              {5 * time.Minute, 5 * time.Minute},
		"one for days":             {100 * time.Hour, DefaultCeiling},
		"nonsense":                 {-time.Hour, DefaultFloor},
	} {
		t.Run(name, func(t *testing.T) {
			b, c := newBindings(Config{})
			b.Learn("a", "x.example", addrs("192.0.2.1"), tt.ttl)
			c.pass(tt.lasts - time.Nanosecond)
			wantNames(t, b, "a", "192.0.2.1", "x.example")
			c.pass(time.Nanosecond)
			wantNames(t, b, "a", "192.0.2.1")
		})
	}
}

func TestTheLongestAnswerCounts(t *testing.T) {
	b, c := newBindings(Config{})
	b.Learn("a", "x.example", addrs("192.0.2.1"), 10*time.Minute)
	b.Learn("a", "x.example", addrs("192.0.2.1"), time.Minute) // from a cache, almost over
	c.pass(9 * time.Minute)
	wantNames(t, b, "a", "192.0.2.1", "x.example")
	b.Learn("a", "x.example", addrs("192.0.2.1"), 10*time.Minute)
	c.pass(9 * time.Minute)
	wantNames(t, b, "a", "192.0.2.1", "x.example")
	if s := b.Stats(); s.Held != 1 {
		t.Errorf("%+v", s)
	}
}

func TestAPodDisplacesItsOwnThatEndsFirst(t *testing.T) {
	b, _ := newBindings(Config{PerPod: 3})
	b.Learn("quiet", "q.example", addrs("192.0.2.9"), time.Minute)
	for i, minutes := range []int{30, 10, 20, 40, 50} {
		b.Learn("busy", "x.example", addrs(fmt.Sprintf("192.0.2.%d", i)), time.Duration(minutes)*time.Minute)
	}
	for i, kept := range []bool{true, false, false, true, true} {
		if got := len(names(b, "busy", fmt.Sprintf("192.0.2.%d", i))) == 1; got != kept {
			t.Errorf("binding %d is kept: %t, want %t", i, got, kept)
		}
	}
	wantNames(t, b, "quiet", "192.0.2.9", "q.example")
	if s := b.Stats(); s.Held != 4 || s.Displaced != 2 {
		t.Errorf("%+v", s)
	}
}

func TestWhenAllIsFullTheGreediestPodGivesWay(t *testing.T) {
	b, _ := newBindings(Config{PerPod: 10, Total: 12})
	learn := func(uid string, n int) {
		for i := range n {
			b.Learn(uid, "x.example", addrs(fmt.Sprintf("192.0.2.%d", i)), time.Minute)
		}
	}
	learn("small", 2)
	learn("greedy", 10)
	learn("late", 3)
	count := func(uid string) (n int) {
		for i := range 10 {
			n += len(names(b, uid, fmt.Sprintf("192.0.2.%d", i)))
		}
		return n
	}
	if count("small") != 2 || count("greedy") != 7 || count("late") != 3 {
		t.Errorf("small %d, greedy %d, late %d", count("small"), count("greedy"), count("late"))
	}
	if s := b.Stats(); s.Held != 12 || s.Displaced != 3 {
		t.Errorf("%+v", s)
	}
}

// An answer that was under way when its pod went does not stay for good.
func TestWhatIsOverIsSwept(t *testing.T) {
	b, c := newBindings(Config{})
	b.Forget("gone")
	b.Learn("gone", "x.example", addrs("192.0.2.1", "192.0.2.2"), time.Minute)
	c.pass(2 * time.Minute)
	b.Learn("other", "x.example", addrs("192.0.2.1"), time.Minute)
	if s := b.Stats(); s.Held != 1 || len(b.pods) != 1 {
		t.Errorf("%+v, %d pods", s, len(b.pods))
	}
	b.Learn("none", "x.example", nil, time.Minute)
	b.Learn("none", "x.example", []netip.Addr{{}}, time.Minute)
	if s := b.Stats(); s.Held != 1 || len(b.pods) != 1 {
		t.Errorf("after an empty answer %+v, %d pods", s, len(b.pods))
	}
}

func TestBindingsAreSharedByManyGoroutines(t *testing.T) {
	b, c := newBindings(Config{PerPod: 8, Total: 40})
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			uid := fmt.Sprint("pod", g)
			for i := range 500 {
				addr := fmt.Sprintf("192.0.2.%d", i%20)
				b.Learn(uid, "x.example", addrs(addr), time.Minute)
				b.Names(uid, netip.MustParseAddr(addr))
				if i%100 == 99 {
					b.Forget(uid)
				}
				c.pass(time.Second)
			}
		})
	}
	all.Wait()
	held := 0
	for _, pod := range b.pods {
		held += len(pod.queue)
	}
	if s := b.Stats(); s.Held != held || held > 40 {
		t.Errorf("%+v, and there are %d", s, held)
	}
}

func BenchmarkNames(b *testing.B) {
	m, _ := newBindings(Config{})
	for pod := range 100 {
		for i := range 200 {
			m.Learn(fmt.Sprint("pod", pod), "api.example.com", []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}, time.Hour)
		}
	}
	addr := netip.MustParseAddr("192.0.2.7")
	b.ReportAllocs()
	for b.Loop() {
		if len(m.Names("pod50", addr)) != 1 {
			b.Fatal("it is not there")
		}
	}
}

func BenchmarkLearn(b *testing.B) {
	m, _ := newBindings(Config{})
	var four [4]netip.Addr
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		for j := range four {
			four[j] = netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)})
		}
		m.Learn("pod", "api.example.com", four[:], time.Minute)
	}
}
