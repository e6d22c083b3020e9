// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// withIngress lets an ingress reach db, and db only.
func withIngress() policytest.Option {
	return policytest.With(func(m *policy.Manifest) {
		m.Substrates[0].Roles = append(m.Substrates[0].Roles, policy.RoleIngress)
		m.Substrates[0].Measurements = []string{policytest.Hex(0xaa, 48), policytest.Hex(0xbb, 48)}
		m.Ingress = []policy.IngressRule{{
			Name: "bank", Hosts: []string{"bank.example"},
			Backends: []policy.IngressBackend{{Workload: policytest.DB, Mode: policy.ModeTCP, Ports: []uint16{policytest.DBPort}}},
		}}
	})
}

// gateway is an ingress with its Dialer.
type gateway struct {
	w      *world
	dialer *Dialer
	cred   atomic.Pointer[Credential]
	denied atomic.Pointer[policy.SignedDenyList]
}

func (g *gateway) Manifest() *policy.Signed { return g.w.manifest.Load() }
func (g *gateway) Roots() *x509.CertPool    { return g.w.roots.Load() }
func (g *gateway) DenyList() *policy.DenyList {
	if signed := g.denied.Load(); signed != nil {
		return signed.List
	}
	return nil
}

func (w *world) ingressFacts() policy.Peer {
	facts := policytest.Peer(w.fixture.Signed, policytest.DB)
	facts.Role, facts.Workload, facts.WorkloadDigest = policy.RoleIngress, "", ""
	facts.Machine = policytest.Hex(0xee, 64)
	return facts
}

func (w *world) credential(facts policy.Peer, life time.Duration, addrs ...netip.Addr) *Credential {
	w.t.Helper()
	cert := w.ca.issue(facts, life, addrs...)
	peer, err := ratls.ParsePeer(cert.Leaf)
	must(w.t, err)
	return NewCredential(cert, peer)
}

func (w *world) gateway(limits Limits) *gateway {
	t := w.t
	t.Helper()
	g := &gateway{w: w}
	g.cred.Store(w.credential(w.ingressFacts(), time.Hour))
	var err error
	g.dialer, err = NewDialer(DialerConfig{
		Word: g, Credential: g.cred.Load, TunnelPort: w.port, Limits: limits, Now: w.now, Log: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.dialer.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return g
}

// ingressFront is the usual scene of an ingress: web on node a, db on node b.
func ingressFront(t testing.TB, limits Limits) (g *gateway, a, b *node) {
	w := newWorld(t, withIngress())
	a, b = w.node("127.0.0.1", Limits{}), w.node("127.0.0.2", Limits{})
	for _, n := range []*node{a, b} {
		n.proxy.loopback.Store(true)
	}
	a.pod(policytest.Web, webAddr)
	b.podWith(policytest.DB, netip.MustParseAddr(dbAddr), w.dbCert())
	return w.gateway(limits), a, b
}

func anyWorkload(string) policy.Decision { return policy.Decision{Allowed: true} }

func (g *gateway) target(pod string) resolve.Target {
	to := netip.MustParseAddrPort(pod)
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return resolve.Target{Pod: to, Node: g.w.routes[to.Addr()]}
}

func (g *gateway) tryDial(pod string, may func(string) policy.Decision) (*MeshConn, error) {
	g.w.t.Helper()
	c, err := g.dialer.Dial(g.w.t.Context(), g.target(pod), may)
	if err != nil {
		return nil, err
	}
	g.w.t.Cleanup(func() { c.Close() })
	must(g.w.t, c.SetDeadline(time.Now().Add(10*time.Second)))
	return c, nil
}

func (g *gateway) dial(pod string) *MeshConn {
	g.w.t.Helper()
	c, err := g.tryDial(pod, anyWorkload)
	must(g.w.t, err)
	return c
}

// wantRefused is the refusal that err must be.
func wantRefused(t testing.TB, err error, code string, elsewhere bool) *Refusal {
	t.Helper()
	var why *Refusal
	if !errors.As(err, &why) || string(why.Code) != code || why.Elsewhere() != elsewhere {
		t.Fatalf("got %#v, want %s, elsewhere %t: %v", err, code, elsewhere, err)
	}
	return why
}

func chat(t testing.TB, c io.ReadWriter) {
	t.Helper()
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
		t.Fatalf("%q, %v", buf, err)
	}
}

func (g *gateway) deny(entries ...policy.Denial) {
	g.w.t.Helper()
	g.denied.Store(g.w.fixture.DenyList(g.w.t, g.denied.Load(), entries...))
}

func TestIngressReachesPodsAndIsSeenAsItsHost(t *testing.T) {
	g, _, b := ingressFront(t, Limits{})
	peers := echo(t, dbApp)
	var asked []string
	c, err := g.tryDial(dbApp, func(workload string) policy.Decision {
		asked = append(asked, workload)
		return anyWorkload(workload)
	})
	must(t, err)
	chat(t, c)
	if len(asked) != 1 || asked[0] != policytest.DB || c.Peer().Claims.Workload != policytest.DB {
		t.Errorf("asked about %v, reached %+v", asked, c.Peer())
	}
	if seen := <-peers; seen != netip.MustParseAddrPort(c.LocalAddr().String()) || seen.Addr().String() != "127.0.0.1" {
		t.Errorf("the application sees %s; the connection says %s", seen, c.LocalAddr())
	}
	must(t, c.CloseWrite())
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v", err)
	}
	r := b.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })
	if r.SrcID != g.cred.Load().ID || r.SrcWorkload != "" || r.DstWorkload != policytest.DB || r.Rule != "ingress[bank].backends[db/tcp]" ||
		r.BytesSent != 4 || r.BytesReceived != 4 || r.Reason != "" || r.Direction != flow.Ingress {
		t.Errorf("%+v", r)
	}
	f := flow.Filter{Text: "ingress[bank]", Workload: policytest.DB}
	if !f.Match(&r) {
		t.Error("the record cannot be found by its rule")
	}
}

