// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"sync"
	"time"
)

// births bounds how many flows a pod begins in a second. What is beyond it costs
// no memory and next to no time: the queue that pods share must be emptied
// faster than one of them can fill it.
type births struct {
	perSecond, burst float64

	mu   sync.Mutex
	pods map[string]*bucket // by UID
	hits uint64
}

type bucket struct {
	left float64
	last time.Time
}

func (b *births) take(uid string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	pod := b.pods[uid]
	if pod == nil {
		pod = &bucket{left: b.burst, last: now}
		b.pods[uid] = pod
	}
	pod.fill(b, now)
	if pod.left < 1 {
		b.hits++
		return false
	}
	pod.left--
	return true
}

func (k *bucket) fill(b *births, now time.Time) {
	if passed := now.Sub(k.last).Seconds(); passed > 0 {
		k.left, k.last = min(b.burst, k.left+passed*b.perSecond), now
	}
}

// forget drops the pods whose buckets are full again.
func (b *births) forget(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for uid, pod := range b.pods {
		if pod.fill(b, now); pod.left >= b.burst {
			delete(b.pods, uid)
		}
	}
}

func (b *births) refusals() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hits
}
