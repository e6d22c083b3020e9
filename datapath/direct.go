// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// expiryLook is how often connections without a tunnel are looked at for the
// end of the certificates they were made with.
const expiryLook = 5 * time.Second

// direct is a connection between two sockets of this node, without a tunnel.
type direct struct {
	judge    func() *Refusal // says whether it may be, now and at every Recheck
	notAfter time.Time       // it ends then; zero: never
	first    []byte          // what was read from whoever connected to judge it by
}

// join carries app and the connection made for it, in memory of the pod owner.
// It returns why that may not
// be, or nil when it has been. began is called when it is allowed, and ended
// with what became of it.
func (p *Proxy) join(owner string, app, made *net.TCPConn, d *direct, began func(time.Time), ended func(tunnel.Result, time.Time)) *Refusal {
	l := p.relays.Join(owner, app, made)
	c := p.enter(l, d)
	// Judged after it was entered: no change of the rules slips in between.
	if why := d.judge(); why != nil {
		c.done()
		reset(made)
		return why
	}
	if _, err := made.Write(d.first); err != nil {
		c.done()
		reset(made)
		return refuseErr(reasonExternalRefused, err)
	}
	at := p.cfg.Now()
	began(at)
	p.streams.Add(1)
	res := l.Run()
	c.done()
	ended(res, at)
	return nil
}

// endDirect ends connections without a tunnel that ending gives an ending.
func (p *Proxy) endDirect(ending func(d *direct) *tunnel.Ending) (n int) {
	p.activeMu.Lock()
	over := map[*carried]*tunnel.Ending{}
	for c := range p.active {
		if c.direct == nil {
			continue
		}
		if e := ending(c.direct); e != nil {
			over[c] = e
		}
	}
	p.activeMu.Unlock()
	for c, e := range over {
		c.it.End(*e)
	}
	return len(over)
}

// expireDirect ends connections whose certificates are over.
func (p *Proxy) expireDirect(now time.Time) {
	p.endDirect(func(d *direct) *tunnel.Ending {
		if d.notAfter.IsZero() || now.Before(d.notAfter) {
			return nil
		}
		return refuse(reasonExpired, "certificate", "not after now", d.notAfter.UTC().Format(time.RFC3339)).ending()
	})
}

// allow records that a connection begins.
func (p *Proxy) allow(rec *flow.Record, at time.Time) {
	rec.Time, rec.Verdict = at, flow.Allowed
	p.cfg.Flows.Add(*rec)
}

// directs counts connections without a tunnel.
func (p *Proxy) directs() (n int) {
	p.activeMu.Lock()
	defer p.activeMu.Unlock()
	for c := range p.active {
		if c.direct != nil {
			n++
		}
	}
	return n
}
