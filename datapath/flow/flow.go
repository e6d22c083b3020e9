// SPDX-License-Identifier: Apache-2.0

// Package flow keeps the recent past of the datapath, and never makes a
// connection wait for whoever watches: a slow reader loses records and is told
// how many.
package flow

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Verdict is what happened to a connection.
type Verdict string

// The verdicts.
const (
	Allowed Verdict = "allowed" // both identities checked, bytes may flow
	Refused Verdict = "refused" // never connected
	Closed  Verdict = "closed"  // ended after it was allowed
	Avoided Verdict = "avoided" // an endpoint of a Service failed and is passed over for a while; the connection went on to another
)

// Direction says where the record was made.
type Direction string

// The directions.
const (
	Egress  Direction = "egress"  // on the node of the pod that connected
	Ingress Direction = "ingress" // on the node of the pod it connected to
	Kernel  Direction = "kernel"  // dropped by the kernel programs
)

// Record is one decision about one connection.
type Record struct {
	Time      time.Time `json:"time"`
	Verdict   Verdict   `json:"verdict"`
	Direction Direction `json:"direction"`
	Reason    string    `json:"reason,omitempty"` // stable, kebab-case; empty where nothing is to be explained
	Rule      string    `json:"rule,omitempty"`   // which part of the manifest or which check decided
	Expected  string    `json:"expected,omitempty"`
	Actual    string    `json:"actual,omitempty"`

	Protocol    string         `json:"protocol,omitempty"` // "tcp" or "udp"
	Src         netip.AddrPort `json:"src"`
	Dst         netip.AddrPort `json:"dst"`               // what the pod connected to
	Endpoint    netip.AddrPort `json:"endpoint,omitzero"` // the pod that a Service chose for it
	Service     string         `json:"service,omitempty"` // that was asked for, namespace/name
	DstName     string         `json:"dstName,omitempty"` // of an endpoint outside of the mesh: as its ClientHello says, or as the pod asked for it
	SrcID       string         `json:"srcID,omitempty"`   // SPIFFE ID, as verified
	DstID       string         `json:"dstID,omitempty"`
	SrcWorkload string         `json:"srcWorkload,omitempty"`
	DstWorkload string         `json:"dstWorkload,omitempty"`
	// Path is "local" where both pods are on one node and nothing was encrypted.
	Path string `json:"path,omitempty"`
	// PeerMeasurement is the launch measurement of the machine at the other
	// end, 96 hex digits, from its verified certificate.
	PeerMeasurement string `json:"peerMeasurement,omitempty"`

	Pod  string `json:"pod,omitempty"`  // the local pod, namespace/name
	Node string `json:"node,omitempty"` // that made the record

	BytesSent     int64 `json:"bytesSent,omitempty"`     // by the pod that connected
	BytesReceived int64 `json:"bytesReceived,omitempty"` // by the pod that connected
	// Datagrams of a UDP flow, as BytesSent and BytesReceived. Dropped ones are
	// those that this node could not carry on in time, or at all.
	DatagramsSent     uint64        `json:"datagramsSent,omitempty"`
	DatagramsReceived uint64        `json:"datagramsReceived,omitempty"`
	DatagramsDropped  uint64        `json:"datagramsDropped,omitempty"`
	Duration          time.Duration `json:"durationNs,omitempty"`
	Suppressed        uint32        `json:"suppressed,omitempty"` // kernel events not reported since the last one
	Gap               uint64        `json:"gap,omitempty"`        // records this reader lost just before this one
}

// CountKey is what Counts counts by. Reasons are an enumeration, so its size
// is bounded.
type CountKey struct {
	Verdict Verdict
	Reason  string
}

// Ring keeps the last records and wakes subscribers. Safe for concurrent use.
type Ring struct {
	mu     sync.Mutex
	buf    []Record
	next   uint64 // number of the next record; record i lies at i % len(buf)
	counts map[CountKey]uint64
	subs   map[*Subscription]struct{}
}

// NewRing makes a ring of size records, at least one.
func NewRing(size int) *Ring {
	return &Ring{buf: make([]Record, max(size, 1)), counts: map[CountKey]uint64{}, subs: map[*Subscription]struct{}{}}
}

// Add stores r. It never blocks on a subscriber.
func (r *Ring) Add(rec Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.buf[r.next%uint64(len(r.buf))] = rec
	r.next++
	r.counts[CountKey{rec.Verdict, rec.Reason}]++
	for s := range r.subs {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Counts returns how many records of each kind were ever added.
func (r *Ring) Counts() map[CountKey]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[CountKey]uint64, len(r.counts))
	for k, n := range r.counts {
		out[k] = n
	}
	return out
}

// oldest is the number of the oldest record still held. Callers hold mu.
func (r *Ring) oldest() uint64 {
	if size := uint64(len(r.buf)); r.next > size {
		return r.next - size
	}
	return 0
}

// Subscribe returns a reader of what fits f: the last history such records that
// are still held, and all that follow.
func (r *Ring) Subscribe(history int, f Filter) *Subscription {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &Subscription{ring: r, filter: f, wake: make(chan struct{}, 1), at: r.next}
	for i := r.next; i > r.oldest() && len(s.history) < history; i-- {
		if rec := &r.buf[(i-1)%uint64(len(r.buf))]; f.Match(rec) {
			s.history = append(s.history, *rec)
		}
	}
	slices.Reverse(s.history)
	r.subs[s] = struct{}{}
	return s
}

// ErrClosed is returned by Next after Close.
var ErrClosed = errors.New("reading flow records: the subscription is closed")

// Subscription reads a ring at its own pace. One goroutine calls Next.
type Subscription struct {
	ring    *Ring
	filter  Filter
	gap     uint64 // lost, and not told yet
	wake    chan struct{}
	at      uint64
	history []Record
}

// History returns the records from before the subscription, oldest first.
func (s *Subscription) History() []Record { return s.history }

// Next waits for the next record. Its Gap says how many were overwritten
// before this reader came for them.
func (s *Subscription) Next(ctx context.Context) (Record, error) {
	for {
		rec, ok, err := s.take()
		if ok || err != nil {
			return rec, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Record{}, context.Cause(ctx)
		}
	}
}

func (s *Subscription) take() (rec Record, ok bool, err error) {
	r := s.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, open := r.subs[s]; !open {
		return Record{}, false, ErrClosed
	}
	if oldest := r.oldest(); s.at < oldest {
		s.gap += oldest - s.at // whether they fit, nobody knows any more
		s.at = oldest
	}
	for ; s.at < r.next; s.at++ {
		if rec := &r.buf[s.at%uint64(len(r.buf))]; s.filter.Match(rec) {
			out := *rec
			out.Gap += s.gap
			s.gap = 0
			s.at++
			return out, true, nil
		}
	}
	return Record{}, false, nil
}

// Close ends the subscription and a waiting Next.
func (s *Subscription) Close() {
	s.ring.mu.Lock()
	defer s.ring.mu.Unlock()
	delete(s.ring.subs, s)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
