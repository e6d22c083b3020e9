// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/policy"
)

// askedTypes are the types that names outside are asked for. Of any other they
// have nothing: each more would be something that a pod could tell by it.
var askedTypes = []uint16{miekg.TypeA, miekg.TypeAAAA, miekg.TypeCNAME, miekg.TypeMX, miekg.TypeTXT, miekg.TypeSRV}

// absentTTL is how long pods may keep that a name does not exist here, in
// seconds.
const absentTTL = 30

// external answers a name outside the cluster that the pod's entry lists.
func (s *Server) external(ctx context.Context, asker datapath.Asker, pod *pod, q *query) *reply {
	d, wildcard := s.allowed(asker, q.name)
	if !d.Allowed {
		if r := s.searched(q); r != nil {
			return r
		}
		return refuse(&refusal{d})
	}
	if !slices.Contains(askedTypes, q.qtype) {
		return (&reply{result: Absent}).noData(nil)
	}
	key := key{q.name, q.qtype}
	now := s.cfg.Now()
	found, fresh := s.recursor.cached(key, now)
	result := FromCache
	if !fresh {
		if len(s.cfg.Upstreams) == 0 {
			return refuse(noUpstream(q.name))
		}
		if wildcard && !pod.mayAsk(q.name, now) {
			return refuse(s.tooMany(q.name, d.Rule))
		}
		if !pod.wait() {
			return &reply{result: Limited, rcode: miekg.RcodeServerFailure}
		}
		found = s.recursor.ask(ctx, key, pod)
		pod.waited()
		now, result = s.cfg.Now(), FromUpstream
	}
	return s.tell(asker, q, found, now, result)
}

// tell turns what is known of a name into an answer for this pod.
func (s *Server) tell(asker datapath.Asker, q *query, found *entry, now time.Time, result Result) *reply {
	if found == nil || found.answer == nil {
		return &reply{result: Failed, rcode: miekg.RcodeServerFailure}
	}
	a, ttl := found.answer, found.left(now)
	if a.blocked.IsValid() {
		return refuse(&refusal{policy.Decision{
			Code: codeBlocked, Rule: "addresses of names outside the cluster", Expected: "an address outside the cluster that is public, or one of --dns-private",
			Actual: fmt.Sprintf("%s for %s", a.blocked, shown(q.name)), Remedy: "if the name is meant to have private addresses, name their prefixes with --dns-private",
		}})
	}
	r := &reply{result: result, rcode: a.rcode, answer: a.records(q.owner(), ttl)}
	if len(a.rrs) == 0 {
		r.soa = a.soa(ttl)
	}
	if len(a.addrs) > 0 && s.cfg.Learner != nil && !s.cfg.Learner.Learn(asker.UID, q.name, a.addrs, time.Duration(ttl)*time.Second) {
		return &reply{result: Failed, silent: true}
	}
	return r
}

// Admits reports whether this node may answer pods of the workload with addr for
// a name outside the cluster. What another daemon answered counts only then.
func (s *Server) Admits(workload, name string, addr netip.Addr) bool {
	if len(s.cfg.Upstreams) == 0 || addr.Zone() != "" || !s.recursor.outside(addr) {
		return false
	}
	d, _ := s.allowed(datapath.Asker{Workload: workload}, name)
	return d.Allowed
}

// allowed asks the manifest. Names that no document can hold are not even
// asked about.
func (s *Server) allowed(asker datapath.Asker, name string) (d policy.Decision, wildcard bool) {
	if !plain(name) {
		return policy.Decision{Code: codeNotAllowed, Rule: "names", Expected: "letters, digits, hyphens and dots", Actual: shown(name)}, false
	}
	d, wildcard = s.cfg.Allowed(asker.Workload, name)
	if !d.Allowed {
		d.Code, d.Actual = codeNotAllowed, shown(name)
	}
	return d, wildcard
}

func (s *Server) tooMany(name, rule string) *refusal {
	return &refusal{policy.Decision{
		Code: codeTooManyNames, Rule: rule, Expected: fmt.Sprintf("at most %d different names a minute below wildcards", s.cfg.Limits.NamesPerMinute),
		Actual: shown(name), Remedy: "list the names themselves if there are so many",
	}}
}

func noUpstream(name string) *refusal {
	return &refusal{policy.Decision{
		Code: codeNoUpstream, Rule: "upstream resolvers", Expected: "a resolver to ask for " + shown(name), Actual: "none",
		Remedy: "name one with --dns-upstream, or in the node's /etc/resolv.conf",
	}}
}

// searched answers names that resolvers try on the way to the one that is
// meant: without a dot, or in a search domain of the node. A refusal would end
// the search in some of them (musl), so they do not exist.
func (s *Server) searched(q *query) *reply {
	r := &reply{result: Absent}
	if q.name != "" && !strings.Contains(q.name, ".") {
		return r.absent(nil)
	}
	for _, d := range s.search {
		if _, ok := below(q.name, d); ok {
			return r.absent(soa(d, absentTTL))
		}
	}
	return nil
}

// answer is what upstreams say about a name and a type, rebuilt.
type answer struct {
	rcode   int // success or NXDOMAIN
	chain   []string
	rrs     []miekg.RR // of the type that was asked, owner and TTL to be filled in
	addrs   []netip.Addr
	ttl     uint32
	zone    string     // that says so where there is nothing; may be empty
	blocked netip.Addr // every address was like this one, which may not be
}

// records are the answer's with the name as the pod wrote it.
func (a *answer) records(owner string, ttl uint32) []miekg.RR {
	out := make([]miekg.RR, 0, len(a.chain)+len(a.rrs))
	for _, target := range a.chain {
		out = append(out, &miekg.CNAME{Hdr: header(owner, miekg.TypeCNAME, ttl), Target: target + "."})
		owner = target + "."
	}
	for _, rr := range a.rrs {
		rr = miekg.Copy(rr)
		*rr.Header() = header(owner, rr.Header().Rrtype, ttl)
		out = append(out, rr)
	}
	return out
}

func (a *answer) soa(ttl uint32) *miekg.SOA {
	if a.zone == "" {
		return nil
	}
	return soa(a.zone, ttl)
}
