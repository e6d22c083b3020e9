// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"testing"
	"time"
)

// sited is a table with a Service with session affinity, and a clock.
type sited struct {
	*Table
	t   *testing.T
	now time.Time
}

func newSited(t *testing.T) *sited {
	s := &sited{Table: table(t), t: t, now: epoch}
	s.cfg.Now = func() time.Time { return s.now }
	return s
}

func (s *sited) endpoints(timeout time.Duration, all ...Endpoint) {
	c := nodes()
	web := service(all...)
	web.Affinity = timeout
	c.Services = []Service{web}
	s.SetCluster(c)
}

func (s *sited) ask(src netip.Addr, avoid ...netip.Addr) netip.AddrPort {
	s.t.Helper()
	target, v := s.Resolve(Query{Protocol: TCP, Src: src, Dst: ap(vip4 + ":80"), Avoid: avoid})
	if v != Found {
		s.t.Fatal(v)
	}
	return target.Pod
}

func client(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 81, byte(i >> 8), byte(i)}) }

// As with kube-proxy, a client keeps its endpoint while others come, until the
// time-out has passed since its last connection.
func TestClientsKeepTheirEndpointUntilTheTimeout(t *testing.T) {
	s := newSited(t)
	s.endpoints(time.Minute, many(2)...)
	var before [200]netip.AddrPort
	for i := range before {
		before[i] = s.ask(client(i))
	}
	s.endpoints(time.Minute, many(20)...)
	for range 3 {
		s.now = s.now.Add(59 * time.Second) // each connection begins the time anew
		for i := range before {
			if got := s.ask(client(i)); got != before[i] {
				t.Fatalf("client %d moved from %s to %s", i, before[i], got)
			}
		}
	}
	s.now = s.now.Add(time.Minute)
	moved := 0
	for i := range before {
		if s.ask(client(i)) != before[i] {
			moved++
		}
	}
	if moved < 100 {
		t.Errorf("after the time-out only %d of 200 clients were spread over 18 more endpoints", moved)
	}
}

func TestClientsOfALostEndpointStayWithTheNextOne(t *testing.T) {
	s := newSited(t)
	s.endpoints(time.Minute, many(5)...)
	first := s.ask(client(1))
	second := s.ask(client(1), first.Addr())
	if second == first {
		t.Fatal("an endpoint that failed was chosen")
	}
	if got := s.ask(client(1)); got != second {
		t.Errorf("the client went back to %s from %s", got, second)
	}
	s.endpoints(time.Minute, Endpoint{Addr: first}, Endpoint{Addr: ap("10.81.2.77:80")})
	third := s.ask(client(1))
	s.endpoints(time.Minute, many(5)...)
	if got := s.ask(client(1)); third != got && third.Addr() != addr("10.81.2.77") {
		t.Errorf("the client went back to %s from %s", got, third)
	}
}

// An address that becomes another Service's leads to that one's endpoints.
func TestMemoryOfClientsLeadsToNoOtherServicesPods(t *testing.T) {
	s := newSited(t)
	s.endpoints(time.Hour, many(1)...)
	s.ask(client(1))
	s.endpoints(time.Hour, at("10.81.2.99:80"))
	if got := s.ask(client(1)); got != ap("10.81.2.99:80") {
		t.Errorf("%s is no endpoint any more", got)
	}
}

func TestMemoryOfClientsIsBounded(t *testing.T) {
	s := newSited(t)
	s.endpoints(time.Minute, many(3)...)
	q := Query{Protocol: TCP, Src: client(1), Dst: ap(vip4 + ":80")}
	all := s.cluster.Load().ports[0][q.Dst].endpoints
	for i := range 3 * stickyPerShard {
		q.Dst = netip.AddrPortFrom(addr(vip4), uint16(i+1))
		if e := s.sticky.pick(all, &q, s.now, time.Minute); e == nil || *e != *closest(all, &q) {
			t.Fatalf("without a place, client %d gets %+v", i, e)
		}
	}
	held := 0
	for i := range s.sticky.shards {
		held += len(s.sticky.shards[i].had)
	}
	if held != stickyPerShard {
		t.Errorf("one client holds %d places", held)
	}
	s.now = s.now.Add(time.Hour) // those that are over make room
	q.Dst = ap("10.96.9.9:9")
	s.sticky.pick(all, &q, s.now, time.Minute)
	held = 0
	for i := range s.sticky.shards {
		held += len(s.sticky.shards[i].had)
	}
	if held != 1 {
		t.Errorf("%d places are held an hour later", held)
	}
}
