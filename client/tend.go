// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"slices"
	"time"
)

// tendEvery is how often connections are looked after.
const tendEvery = 10 * time.Second

// tend looks after the origin's connections in the background for as long as it
// has some.
func (o *origin) tend() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tended || o.closed {
		return
	}
	o.tended = true
	go func() {
		wait := time.NewTicker(min(tendEvery, o.c.renewal()))
		defer wait.Stop()
		for o.tendOnce(context.Background()) {
			<-wait.C
		}
	}()
}

// tendOnce closes what is idle and renews the proofs of what is not. It reports
// whether connections are left.
func (o *origin) tendOnce(ctx context.Context) bool {
	o.closeIdle(idleTime)
	for _, cn := range o.dueForProof() {
		if err := o.reprove(ctx, cn); err != nil {
			// It stays in use until its last proof is too old.
			o.c.cfg.Log.Warn("renewing a proof failed", "addr", o.addr, "err", err)
			if !o.standing(cn.key).fresh(o.c.cfg.Now()) {
				o.retire(cn)
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forgetKeys()
	o.tended = len(o.conns) > 0 && !o.closed
	return o.tended
}

// dueForProof returns one connection for each key whose proof is due: one that
// can be asked now.
func (o *origin) dueForProof() (due []*conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.c.cfg.Now()
	asked := map[[32]byte]bool{}
	for _, cn := range o.conns {
		s := o.keys[cn.key] // nil: forgotten just before the connection was added
		if !asked[cn.key] && !cn.retired && cn.cc.Available() > 0 && (s == nil || s.due(now, o.c.renewal())) {
			asked[cn.key] = true
			due = append(due, cn)
		}
	}
	return due
}

// forgetKeys drops keys that no connection has. It needs o.mu.
func (o *origin) forgetKeys() {
	for key, s := range o.keys {
		used := slices.ContainsFunc(o.conns, func(cn *conn) bool { return cn.key == key })
		if !used && !s.fresh(o.c.cfg.Now()) && len(s.gate) == 0 {
			delete(o.keys, key)
		}
	}
}

// closeIdle closes connections that had no request for so long, and the oldest
// of those that are too many.
func (o *origin) closeIdle(after time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now() // how long it lasts: no clock that is set matters
	var idle []*conn
	o.conns = slices.DeleteFunc(o.conns, func(cn *conn) bool {
		switch {
		case cn.cc.Err() != nil:
			return true
		case cn.cc.InFlight() > 0:
			cn.idleSince = time.Time{}
			return false
		case cn.idleSince.IsZero():
			cn.idleSince = now
		}
		if cn.retired || now.Sub(cn.idleSince) >= after {
			cn.cc.Close()
			return true
		}
		idle = append(idle, cn)
		return false
	})
	for i := 0; i < len(idle)-maxIdle; i++ {
		idle[i].cc.Close()
	}
}
