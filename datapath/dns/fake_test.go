// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
)

func addrs(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// fakeCluster is a routing table that holds what a test writes into it.
type fakeCluster struct {
	services map[string]resolve.ServiceView // by namespace/name
	pods     map[string][]netip.Addr        // by namespace
	names    map[netip.Addr]string
	verdicts map[netip.Addr]resolve.Verdict
}

func (f *fakeCluster) Service(namespace, name string) (resolve.ServiceView, bool) {
	v, ok := f.services[namespace+"/"+name]
	return v, ok
}

func (f *fakeCluster) PodNamed(namespace string, addr netip.Addr) bool {
	return slices.Contains(f.pods[namespace], addr)
}

func (f *fakeCluster) NameOf(addr netip.Addr) (string, bool) {
	n, ok := f.names[addr]
	return n, ok
}

func (f *fakeCluster) Resolve(q resolve.Query) (resolve.Target, resolve.Verdict) {
	if v, ok := f.verdicts[q.Dst.Addr()]; ok {
		return resolve.Target{}, v
	}
	return resolve.Target{}, resolve.NoRoute
}

// town is a cluster with one of everything.
func town() *fakeCluster {
	web := []resolve.PortView{{Name: "http", Protocol: resolve.TCP, Port: 80}, {Name: "quic", Protocol: resolve.UDP, Port: 443}, {Protocol: resolve.TCP, Port: 81}}
	db := []resolve.PortView{{Name: "sql", Protocol: resolve.TCP, Port: 5432}}
	return &fakeCluster{
		services: map[string]resolve.ServiceView{
			"default/web": {Addrs: addrs("10.96.0.7", "fd00:96::7"), Ports: web},
			"default/db": {
				Headless: true, Addrs: addrs("10.1.0.5", "10.1.0.6", "10.1.0.7", "fd00:1::5"), Ports: db,
				Hosts: []resolve.HostView{
					{Name: "10-1-0-7", Addrs: addrs("10.1.0.7"), Ports: []uint16{5433}},
					{Name: "db-0", Addrs: addrs("10.1.0.5", "fd00:1::5"), Ports: []uint16{5432}},
					{Name: "db-1", Addrs: addrs("10.1.0.6"), Ports: []uint16{0}},
				},
			},
			"default/idle":   {Headless: true, Ports: db},
			"default/api":    {External: "api.example.com"},
			"default/evil":   {External: "evil.example.net"},
			"default/other":  {External: "web.default.svc.cluster.local"},
			"default/ring":   {External: "ring.default.svc.cluster.local"},
			"default/broken": {External: "spaces are no name"},
		},
		pods: map[string][]netip.Addr{"default": addrs("10.1.0.5", "fd00:1::5")},
		names: map[netip.Addr]string{
			netip.MustParseAddr("10.96.0.7"): "web.default.svc", netip.MustParseAddr("fd00:1::5"): "db-0.db.default.svc",
		},
		verdicts: map[netip.Addr]resolve.Verdict{
			netip.MustParseAddr("203.0.113.5"): resolve.Found, netip.MustParseAddr("203.0.113.6"): resolve.HostAddress,
			netip.MustParseAddr("203.0.113.7"): resolve.NoServicePort,
		},
	}
}

// learned is one call of Learn.
type learned struct {
	uid, name string
	addrs     []netip.Addr
	ttl       time.Duration
}

// site is a server with everything around it.
type site struct {
	t       testing.TB
	server  *Server
	cluster *fakeCluster
	flows   *flow.Ring
	ahead   atomic.Int64 // of the real time, in nanoseconds

	mu      sync.Mutex
	learned []learned
	deaf    bool // Learn refuses
}

func (s *site) now() time.Time       { return time.Unix(1_900_000_000, 0).Add(time.Duration(s.ahead.Load())) }
func (s *site) pass(d time.Duration) { s.ahead.Add(int64(d)) }
func (s *site) lessons() (out []learned) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.learned)
}
func (s *site) count(r Result) uint64 { return s.server.Status().Queries[r] }
func (s *site) asker(uid string) datapath.Asker {
	return datapath.Asker{
		UID: uid, Name: "default/" + uid, Workload: "client", Addr: netip.MustParseAddr("10.1.0.5"), Port: 4711,
		Server: netip.MustParseAddrPort("10.96.0.10:53"),
	}
}

func (s *site) Learn(uid, name string, addrs []netip.Addr, ttl time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf {
		return false
	}
	s.learned = append(s.learned, learned{uid, name, addrs, ttl})
	return true
}

// listed is what the manifest of these tests allows.
func listed(workload, name string) (d policy.Decision, wildcard bool) {
	if workload != "client" {
		return policy.Decision{Code: "peer-unlisted"}, false
	}
	if slices.Contains([]string{"api.example.com", "_mongodb._tcp.example.com", "4.3.2.192.in-addr.arpa"}, name) {
		return policy.Decision{Allowed: true, Code: policy.CodeAllowed, Rule: "workloads[0].dns"}, false
	}
	if rel, ok := below(name, "wild.example.com"); ok && rel != "" {
		return policy.Decision{Allowed: true, Code: policy.CodeAllowed, Rule: "workloads[0].dns"}, true
	}
	return policy.Decision{Rule: "workloads[0].dns", Expected: "api.example.com", Remedy: "list the name"}, false
}

