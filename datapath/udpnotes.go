// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"sync"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
)

// noteEvery is how often a pod's refused datagrams become a record, for each
// reason. Nothing answers a datagram, so a pod may send them as fast as it can.
const noteEvery = time.Second

type noteKey struct {
	pod  string // namespace/name; empty where the source is unknown
	code policy.Code
}

type note struct {
	at         time.Time // of the last record
	suppressed uint32
}

// notes remember what was recorded lately.
type notes struct {
	mu   sync.Mutex
	seen map[noteKey]*note
}

// due reports whether a record is to be made now, and how many were not made
// since the last one.
func (n *notes) due(key noteKey, now time.Time) (suppressed uint32, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := n.seen[key]
	if last == nil {
		n.seen[key] = &note{at: now}
		return 0, true
	}
	if now.Sub(last.at) < noteEvery {
		last.suppressed++
		return 0, false
	}
	suppressed, last.suppressed, last.at = last.suppressed, 0, now
	return suppressed, true
}

// forget drops what no later record has to mention.
func (n *notes) forget(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key, last := range n.seen {
		if last.suppressed == 0 && now.Sub(last.at) >= noteEvery {
			delete(n.seen, key)
		}
	}
}

// refusedDatagram records a datagram, or a flow of them, that was refused.
func (p *Proxy) refusedDatagram(rec flow.Record, why *Refusal) {
	suppressed, due := p.noted(rec.Pod, why.Code)
	if !due {
		return
	}
	rec.Suppressed = suppressed
	p.refused(rec, why)
}

// noted counts a refusal and reports whether it is to be recorded.
func (p *Proxy) noted(pod string, code policy.Code) (suppressed uint32, due bool) {
	p.datagrams.refused.Add(1)
	return p.notes.due(noteKey{pod, code}, p.cfg.Now())
}
