// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of PoolConfig.
const (
	defaultIdleTimeout = 90 * time.Second
	defaultMaxIdle     = 64
	defaultMaxDials    = 4
	defaultOwnerDials  = 64
	defaultTotalDials  = 512
	defaultOwnerIdle   = 1024
	defaultDialTimeout = 10 * time.Second
	sweepEvery         = 5 * time.Second
	// A tunnel is not handed out in the last moments of its certificate.
	expiryMargin = 5 * time.Second
	spareIdle    = 1
)

// Key names the two pods a tunnel joins: tunnels are never shared between
// identities. Owner is the unique id of the source pod, because addresses are
// used again. Node is where the other pod's daemon is said to be: what one
// connection was told does not serve another that was told otherwise.
type Key struct {
	Src, Dst netip.Addr
	Node     netip.Addr
	Owner    string
}

// Meta is what the dialler learned about a tunnel.
type Meta struct {
	NotAfter time.Time // the tunnel is not used after this
	Peer     any       // the verified identity of the other side
}

// PoolConfig configures a Pool. Dial and Now are required.
type PoolConfig struct {
	// Dial makes a tunnel; ctx carries the dial time-out. Its errors are
	// returned by Get as they are.
	Dial func(ctx context.Context, key Key) (*Tunnel, Meta, error)
	// Judge says whether a tunnel that was just dialled must end at once:
	// CloseWhere did not see it, and what it was dialled by may have changed
	// meanwhile. It must not call the Pool; may be nil.
	Judge       func(key Key, meta Meta, t *Tunnel) *Ending
	Now         func() time.Time
	DialTimeout time.Duration
	IdleTimeout time.Duration // below the acceptor's, so that the opener closes first
	MaxIdle     int           // per key
	MaxDials    int           // at once, per key
	OwnerDials  int           // at once, for one owner
	TotalDials  int           // at once, in all; owners take turns
	OwnerIdle   int           // of one owner, all keys together
}

// PoolStats is a snapshot.
type PoolStats struct {
	Idle, Busy                           int
	Dialing, Waiting                     int    // keys whose dial waits for its turn
	Held                                 uint64 // dials that had to wait
	Dials, DialErrors, Reused, Discarded uint64
}

// Lease is a tunnel lent to one connection.
type Lease struct {
	Tunnel *Tunnel
	Meta   Meta
	Reused bool // no handshake was needed

	key     Key
	idleAt  time.Time
	expired atomic.Bool
}

// Pool lends tunnels. A connection waits for whichever comes first: a tunnel
// that another connection returns, or a fresh one. Safe for concurrent use.
type Pool struct {
	cfg    PoolConfig
	ctx    context.Context // of background dials
	cancel context.CancelFunc

	mu      sync.Mutex
	keys    map[Key]*keyed
	busy    map[*Lease]struct{}
	caps    dialing
	idleOf  map[string]int // by owner
	closed  bool
	dialing sync.WaitGroup

	dials, dialErrors, reused, discarded atomic.Uint64
}

type keyed struct {
	idle    []*Lease // last in, first out: the tail of a burst ages out
	waiters []waiter
	dials   int    // under way
	begun   uint64 // dials so far
	used    time.Time
}

// waiter is a connection that waits for a tunnel.
type waiter struct {
	ch    chan got
	after uint64 // how many dials had begun when it came
}

type got struct {
	lease *Lease
	err   error
}

// ErrPoolClosed is returned by Get after Run has ended.
var ErrPoolClosed = errors.New("getting a tunnel: the pool is closed")

// ErrDialLimit is returned by Get when the time was over before it was this
// owner's turn to dial.
var ErrDialLimit = errors.New("getting a tunnel: the limit of tunnels being dialled is reached")

var errExpired = errors.New("a certificate that the tunnel was made with has expired")

