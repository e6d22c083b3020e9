// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/c8s-dev/c8s/ingress/route"
)

// Limits hold strangers back. A zero is replaced by the default; there is no
// value for "none".
type Limits struct {
	Connections int           // of clients, in all; default 20,000
	PerClient   int           // of one client address (IPv6: /64); default 1,000
	Streams     int           // requests at once on one HTTP/2 or HTTP/3 connection; default 250
	HeaderBytes int           // of a request; default 64 KiB
	BodyBytes   int64         // of a request; default 16 GiB
	Header      time.Duration // a handshake, then a request's header, must be there; default 10 s
	Idle        time.Duration // between requests; default 2 min
	Stall       time.Duration // a client that neither sends nor takes a byte of a request under way; default 1 min
	Dial        time.Duration // into the mesh, one attempt; default 5 s
	Drain       time.Duration // what runs when the server stops has so long; default 30 s
	IdleBackend int           // connections kept for later requests, of one host to one pod; default 256
}

func (l *Limits) fill() error {
	counts := map[*int]int{
		&l.Connections: 20_000, &l.PerClient: 1000, &l.Streams: 250, &l.HeaderBytes: 64 << 10, &l.IdleBackend: 256,
	}
	for v, usual := range counts {
		if *v < 0 {
			return fmt.Errorf("making the ingress: a limit is %d", *v)
		}
		if *v == 0 {
			*v = usual
		}
	}
	spans := map[*time.Duration]time.Duration{
		&l.Header: 10 * time.Second, &l.Idle: 2 * time.Minute, &l.Stall: time.Minute, &l.Dial: 5 * time.Second, &l.Drain: 30 * time.Second,
	}
	for v, usual := range spans {
		if *v < 0 {
			return fmt.Errorf("making the ingress: a limit is %s", *v)
		}
		if *v == 0 {
			*v = usual
		}
	}
	if l.BodyBytes < 0 {
		return fmt.Errorf("making the ingress: a limit is %d", l.BodyBytes)
	}
	if l.BodyBytes == 0 {
		l.BodyBytes = 16 << 30
	}
	return nil
}

// clients counts connections.
type clients struct {
	total, each int

	mu   sync.Mutex
	used int
	of   map[netip.Addr]int // only those that have connections
}

func newClients(total, each int) *clients {
	return &clients{total: total, each: each, of: map[netip.Addr]int{}}
}

// who is the client that an address stands for: somebody with IPv6 has a /64.
func who(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

func (c *clients) take(a netip.Addr) bool {
	a = who(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used >= c.total || c.of[a] >= c.each {
		return false
	}
	c.used++
	c.of[a]++
	return true
}

func (c *clients) give(a netip.Addr) {
	a = who(a)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used--
	if c.of[a]--; c.of[a] <= 0 {
		delete(c.of, a)
	}
}

func (c *clients) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// hostState is what is counted for a host with limits. It outlives tables.
type hostState struct {
	limits route.Limits
	conns  *atomic.Int64
	bucket *rate.Limiter // nil: no limit
}

// with keeps counting under other limits.
func (h *hostState) with(l route.Limits) *hostState {
	if h != nil && h.limits == l {
		return h
	}
	n := &hostState{limits: l, conns: new(atomic.Int64)}
	if h != nil {
		n.conns = h.conns
	}
	if l.RequestsPerSecond > 0 {
		n.bucket = rate.NewLimiter(rate.Limit(l.RequestsPerSecond), l.RequestsPerSecond)
	}
	return n
}