func TestIngressUsesTunnelsAgainButNotWithAnotherCertificate(t *testing.T) {
	g, _, b := ingressFront(t, Limits{})
	echo(t, dbApp)
	use := func() {
		c := g.dial(dbApp)
		chat(t, c)
		must(t, c.Close())
		for g.dialer.Stats().Busy > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	const conns = 20
	for range conns {
		use()
	}
	before := g.dialer.Stats()
	if before.Streams != conns || before.Reused < conns-2 || before.Handshakes > 3 || before.BytesSent != 4*conns || before.BytesReceived != 4*conns || before.Conns != 0 {
		t.Errorf("%+v", before)
	}
	g.cred.Store(g.w.credential(g.w.ingressFacts(), time.Hour))
	use()
	if after := g.dialer.Stats(); after.Handshakes == before.Handshakes || after.Reused != before.Reused {
		t.Errorf("a tunnel of the old certificate was used: %+v", after)
	}
	if s := b.proxy.Stats(); s.Incoming != 0 {
		t.Errorf("%+v", s)
	}
}

func TestIngressLimitsHoldPerPod(t *testing.T) {
	g, _, _ := ingressFront(t, Limits{ConnectionsPerPod: 2})
	echo(t, dbApp)
	first := g.dial(dbApp)
	chat(t, first)
	chat(t, g.dial(dbApp))
	_, err := g.tryDial(dbApp, anyWorkload)
	wantRefused(t, err, "too-many-connections", true)
	must(t, first.Close())
	for g.dialer.Stats().Conns > 1 {
		time.Sleep(time.Millisecond)
	}
	chat(t, g.dial(dbApp))
	if n := g.dialer.Stats().Limits["connections"]; n != 1 {
		t.Errorf("the limit was reached %d times", n)
	}
}

func TestEndedDialerRefuses(t *testing.T) {
	w := newWorld(t, withIngress())
	g := &gateway{w: w}
	g.cred.Store(w.credential(w.ingressFacts(), time.Hour))
	d, err := NewDialer(DialerConfig{Word: g, Credential: g.cred.Load, Now: w.now, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, d.Run(ctx))
	_, err = d.Dial(t.Context(), resolve.Target{Pod: netip.MustParseAddrPort(dbApp), Node: netip.MustParseAddr("127.0.0.2")}, anyWorkload)
	wantRefused(t, err, "shutdown", false)
	if _, err := NewDialer(DialerConfig{Word: g, Now: w.now}); err == nil {
		t.Error("a dialer without credential and log")
	}
}

// BenchmarkDialReused is a connection over a tunnel that exists: lease, judge,
// open, a round trip of four bytes, end.
func BenchmarkDialReused(b *testing.B) {
	g, _, _ := ingressFront(b, Limits{})
	ln, err := net.Listen("tcp", dbApp)
	must(b, err)
	b.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	to := g.target(dbApp)
	b.ReportAllocs()
	for b.Loop() {
		c, err := g.dialer.Dial(b.Context(), to, anyWorkload)
		must(b, err)
		chat(b, c)
		must(b, c.CloseWrite())
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			b.Fatal(err)
		}
		must(b, c.Close())
	}
	b.ReportMetric(float64(g.dialer.Stats().Handshakes), "handshakes")
}

// BenchmarkDialJudged is what a Dial over a tunnel that exists costs beside the
// bytes: lease, judge, and the tunnel back.
func BenchmarkDialJudged(b *testing.B) {
	g, _, _ := ingressFront(b, Limits{})
	to := g.target(dbApp)
	no := func(string) policy.Decision { return policy.Decision{Code: "no"} }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.dialer.Dial(b.Context(), to, no); err == nil {
			b.Fatal("dialled")
		}
	}
}
