// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
)

// Codes of refusals; docs/dns.md lists them.
const (
	codeNotAllowed   policy.Code = "dns-name-not-allowed"
	codeTooManyNames policy.Code = "dns-too-many-names"
	codeBlocked      policy.Code = "dns-answer-blocked"
	codeNoUpstream   policy.Code = "dns-no-upstream"
)

// refusal is why a name is not resolved.
type refusal struct{ policy.Decision }

// refuse is REFUSED, with a flow record.
func refuse(why *refusal) *reply {
	return &reply{result: Refused, rcode: miekg.RcodeRefused, why: why}
}

const maxShown = 100

// shown makes a name of a pod fit for people and their tools.
func shown(name string) string {
	if len(name) > maxShown {
		return fmt.Sprintf("%q… (%d characters)", name[:maxShown], len(name))
	}
	return fmt.Sprintf("%q", name)
}

// refused makes a flow record, at the rate that a pod has for them.
func (s *Server) refused(asker datapath.Asker, pod *pod, why *refusal) {
	now := s.cfg.Now()
	if !pod.records.AllowN(now, 1) {
		pod.unsaid.Add(1)
		return
	}
	s.cfg.Flows.Add(flow.Record{
		Time: now, Verdict: flow.Refused, Direction: flow.Egress, Reason: string(why.Code), Rule: why.Rule, Expected: why.Expected, Actual: why.Actual,
		Src: netip.AddrPortFrom(asker.Addr, asker.Port), Dst: asker.Server, SrcWorkload: asker.Workload, Pod: asker.Name, Node: s.cfg.Node,
		Suppressed: pod.unsaid.Swap(0),
	})
}

// Result is what became of a query, for counting.
type Result int

// The results. An answer may also say that there is nothing.
const (
	FromCluster  Result = iota // answered from the routing table
	FromCache                  // answered with what upstreams said before
	FromUpstream               // answered by an upstream
	Absent                     // answered here that there is nothing
	Refused                    // not allowed; there is a flow record
	Failed                     // no upstream answered
	Malformed                  // no query at all
	Limited                    // more than the pod or the node may ask at once
	results
)

// String is the result as metrics have it.
func (r Result) String() string {
	return [results]string{"cluster", "cached", "upstream", "absent", "refused", "failed", "malformed", "limited"}[r]
}

type counts [results]atomic.Uint64

func (c *counts) add(r Result) { c[r].Add(1) }

// Status is a snapshot of a server.
type Status struct {
	Domain    string
	Queries   map[Result]uint64
	Questions uint64 // sent to upstreams
	Upstreams []UpstreamStatus
}

// UpstreamStatus is how an upstream fares; times are zero where there was none.
type UpstreamStatus struct {
	Addr     netip.AddrPort
	Answered time.Time // last
	Failed   time.Time // last
	Error    string    // then
}

// Status returns a snapshot.
func (s *Server) Status() Status {
	out := Status{Domain: s.domain, Queries: map[Result]uint64{}, Questions: s.recursor.asked.Load()}
	for r := range results {
		out.Queries[r] = s.counts[r].Load()
	}
	for _, u := range s.recursor.upstreams {
		u.mu.Lock()
		status := UpstreamStatus{Addr: u.addr, Answered: u.answered, Failed: u.failed}
		if u.err != nil {
			status.Error = u.err.Error()
		}
		u.mu.Unlock()
		out.Upstreams = append(out.Upstreams, status)
	}
	return out
}
