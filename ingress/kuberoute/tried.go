// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/policy"
)

const (
	maxTried = 4096 // Services whose refusals are remembered
	// A refusal stands for a while after it works again, so that a Service with good
	// and bad pods, or for several hosts, does not have its status written all day;
	// and is forgotten when nobody asks any more: who owns the route may have
	// changed what was wrong.
	standsFor  = 30 * time.Second
	forgetTime = 10 * time.Minute
)

// tried remembers by Service, namespace/name, why its pods were refused.
type tried struct {
	now  func() time.Time
	news chan struct{} // there is another refusal

	mu       sync.Mutex
	services map[string]*refusal
	changes  int
}

type refusal struct {
	why     policy.Decision
	last    time.Time
	works   bool // since last
	cleared bool // it stands no more: remembered, because it was this ingress that said it
}

func newTried(now func() time.Time) *tried {
	return &tried{now: now, news: make(chan struct{}, 1), services: map[string]*refusal{}}
}

// Tried tells what came of connecting to a pod of a Service, namespace/name: nil,
// or why not. Refusals stand in the conditions and events of its routes.
func (w *Watcher) Tried(service string, err error) { w.tried.tell(service, err) }

func (t *tried) tell(service string, err error) {
	var r *datapath.Refusal
	if err != nil && !errors.As(err, &r) || r != nil && !r.Elsewhere() && !ofManifest(&r.Decision) {
		return // it says nothing about the pod
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	had := t.services[service]
	switch {
	case r == nil && had != nil:
		had.works = true
	case r == nil, had == nil && len(t.services) >= maxTried:
	case had != nil && !had.cleared && had.why.Code == r.Code && had.why.Rule == r.Rule:
		had.last, had.works = t.now(), false
	default:
		t.services[service] = &refusal{why: r.Decision, last: t.now()}
		t.changes++
		select {
		case t.news <- struct{}{}:
		default:
		}
	}
}

// refused are the refusals that stand now, those that stood until lately, and a
// number that is another one when they are others.
func (t *tried) refused() (stand map[string]policy.Decision, cleared map[string]bool, changes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	stand, cleared = map[string]policy.Decision{}, map[string]bool{}
	for service, r := range t.services {
		if r.cleared {
			cleared[service] = true
		} else {
			stand[service] = r.why
		}
	}
	return stand, cleared, t.changes
}

// changed is the number that refused would return.
func (t *tried) changed() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	return t.changes
}

func (t *tried) forget() {
	now := t.now()
	for service, r := range t.services {
		switch age := now.Sub(r.last); {
		case age > forgetTime:
			delete(t.services, service)
			t.changes++
		case r.works && !r.cleared && age > standsFor:
			r.cleared = true
			t.changes++
		}
	}
}

// ofManifest reports whether the manifest, rather than the state of a pod or
// node, is why.
func ofManifest(d *policy.Decision) bool {
	return strings.HasPrefix(string(d.Code), "ingress-") || d.Code == policy.CodeWorkloadUnlisted
}
