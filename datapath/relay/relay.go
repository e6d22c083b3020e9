// SPDX-License-Identifier: Apache-2.0

// Package relay joins two TCP connections of one machine, and keeps this
// invariant: what one side sent arrives at the other in order and whole, or
// the other side sees a reset. An orderly end is never made up.
//
// It is for connections that need no tunnel. Bytes in bulk stay inside the
// kernel (splice); small messages are copied, which takes fewer system calls.
package relay

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// Link is two joined connections. Moved and End may be called at any time.
type Link struct {
	up, down pump // from and to whoever connected
	open     atomic.Int32

	mu  sync.Mutex
	res tunnel.Result
}

// Join joins client, a connection that was accepted, to server, the one made
// for it. Nothing moves before Run, and from now on the Link closes both. What
// it holds counts against owner's part of the budget.
func (p *Pool) Join(owner string, client, server *net.TCPConn) *Link {
	l := &Link{}
	l.up.init(p, owner, client, server, &l.down)
	l.down.init(p, owner, server, client, &l.up)
	l.open.Store(2)
	return l
}

// Run moves bytes until both sides have finished, one was reset or End was
// called. Both connections are closed then. Sent is what the client sent.
func (l *Link) Run() tunnel.Result {
	var other sync.WaitGroup
	other.Go(func() { l.carry(&l.down) })
	l.carry(&l.up)
	other.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	res := l.res
	res.Sent, res.Received = l.up.moved.Load(), l.down.moved.Load()
	return res
}

// carry serves one direction until the whole link is over.
func (l *Link) carry(p *pump) {
	err := p.run()
	if err != nil {
		l.fail(err)
		return
	}
	if l.open.Add(-1) == 0 {
		_ = p.src.Close()
		_ = p.dst.Close()
		return
	}
	// The side that has finished sending may still reset its connection, and
	// the other direction would not see that while it has nothing to write.
	if p.broken() {
		l.fail(errReset)
	}
}

// fail resets both sides because one of them failed. After End it changes
// nothing.
func (l *Link) fail(err error) {
	reason := tunnel.ReasonReset
	if errors.Is(err, errStalled) {
		reason = tunnel.ReasonStalled
	}
	l.end(tunnel.Result{Reason: reason})
}

// End resets both sides. The first reason counts.
func (l *Link) End(e tunnel.Ending) { l.end(tunnel.Result{Reason: e.Reason, Why: e.Why}) }

func (l *Link) end(r tunnel.Result) {
	l.mu.Lock()
	if l.res.Reason == tunnel.ReasonNone {
		l.res = r
	}
	l.mu.Unlock()
	for _, c := range []*net.TCPConn{l.up.src, l.down.src} {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// Moved counts the bytes that arrived, both ways.
func (l *Link) Moved() int64 { return l.up.moved.Load() + l.down.moved.Load() }
