// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what strangers can make this machine do. Zero values are the
// defaults.
type Limits struct {
	// Nonces: AMD's firmware wants about one question in two seconds from a
	// machine, and the proofs of everybody else need their share.
	NonceEvery       time.Duration // one in this time, of all clients together; 2 s
	NonceBurst       int           // 4
	ClientNonceEvery time.Duration // of one client; 10 s
	ClientNonceBurst int           // 2
	NonceQueue       int           // how many may wait; 4

	// Documents of the CDS that are not at hand, as requests in a second.
	Fetches       int // of all clients together; 200
	ClientFetches int // of one client; 50
	CacheBytes    int // that documents may take; 64 MiB
}

func (l *Limits) setDefaults() {
	set(&l.NonceEvery, 2*time.Second)
	set(&l.NonceBurst, 4)
	set(&l.ClientNonceEvery, 10*time.Second)
	set(&l.ClientNonceBurst, 2)
	set(&l.NonceQueue, 4)
	set(&l.Fetches, 200)
	set(&l.ClientFetches, 50)
	set(&l.CacheBytes, 64<<20)
}

func set[T int | time.Duration](value *T, otherwise T) {
	if *value <= 0 {
		*value = otherwise
	}
}

// maxClients is how many clients' rates are remembered. When there are more,
// some are forgotten: the rate of all together holds in any case.
const maxClients = 4096

// forgetAtOnce bounds what one new client costs when there are so many.
const forgetAtOnce = 8

// rates limits all clients together, and each.
type rates struct {
	all    *rate.Limiter
	client rate.Limit
	burst  int

	mu      sync.Mutex
	clients map[netip.Prefix]*rate.Limiter
}

func newRates(all rate.Limit, allBurst int, client rate.Limit, clientBurst int) *rates {
	return &rates{all: rate.NewLimiter(all, allBurst), client: client, burst: clientBurst, clients: map[netip.Prefix]*rate.Limiter{}}
}

// take takes one token of each, or says after how long there may be one.
func (r *rates) take(client netip.Prefix, now time.Time) (giveBack func(), wait time.Duration) {
	own := r.of(client, now).ReserveN(now, 1)
	if wait := own.DelayFrom(now); wait > 0 {
		own.CancelAt(now)
		return nil, wait
	}
	all := r.all.ReserveN(now, 1)
	if wait := all.DelayFrom(now); wait > 0 {
		all.CancelAt(now)
		own.CancelAt(now)
		return nil, wait
	}
	return func() { all.CancelAt(now); own.CancelAt(now) }, 0
}

func (r *rates) of(client netip.Prefix, now time.Time) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.clients[client]; l != nil {
		return l
	}
	if len(r.clients) >= maxClients {
		r.forget(now)
	}
	l := rate.NewLimiter(r.client, r.burst)
	r.clients[client] = l
	return l
}

// forget makes room: it looks at a few, as they come, and drops those at rest,
// or one that is not. It needs the lock.
func (r *rates) forget(now time.Time) {
	var victim netip.Prefix
	looked := 0
	for client, l := range r.clients {
		victim = client
		if l.TokensAt(now) >= float64(r.burst) {
			delete(r.clients, client)
		}
		if looked++; looked == forgetAtOnce {
			break
		}
	}
	if len(r.clients) >= maxClients {
		delete(r.clients, victim)
	}
}

// clientOf is what limits are counted by: an address, and of IPv6 the network
// alone, since one host has as many addresses in it as it likes. What cannot be
// read counts as one client.
func clientOf(remote string) netip.Prefix {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := at.Addr().Unmap().WithZone(""), 64
	if addr.Is4() {
		bits = 32
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