// NewPool makes a pool; Run keeps it tidy.
func NewPool(cfg PoolConfig) *Pool {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&cfg.DialTimeout, defaultDialTimeout)
	def(&cfg.IdleTimeout, defaultIdleTimeout)
	ints := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	ints(&cfg.MaxIdle, defaultMaxIdle)
	ints(&cfg.MaxDials, defaultMaxDials)
	ints(&cfg.OwnerDials, defaultOwnerDials)
	ints(&cfg.TotalDials, defaultTotalDials)
	ints(&cfg.OwnerIdle, defaultOwnerIdle)
	p := &Pool{cfg: cfg, keys: map[Key]*keyed{}, busy: map[*Lease]struct{}{}, idleOf: map[string]int{}}
	p.caps = dialing{total: cfg.TotalDials, perOwner: cfg.OwnerDials, owners: map[string]*dialer{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Get lends a tunnel for key: an idle one, the next one returned, or a new
// one. ctx bounds the wait.
func (p *Pool) Get(ctx context.Context, key Key) (*Lease, error) {
	p.mu.Lock()
	for {
		if p.closed {
			p.mu.Unlock()
			return nil, ErrPoolClosed
		}
		k := p.key(key)
		l := k.pop()
		if l == nil {
			break
		}
		p.idled(key.Owner, -1)
		p.busy[l] = struct{}{}
		if len(k.idle)+k.dials-len(k.waiters) < spareIdle {
			p.dial(key, k)
		}
		p.mu.Unlock()
		if p.fresh(l) && l.Tunnel.Idle() {
			p.reused.Add(1)
			l.Reused = true
			return l, nil
		}
		p.mu.Lock()
		p.discard(l)
	}
	k := p.key(key)
	ch := make(chan got, 1)
	k.waiters = append(k.waiters, waiter{ch, k.begun})
	if k.dials < len(k.waiters) {
		p.dial(key, k)
	}
	p.mu.Unlock()
	select {
	case g := <-ch:
		return g.lease, g.err
	case <-ctx.Done():
		if p.leave(key, ch) {
			return nil, ErrDialLimit
		}
		return nil, context.Cause(ctx)
	}
}

// leave withdraws a waiter; a tunnel that was already given to it goes back. It
// reports whether nobody was even dialling for it.
func (p *Pool) leave(key Key, ch chan got) (held bool) {
	p.mu.Lock()
	k := p.key(key)
	held = k.dials == 0 && p.caps.waits(key)
	for i, w := range k.waiters {
		if w.ch == ch {
			k.waiters = append(k.waiters[:i], k.waiters[i+1:]...)
			break
		}
	}
	p.mu.Unlock()
	select {
	case g := <-ch:
		if g.lease != nil {
			p.Put(g.lease)
		}
	default:
	}
	return held
}

// Put takes a tunnel back. One that cannot be used again is closed.
func (p *Pool) Put(l *Lease) {
	usable := p.fresh(l) && l.Tunnel.Idle()
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.key(l.key)
	if !usable || p.closed || l.expired.Load() || len(k.waiters) == 0 && (len(k.idle) >= p.cfg.MaxIdle || p.idleOf[l.key.Owner] >= p.cfg.OwnerIdle) {
		p.discard(l)
		return
	}
	if len(k.waiters) > 0 {
		l.Reused = true
		p.reused.Add(1)
	}
	p.offer(k, l)
}

// offer gives l to the first waiter, or keeps it. Callers hold mu.
func (p *Pool) offer(k *keyed, l *Lease) {
	if len(k.waiters) > 0 {
		w := k.waiters[0]
		k.waiters = k.waiters[1:]
		p.busy[l] = struct{}{}
		l.Tunnel.unreserve()
		w.ch <- got{lease: l}
		return
	}
	delete(p.busy, l)
	l.Tunnel.unreserve()
	l.idleAt = p.cfg.Now()
	k.idle = append(k.idle, l)
	p.idled(l.key.Owner, 1)
}

// idled counts an owner's idle tunnels. Callers hold mu.
func (p *Pool) idled(owner string, by int) {
	if p.idleOf[owner] += by; p.idleOf[owner] == 0 {
		delete(p.idleOf, owner)
	}
}

// discard closes l in the background: saying goodbye may take a while.
// Callers hold mu.
func (p *Pool) discard(l *Lease) {
	delete(p.busy, l)
	p.discarded.Add(1)
	go l.Tunnel.Close()
}

func (p *Pool) fresh(l *Lease) bool {
	return p.cfg.Now().Add(expiryMargin).Before(l.Meta.NotAfter)
}

func (p *Pool) key(key Key) *keyed {
	k := p.keys[key]
	if k == nil {
		k = &keyed{}
		p.keys[key] = k
	}
	k.used = p.cfg.Now()
	return k
}

func (k *keyed) pop() *Lease {
	n := len(k.idle)
	if n == 0 {
		return nil
	}
	l := k.idle[n-1]
	k.idle[n-1] = nil
	k.idle = k.idle[:n-1]
	return l
}

// dial starts one dial in the background, within the limits: at once, or when
// it is the owner's turn. Callers hold mu.
func (p *Pool) dial(key Key, k *keyed) {
	if k.dials < p.cfg.MaxDials && !p.closed && p.caps.take(key) {
		p.start(key, k)
	}
}

// turn starts dials that waited and are still wanted. Callers hold mu.
func (p *Pool) turn() {
	for key, ok := p.caps.next(); ok; key, ok = p.caps.next() {
		k := p.key(key)
		if p.closed || k.dials >= min(p.cfg.MaxDials, len(k.waiters)) {
			p.caps.give(key.Owner)
			continue
		}
		p.start(key, k)
		if k.dials < len(k.waiters) {
			p.dial(key, k)
		}
	}
}

// start dials within what caps gave. Callers hold mu.
func (p *Pool) start(key Key, k *keyed) {
	k.dials++
	k.begun++
	number := k.begun
	p.dialing.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, p.cfg.DialTimeout)
		defer cancel()
		p.dials.Add(1)
		t, meta, err := p.cfg.Dial(ctx, key)
		p.dialed(key, number, t, meta, err)
	})
}

func (p *Pool) dialed(key Key, number uint64, t *Tunnel, meta Meta, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.key(key)
	k.dials--
	p.caps.give(key.Owner)
	if err != nil {
		p.dialErrors.Add(1)
		k.fail(number, err)
		p.turn() // others first
		if k.dials < len(k.waiters) {
			p.dial(key, k)
		}
		return
	}
	l := &Lease{Tunnel: t, Meta: meta, key: key}
	if p.closed {
		p.discard(l)
		return
	}
	if e := p.judge(l); e != nil {
		p.discarded.Add(1)
		go t.End(*e)
	} else {
		p.offer(k, l)
	}
	p.turn() // others first
	if k.dials < len(k.waiters) {
		p.dial(key, k)
	}
}

func (p *Pool) judge(l *Lease) *Ending {
	if p.cfg.Judge == nil {
		return nil
	}
	return p.cfg.Judge(l.key, l.Meta, l.Tunnel)
}

// fail hands a dial's error to one of those who waited for it from its
// beginning, and to all of them when no other dial could still serve them. Who
// came later is told nothing: the network may have been cut when the dial
// began, and be whole again. Callers hold mu.
func (k *keyed) fail(number uint64, err error) {
	failed := 0
	k.waiters = slices.DeleteFunc(k.waiters, func(w waiter) bool {
		if w.after >= number || failed > 0 && k.dials > 0 {
			return false
		}
		failed++
		w.ch <- got{err: err}
		return true
	})
}
