// SPDX-License-Identifier: Apache-2.0

package dns

import "time"

// Bounds of how long answers are kept. The lower one also bounds how often a
// pod can make the node ask for one name.
const (
	minTTL      = 5 * time.Second
	maxTTL      = time.Hour
	maxNegative = 5 * time.Minute
	failureTTL  = 5 * time.Second // RFC 2308 section 7: that nobody answered is kept too
	staleTTL    = 5               // seconds that a pod may keep an answer that is over
	evictSample = 16
)

// key is what is asked of upstreams.
type key struct {
	name  string // canonical
	qtype uint16
}

// entry is what is known about a key.
type entry struct {
	answer *answer   // nil: no upstream answered
	until  time.Time // fresh before
	retry  time.Time // answered although it is over, before: upstreams were asked and did not answer
}

func (e *entry) fresh(now time.Time) bool { return now.Before(e.until) || now.Before(e.retry) }

// left is how long a pod may keep the answer, in whole seconds.
func (e *entry) left(now time.Time) uint32 {
	if left := e.until.Sub(now); left > 0 {
		return max(1, uint32(left/time.Second))
	}
	return staleTTL
}

// keep makes the entry for an answer.
func keep(a *answer, now time.Time) *entry {
	ttl, most := time.Duration(a.ttl)*time.Second, maxTTL
	if len(a.rrs) == 0 {
		most = maxNegative
	}
	return &entry{answer: a, until: now.Add(min(max(ttl, minTTL), most))}
}

// failed makes the entry for no answer: the one before goes on for a while.
func failed(before *entry, now time.Time, stale time.Duration) *entry {
	if before != nil && before.answer != nil && now.Before(before.until.Add(stale)) {
		return &entry{answer: before.answer, until: before.until, retry: now.Add(failureTTL)}
	}
	return &entry{until: now.Add(failureTTL)}
}

// store holds entries, no more than most.
type store struct {
	most    int
	entries map[key]*entry
}

// put drops one entry for another when there are enough: of a few the one that
// is over first.
func (s *store) put(k key, e *entry) {
	if _, has := s.entries[k]; !has && len(s.entries) >= s.most {
		var victim key
		var oldest *entry
		n := 0
		for k, e := range s.entries { // begins anywhere
			if oldest == nil || e.until.Before(oldest.until) {
				victim, oldest = k, e
			}
			if n++; n == evictSample {
				break
			}
		}
		delete(s.entries, victim)
	}
	s.entries[k] = e
}
