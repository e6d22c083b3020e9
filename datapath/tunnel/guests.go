// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// errCrowded ends a guest that must make room for others.
var errCrowded = errors.New("another connection has its place")

// guests are connections whose handshake is not over. Nobody knows who they
// are yet, so that all there is to go by is where they come from: an address
// that is known to be a peer's is served first, and has places that strangers
// cannot take. That is an order and no more: what admits a guest is its
// handshake. Among strangers, who has come later is never refused for who is
// there: the oldest of the network that has the most makes room.
type guests struct {
	perHost  int           // handshakes at once
	queue    int           // connections of one host, in all
	slots    int           // handshakes at once
	peers    int           // of them for known addresses; the others are always strangers'
	room     int           // connections of a class, in all
	patience time.Duration // for how long strangers wait for a slot to get free

	mu               sync.Mutex
	strangers, known class
	nets             map[netip.Addr]int // how many strangers are in a network
	order            list.List          // of strangers, oldest first
}

// class is strangers or known addresses. Everything is guarded by guests.mu.
type class struct {
	hosts   map[netip.Addr]*guestHost
	here    int
	shaking int       // have slots
	line    list.List // wait for a slot, oldest first
}

type guestHost struct {
	here  int
	slots chan struct{}
}

// guest is a connection. Its context ends when it must go.
type guest struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	turn   chan struct{} // closed when it has its slot

	key    netip.Addr // in class.hosts
	net    netip.Addr // in guests.nets; of a stranger
	host   *guestHost
	hosted bool // has one of its host's slots; its own goroutine's

	known         bool
	class         *class
	inOrder, wait *list.Element
	shaking, out  bool
}

func newGuests(handshakes int, timeout time.Duration) *guests {
	part := max(1, handshakes/8)
	return &guests{
		perHost: part, queue: 16 * part, slots: handshakes, peers: max(1, handshakes-part), room: 8 * handshakes,
		patience:  timeout / 5,
		strangers: class{hosts: map[netip.Addr]*guestHost{}}, known: class{hosts: map[netip.Addr]*guestHost{}},
		nets: map[netip.Addr]int{},
	}
}

// addrOf is the address of a remote, invalid where it has none.
func addrOf(a net.Addr) netip.Addr {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap().WithZone("")
}

// HostOf is what a remote address counts as: IPv6 hosts have a /64 each.
func HostOf(a net.Addr) netip.Addr { return hostOf(addrOf(a)) }

func hostOf(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		return masked(addr, 64)
	}
	return addr
}

// netOf is the network that a host shares with others of the same owner, most
// likely. It only ranks strangers.
func netOf(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		return masked(addr, 48)
	}
	return masked(addr, 24)
}

func masked(addr netip.Addr, bits int) netip.Addr {
	p, err := addr.Prefix(bits)
	if err != nil {
		return addr // it has none
	}
	return p.Addr()
}

// enter counts a connection in; nil when its host has too many already, or
// known addresses have. Each known address is a host of its own: it shares no
// limit with what else is in its /64.
func (g *guests) enter(ctx context.Context, addr netip.Addr, known bool) *guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := &guest{turn: make(chan struct{}), key: hostOf(addr), known: known, class: &g.strangers}
	if known {
		v.key, v.class = addr, &g.known
	}
	c := v.class
	v.host = c.hosts[v.key]
	if v.host == nil {
		v.host = &guestHost{slots: make(chan struct{}, g.perHost)}
	}
	full := c.here >= g.room
	if v.host.here >= g.queue || full && known {
		return nil
	}
	if full {
		g.evict(func(*guest) bool { return true })
	}
	if !known {
		v.net, v.inOrder = netOf(addr), g.order.PushBack(v)
		g.nets[v.net]++
	}
	c.hosts[v.key] = v.host
	v.host.here++
	c.here++
	v.ctx, v.cancel = context.WithCancelCause(ctx)
	return v
}

// leave counts a connection out, and gives back what it has.
func (g *guests) leave(v *guest) {
	v.cancel(nil)
	if v.hosted {
		<-v.host.slots
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(v)
	if v.host.here--; v.host.here == 0 {
		delete(v.class.hosts, v.key)
	}
}

// forget takes v out of everything but its host, whose slot its goroutine may
// still have. The lock is held.
func (g *guests) forget(v *guest) {
	if v.out {
		return
	}
	v.out = true
	if v.class.here--; v.wait != nil {
		v.class.line.Remove(v.wait)
		v.wait = nil
	}
	if v.inOrder != nil {
		g.order.Remove(v.inOrder)
		v.inOrder = nil
		less(g.nets, v.net)
	}
	if v.shaking {
		v.shaking = false
		v.class.shaking--
		g.advance()
	}
}
