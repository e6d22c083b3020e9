// SPDX-License-Identifier: Apache-2.0

// Package dns answers the names that pods ask for, and keeps this invariant:
// nothing that a pod wrote leaves the node, except which of the names that the
// operators signed for it is asked for, and for which of a few types, and that
// at most once for each time an answer lives. Names of the cluster come from
// the routing table; questions to the node's upstream resolvers are the node's
// own; everything else is refused here.
//
// Answers of upstreams are not believed either: they are rebuilt from the parts
// that were asked for, and never lead into the cluster or to the node itself.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// DefaultDomain is the cluster domain where nothing else is said.
	DefaultDomain = "cluster.local"
	// DefaultRate is how many queries a pod may ask per second.
	DefaultRate = 1000
)

// Cluster is what the routing table knows: *resolve.Table.
type Cluster interface {
	Service(namespace, name string) (resolve.ServiceView, bool)
	PodNamed(namespace string, addr netip.Addr) bool
	NameOf(addr netip.Addr) (name string, ok bool)
	Resolve(q resolve.Query) (resolve.Target, resolve.Verdict)
}

// Learner is told which addresses a pod is answered with for a name outside the
// cluster, before the pod is. Where it reports false, the pod gets no answer: it
// will ask again.
type Learner interface {
	Learn(uid, name string, addrs []netip.Addr, ttl time.Duration) bool
}

// Config is what a Server is given. Fields without a comment saying otherwise
// are required.
type Config struct {
	Domain  string // of the cluster; default DefaultDomain
	Cluster Cluster
	// Allowed decides whether a workload may resolve a name outside the cluster:
	// lower case, no final dot. wildcard: its entry does not list the name itself.
	Allowed func(workload, name string) (d policy.Decision, wildcard bool)
	Learner Learner // may be nil

	Upstreams []netip.AddrPort // asked for names outside the cluster, in this order; may be empty
	Search    []string         // search domains of the node, which the kubelet gives to pods: names there that are not listed do not exist. May be empty
	Private   []netip.Prefix   // private addresses that names outside the cluster may have; none by default
	NodeAddr  netip.Addr       // of this node; no name outside has it

	Limits Limits
	Flows  *flow.Ring
	Node   string // for flow records; may be empty
	// Rand is not to be foreseen: the ids of upstream questions come from it.
	// Called by many goroutines.
	Rand func() uint64
	Now  func() time.Time
	Log  *slog.Logger
	// Dial connects to upstreams; nil dials like any program of the node.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Limits bound what pods can make the node do. Zero fields get the default.
type Limits struct {
	QueriesPerSecond int           // of a pod; 1000, with bursts of twice as many
	Waiting          int           // queries of a pod that wait for an upstream; 256
	NamesPerMinute   int           // different names below wildcards that a pod may ask for; 100
	Questions        int           // to upstreams at once; 64
	QuestionsPerPod  int           // of these begun for one pod; 16
	Cached           int           // answers; 10000
	Stale            time.Duration // how long beyond its time an answer is given while no upstream answers; 1 h
	Attempt          time.Duration // for one upstream to answer; 1.2 s
	Total            time.Duration // for a question, all upstreams together; 4 s: pods ask again after 5
}

func (l *Limits) fill() {
	ints := func(p *int, v int) {
		if *p <= 0 {
			*p = v
		}
	}
	times := func(p *time.Duration, v time.Duration) {
		if *p <= 0 {
			*p = v
		}
	}
	ints(&l.QueriesPerSecond, DefaultRate)
	ints(&l.Waiting, 256)
	ints(&l.NamesPerMinute, 100)
	ints(&l.Questions, 64)
	ints(&l.QuestionsPerPod, 16)
	ints(&l.Cached, 10_000)
	times(&l.Stale, time.Hour)
	times(&l.Attempt, 1200*time.Millisecond)
	times(&l.Total, 4*time.Second)
}

// Server answers the pods of one node. Safe for concurrent use.
type Server struct {
	cfg      Config
	domain   string   // canonical, no final dot
	search   []string // the same
	recursor *recursor
	pods     pods
	counts   counts
}

var _ datapath.Resolver = (*Server)(nil)

// New checks cfg and prepares a server. It starts nothing and asks nobody.
func New(cfg Config) (*Server, error) {
	if cfg.Cluster == nil || cfg.Allowed == nil || cfg.Flows == nil || cfg.Rand == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing DNS: the configuration lacks a part")
	}
	if cfg.Domain == "" {
		cfg.Domain = DefaultDomain
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	cfg.Limits.fill()
	s := &Server{cfg: cfg, domain: canonical(cfg.Domain)}
	if !plain(s.domain) {
		return nil, fmt.Errorf("preparing DNS: %q is no domain", cfg.Domain)
	}
	for _, d := range cfg.Search {
		if d = canonical(d); plain(d) {
			s.search = append(s.search, d)
		}
	}
	for _, u := range cfg.Upstreams {
		if !u.IsValid() || u.Port() == 0 {
			return nil, fmt.Errorf("preparing DNS: upstream %s is no address and port", u)
		}
	}
	s.pods = newPods(cfg.Limits)
	s.recursor = newRecursor(cfg)
	return s, nil
}

// Answer implements datapath.Resolver.
func (s *Server) Answer(ctx context.Context, asker datapath.Asker, raw []byte, tcp bool) []byte {
	pod := s.pods.of(asker.UID, s.cfg.Now())
	if !pod.mayQuery(s.cfg.Now()) {
		s.counts.add(Limited)
		return nil
	}
	q, fault := parse(raw)
	switch {
	case fault == faultSilent:
		s.counts.add(Malformed)
		return nil
	case fault != 0:
		s.counts.add(Malformed)
		return q.pack(&reply{rcode: fault}, tcp)
	}
	r := s.resolve(ctx, asker, pod, q)
	s.counts.add(r.result)
	if r.silent {
		return nil
	}
	if r.why != nil {
		s.refused(asker, pod, r.why)
	}
	rotate(r.answer, s.cfg.Rand)
	return q.pack(r, tcp)
}

// Forget drops what is remembered of a pod that is gone.
func (s *Server) Forget(uid string) { s.pods.forget(uid) }

// resolve finds the answer: the first source that knows the name's domain.
func (s *Server) resolve(ctx context.Context, asker datapath.Asker, pod *pod, q *query) *reply {
	if rel, ok := below(q.name, s.domain); ok {
		return s.cluster(ctx, asker, pod, q, rel)
	}
	if addr, ok := reverse(q.name); ok {
		if r := s.reverse(q, addr); r != nil {
			return r
		}
	}
	return s.external(ctx, asker, pod, q)
}

// below reports whether name is domain or in it, and returns what stands
// before the domain.
func below(name, domain string) (rel string, ok bool) {
	if name == domain {
		return "", true
	}
	rel, ok = strings.CutSuffix(name, domain)
	if !ok || !strings.HasSuffix(rel, ".") {
		return "", false
	}
	return rel[:len(rel)-1], true
}

// rotate begins with another of the addresses each time, so that clients that
// take the first one spread.
func rotate(rrs []miekg.RR, random func() uint64) {
	first := 0
	for first < len(rrs) && rrs[first].Header().Rrtype == miekg.TypeCNAME {
		first++
	}
	addrs := rrs[first:]
	if len(addrs) < 2 {
		return
	}
	n := int(random() % uint64(len(addrs)))
	turned := append(append(make([]miekg.RR, 0, len(addrs)), addrs[n:]...), addrs[:n]...)
	copy(addrs, turned)
}