func newSite(t testing.TB, change ...func(*Config)) *site {
	t.Helper()
	s := &site{t: t, cluster: town(), flows: flow.NewRing(1000)}
	cfg := Config{
		Cluster: s.cluster, Allowed: listed, Learner: s, Search: []string{"Corp.Example."}, NodeAddr: netip.MustParseAddr("198.51.100.1"),
		Limits: Limits{Attempt: 5 * time.Second, Total: 20 * time.Second}, // for a machine that is busy
		Flows:  s.flows, Node: "node-a", Rand: rand.Uint64, Now: s.now, Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	s.server, err = New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func question(name string, qtype uint16) *miekg.Msg {
	m := new(miekg.Msg).SetQuestion(name, qtype)
	m.Id = 4242
	return m
}

func packed(t testing.TB, m *miekg.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// exchange asks as the pod "pod" does.
func (s *site) exchange(m *miekg.Msg, tcp bool) *miekg.Msg {
	s.t.Helper()
	wire := s.server.Answer(context.Background(), s.asker("pod"), packed(s.t, m), tcp)
	if wire == nil {
		s.t.Fatalf("no answer to %v", m.Question)
	}
	var out miekg.Msg
	if err := out.Unpack(wire); err != nil {
		s.t.Fatalf("the answer to %v: %v", m.Question, err)
	}
	if out.Id != m.Id || !out.Response || len(out.Question) > 0 && out.Question[0] != m.Question[0] {
		s.t.Fatalf("%v answers %v", &out, m)
	}
	return &out
}

func (s *site) ask(name string, qtype uint16) *miekg.Msg {
	s.t.Helper()
	return s.exchange(question(name, qtype), false)
}

// refusals are the flow records so far.
func (s *site) refusals() (out []flow.Record) {
	sub := s.flows.Subscribe(1000, flow.Filter{})
	defer sub.Close()
	return sub.History()
}

// outsider answers like a resolver outside; script decides how.
type outsider struct {
	t      testing.TB
	addr   netip.AddrPort
	script atomic.Pointer[script]

	mu    sync.Mutex
	heard []string // "name TYPE" of questions, over TCP with " tcp"
	wires [][]byte
}

// script makes the messages to send for a question; nil: silence.
type script func(q *miekg.Msg, tcp bool) [][]byte

func newOutsider(t testing.TB, s script) *outsider {
	t.Helper()
	o := &outsider{t: t}
	o.script.Store(&s)
	var ln net.Listener
	var pc net.PacketConn
	for range 100 { // until a port is free for both
		var err error
		if ln, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp4", ln.Addr().String()); err == nil {
			break
		}
		ln.Close()
	}
	if pc == nil {
		t.Fatal("no port")
	}
	o.addr = netip.MustParseAddrPort(ln.Addr().String())
	var wg sync.WaitGroup
	wg.Go(func() { o.serveUDP(pc) })
	wg.Go(func() { o.serveTCP(ln) })
	t.Cleanup(func() { ln.Close(); pc.Close(); wg.Wait() })
	return o
}

func (o *outsider) answer(wire []byte, tcp bool) [][]byte {
	var q miekg.Msg
	if err := q.Unpack(wire); err != nil || len(q.Question) != 1 {
		o.t.Errorf("the node sent %x: %v", wire, err)
		return nil
	}
	line := q.Question[0].Name + " " + miekg.TypeToString[q.Question[0].Qtype]
	if tcp {
		line += " tcp"
	}
	o.mu.Lock()
	o.heard, o.wires = append(o.heard, line), append(o.wires, slices.Clone(wire))
	o.mu.Unlock()
	return (*o.script.Load())(&q, tcp)
}

func (o *outsider) serveUDP(pc net.PacketConn) {
	buf := make([]byte, 65535)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		for _, m := range o.answer(buf[:n], false) {
			pc.WriteTo(m, from)
		}
	}
}

func (o *outsider) serveTCP(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err == nil {
			wire := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(c, wire); err == nil {
				for _, m := range o.answer(wire, true) {
					c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
				}
			}
		}
		c.Close()
	}
}

func (o *outsider) questions() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.heard)
}

func (o *outsider) sent() [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.wires)
}

// use makes o an upstream.
func (o *outsider) use(c *Config) { c.Upstreams = append(c.Upstreams, o.addr) }

// records answers with records in presentation format.
func records(t testing.TB, rrs ...string) script {
	return func(q *miekg.Msg, _ bool) [][]byte { return [][]byte{packed(t, respond(t, q, rrs...))} }
}

func respond(t testing.TB, q *miekg.Msg, rrs ...string) *miekg.Msg {
	m := new(miekg.Msg).SetReply(q)
	for _, s := range rrs {
		rr, err := miekg.NewRR(s)
		if err != nil || rr == nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if rr.Header().Rrtype == miekg.TypeSOA {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

func nothing(*miekg.Msg, bool) [][]byte { return nil }
