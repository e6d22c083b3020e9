// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// guests are connections whose handshake is not over. Nobody knows who they
// are yet, so all that is fair is the same for each address: none can take
// every slot, whatever it leaves half done.
type guests struct {
	perHost int           // handshakes at once
	queue   int           // connections of one host, in all
	slots   chan struct{} // handshakes at once
	room    chan struct{} // connections, in all

	mu    sync.Mutex
	hosts map[netip.Addr]*guestHost
}

type guestHost struct {
	here  int
	slots chan struct{}
}

func newGuests(handshakes int) *guests {
	perHost := max(1, handshakes/8)
	return &guests{
		perHost: perHost, queue: 16 * perHost,
		slots: make(chan struct{}, handshakes), room: make(chan struct{}, 16*handshakes),
		hosts: map[netip.Addr]*guestHost{},
	}
}

// HostOf is what a remote address counts as: IPv6 hosts have a /64 each.
func HostOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if addr.Is6() {
		p, _ := addr.Prefix(64)
		return p.Addr()
	}
	return addr
}

// enter counts a connection in; nil when its host has too many already.
func (g *guests) enter(host netip.Addr) *guestHost {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.hosts[host]
	if h == nil {
		h = &guestHost{slots: make(chan struct{}, g.perHost)}
		g.hosts[host] = h
	}
	if h.here >= g.queue {
		return nil
	}
	h.here++
	return h
}

func (g *guests) leave(host netip.Addr, h *guestHost) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h.here--; h.here == 0 {
		delete(g.hosts, host)
	}
}

// slot waits for the right to shake hands: first among those of the same host,
// then among hosts. done gives it back.
func (g *guests) slot(ctx context.Context, h *guestHost, within time.Duration) (done func(), ok bool) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, false
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		<-h.slots
		return nil, false
	}
	return func() { <-g.slots; <-h.slots }, true
}

func (g *guests) count() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, h := range g.hosts {
		n += h.here
	}
	return n
}
