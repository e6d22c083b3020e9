// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// How long an endpoint is passed over: doubled with each failure in a row.
const (
	firstPause = time.Second
	maxPause   = 30 * time.Second
	maxSick    = 1024 // further ones are not noted
)

// health remembers endpoints that failed. It is a hint: where all failed, all
// are tried.
type health struct {
	now func() time.Time

	mu    sync.Mutex
	sick  map[netip.AddrPort]*sickness
	quick atomic.Pointer[passed] // nil: nobody is passed over
}

type sickness struct {
	failures int
	until    time.Time
	probed   bool // an active check says so; until it says otherwise
}

// passed are the addresses to avoid, as long as nothing changes.
type passed struct {
	addrs []netip.Addr
	until time.Time
}

func newHealth(now func() time.Time) *health {
	return &health{now: now, sick: map[netip.AddrPort]*sickness{}}
}

func (h *health) of(at netip.AddrPort) *sickness {
	s := h.sick[at]
	if s == nil && len(h.sick) < maxSick {
		s = &sickness{}
		h.sick[at] = s
	}
	return s
}

func (h *health) failed(at netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.of(at)
	if s == nil {
		return
	}
	s.failures = min(s.failures+1, 16)
	s.until = h.now().Add(min(firstPause<<(s.failures-1), maxPause))
	h.rebuild()
}

// well ends what failures began, but not what an active check says.
func (h *health) well(at netip.AddrPort) {
	if h.quick.Load() == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sick[at]; s != nil {
		s.failures, s.until = 0, time.Time{}
		h.rebuild()
	}
}

// probed is the verdict of an active check.
func (h *health) probed(at netip.AddrPort, well bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if well && h.sick[at] == nil {
		return
	}
	if s := h.of(at); s != nil {
		s.probed = !well
		h.rebuild()
	}
}

// avoid are the addresses to pass over now. Not to be changed.
func (h *health) avoid() []netip.Addr {
	p := h.quick.Load()
	if p == nil {
		return nil
	}
	if now := h.now(); !p.until.After(now) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.rebuild()
		if p = h.quick.Load(); p == nil {
			return nil
		}
	}
	return p.addrs
}

// rebuild is called with the lock.
func (h *health) rebuild() {
	now := h.now()
	next := &passed{until: now.Add(maxPause)}
	for at, s := range h.sick {
		waits := s.until.After(now)
		switch {
		case waits || s.probed:
			next.addrs = append(next.addrs, at.Addr())
			if waits && s.until.Before(next.until) {
				next.until = s.until
			}
		case now.Sub(s.until) > maxPause: // forgotten
			delete(h.sick, at)
		}
	}
	if len(h.sick) == 0 {
		h.quick.Store(nil)
		return
	}
	h.quick.Store(next)
}

func (h *health) counts() (passing, failing int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sick {
		if s.probed {
			failing++
		} else if s.until.After(h.now()) {
			passing++
		}
	}
	return passing, failing
}
