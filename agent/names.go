// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/dns"
	"github.com/c8s-dev/c8s/policy"
)

// DNS says what the daemon answers the names with that pods ask for.
type DNS struct {
	Domain    string           // of the cluster
	Service   string           // namespace/name of the Service that pods are told to ask
	Upstreams []netip.AddrPort // asked for names outside; may be empty
	Search    []string         // the node's search domains, which pods have too
	Private   []netip.Prefix   // private addresses that names outside may have
	Rate      int              // queries of a pod per second; 0: the default
}

// newNames makes what answers names, nil where nobody configured it.
func (a *Agent) newNames() (*dns.Server, error) {
	c := a.cfg.DNS
	if c == nil {
		return nil, nil
	}
	return dns.New(dns.Config{
		Domain: c.Domain, Cluster: a.mesh.table, Allowed: a.nameAllowed, Learner: a.bindings,
		Upstreams: c.Upstreams, Search: c.Search, Private: c.Private, NodeAddr: a.cfg.NodeAddr,
		Limits: dns.Limits{QueriesPerSecond: c.Rate},
		Flows:  a.flows, Node: a.cfg.NodeName, Rand: unpredictable, Now: a.cfg.Now, Log: a.cfg.Log,
	})
}

// unpredictable is where the ids of questions come from.
func unpredictable() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:])
}

// nameAllowed asks the manifest in force.
func (a *Agent) nameAllowed(workload, name string) (d policy.Decision, wildcard bool) {
	m := a.manifest.Load().Manifest
	d = m.NameAllowed(workload, name)
	return d, d.Allowed && !m.NameListed(workload, name)
}

// resolver is what the datapath is given: nil, not a pointer to nothing.
func (a *Agent) resolver() datapath.Resolver {
	if a.names == nil {
		return nil
	}
	return a.names
}

// dnsService is empty where the node answers no names.
func (a *Agent) dnsService() string {
	if a.cfg.DNS == nil {
		return ""
	}
	return a.cfg.DNS.Service
}

// forget drops what is remembered of a pod that is gone.
func (a *Agent) forget(uid string) {
	a.bindings.Forget(uid)
	if a.names != nil {
		a.names.Forget(uid)
	}
}

// DNSStatus says what the node answers names with.
type DNSStatus struct {
	Domain    string            `json:"domain"` // of the cluster
	Service   string            `json:"service,omitempty"`
	Queries   map[string]uint64 `json:"queries"`   // of pods, by result
	Questions uint64            `json:"questions"` // of this node, to upstreams
	Upstreams []UpstreamStatus  `json:"upstreams"`
}

// UpstreamStatus is a resolver outside the cluster.
type UpstreamStatus struct {
	Address  string    `json:"address"`
	Answered time.Time `json:"answered,omitzero"` // last
	Failed   time.Time `json:"failed,omitzero"`   // last
	Error    string    `json:"error,omitempty"`   // then
}

// Failing reports that the upstream failed since it last answered.
func (u UpstreamStatus) Failing() bool { return u.Failed.After(u.Answered) }

func (a *Agent) dnsStatus() *DNSStatus {
	if a.names == nil {
		return nil
	}
	now := a.names.Status()
	s := &DNSStatus{Domain: now.Domain, Service: a.cfg.DNS.Service, Queries: map[string]uint64{}, Questions: now.Questions, Upstreams: []UpstreamStatus{}}
	for r, n := range now.Queries {
		s.Queries[r.String()] = n
	}
	for _, u := range now.Upstreams {
		s.Upstreams = append(s.Upstreams, UpstreamStatus{Address: u.Addr.String(), Answered: u.Answered, Failed: u.Failed, Error: u.Error})
	}
	return s
}

func (m *metrics) collectNames(send func(*prometheus.Desc, prometheus.ValueType, float64, ...string), s *DNSStatus) {
	if s == nil {
		return
	}
	for result, n := range s.Queries {
		send(m.queries, prometheus.CounterValue, float64(n), result)
	}
	send(m.questions, prometheus.CounterValue, float64(s.Questions))
	var failing float64
	for _, u := range s.Upstreams {
		if u.Failing() {
			failing++
		}
	}
	send(m.upstreams, prometheus.GaugeValue, float64(len(s.Upstreams))-failing, "answering")
	send(m.upstreams, prometheus.GaugeValue, failing, "failing")
}

// String is what a person reads in status.
func (s *DNSStatus) String() string {
	line := s.Domain
	if len(s.Upstreams) == 0 {
		return line + "; no upstream: names outside the cluster are refused"
	}
	for i, u := range s.Upstreams {
		sep := ", "
		if i == 0 {
			sep = "; asks "
		}
		line += sep + u.Address
		if u.Failing() {
			line += fmt.Sprintf(" (failing: %s)", u.Error)
		}
	}
	return line
}
