// SPDX-License-Identifier: Apache-2.0

package external

import (
	"net/netip"
	"time"
)

// Told is what a pod was told and may still act on: one address of a name.
type Told struct {
	UID  string // of the pod
	Name string
	Addr netip.Addr
	Left time.Duration // for which it still counts
}

// Pause has Learn refuse from now on, so that no pod is told anything that
// Told, called afterwards, does not return. What was learned goes on to count.
func (b *Bindings) Pause() { b.setPaused(true) }

// Resume undoes Pause.
func (b *Bindings) Resume() { b.setPaused(false) }

func (b *Bindings) setPaused(paused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused = paused
}

// Told returns all that still counts, pod by pod.
func (b *Bindings) Told() []Told {
	b.mu.RLock()
	defer b.mu.RUnlock()
	now := b.cfg.Now()
	all := make([]Told, 0, b.held)
	for uid, pod := range b.pods {
		for _, known := range pod.queue {
			if left := known.until.Sub(now); left > 0 {
				all = append(all, Told{uid, known.name, known.addr, left})
			}
		}
	}
	return all
}

// Adopt remembers what another daemon told a pod, and reports whether it still
// counts and had room. It ends when Left has passed since then, whatever the
// floor, and displaces nothing. Whether the node would tell the pod the same is
// the caller's to decide.
func (b *Bindings) Adopt(t Told, since time.Time) bool {
	until := since.Add(min(t.Left, b.cfg.Ceiling))
	addr := t.Addr.Unmap().WithZone("")
	b.mu.Lock()
	defer b.mu.Unlock()
	if !addr.IsValid() || !b.cfg.Now().Before(until) {
		return false
	}
	pod := b.pods[t.UID]
	if pod == nil {
		pod = &podBindings{by: map[netip.Addr][]*binding{}}
	}
	if pod.find(addr, t.Name) != nil || len(pod.queue) >= b.cfg.PerPod || b.held >= b.cfg.Total {
		return false
	}
	b.pods[t.UID] = pod
	pod.add(&binding{name: t.Name, addr: addr, until: until})
	b.held++
	return true
}
