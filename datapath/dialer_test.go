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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/datapath/tunnel"
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

func TestIngressDialIsRefused(t *testing.T) {
	refused := func(string) policy.Decision { return policy.Decision{Code: "wrong-host", Rule: "ingress[bank]"} }
	for name, tt := range map[string]struct {
		to        string
		may       func(string) policy.Decision
		code, far string
		elsewhere bool
		arrange   func(t *testing.T, g *gateway, a, b *node)
	}{
		"no certificate yet": {code: "not-enrolled", arrange: func(_ *testing.T, g *gateway, _, _ *node) { g.cred.Store(nil) }},
		"certificate of a node": {code: "not-an-ingress", arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			facts := g.w.ingressFacts()
			facts.Role = policy.RoleNode
			g.cred.Store(g.w.credential(facts, time.Hour))
		}},
		"certificate of a workload": {code: "not-an-ingress", arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			g.cred.Store(g.w.credential(policytest.Peer(g.w.fixture.Signed, policytest.DB), time.Hour, netip.MustParseAddr("127.0.0.1")))
		}},
		"certificate is over": {code: "certificate-expired", arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			g.cred.Store(g.w.credential(g.w.ingressFacts(), -time.Second))
		}},
		"ingress denied here": {code: "denied-machine", arrange: func(t *testing.T, g *gateway, _, _ *node) {
			g.deny(policytest.Deny(policy.DenyMachine, g.cred.Load().Holder.Machine))
		}},
		"ingress denied there": {code: "peer-refused-certificate", far: "denied-machine", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			b.deny(policytest.Deny(policy.DenyMachine, g.cred.Load().Holder.Machine))
		}},
		"pod denied": {code: "denied-workload", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			g.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
		}},
		"no manifest":                 {code: "no-manifest", arrange: func(_ *testing.T, g *gateway, _, _ *node) { g.w.manifest.Store(nil) }},
		"nobody says who may answer":  {code: "no-route", may: func() func(string) policy.Decision { return nil }()},
		"not for this host":           {may: refused, code: "wrong-host", elsewhere: true},
		"undecided":                   {may: func(string) policy.Decision { return policy.Decision{} }, code: string(policy.CodeUndecided), elsewhere: true},
		"workload that no rule lists": {to: webAddr + ":6379", code: "ingress-workload-not-allowed", elsewhere: true},
		"port that no rule lists":     {to: dbAddr + ":22", code: "ingress-port-not-allowed", elsewhere: true},
		"node is not there": {code: "node-unreachable", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, _ *node) {
			g.w.routes[netip.MustParseAddr(dbAddr)] = netip.MustParseAddr("127.0.0.77")
		}},
		"node does not have the pod": {code: "peer-refused-certificate", far: "destination-not-enrolled", elsewhere: true, arrange: func(_ *testing.T, g *gateway, a, _ *node) {
			g.w.routes[netip.MustParseAddr(dbAddr)] = a.addr
		}},
		"node shows another pod": {code: "peer-address", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			b.podWith(policytest.DB, netip.MustParseAddr(dbAddr), g.w.ca.issue(policytest.Peer(g.w.fixture.Signed, policytest.DB), time.Hour, netip.MustParseAddr("127.20.0.9")))
		}},
		"node shows a node": {code: "peer-role", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			facts := g.w.ingressFacts()
			facts.Role = policy.RoleNode
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, g.w.ca.issue(facts, time.Hour, addr))
		}},
		"node shows an ingress": {code: "peer-role", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, g.w.ca.issue(g.w.ingressFacts(), time.Hour, addr))
		}},
		"node shows another workload at the address": {code: "ingress-workload-not-allowed", elsewhere: true, arrange: func(_ *testing.T, g *gateway, _, b *node) {
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, g.w.ca.issue(policytest.Peer(g.w.fixture.Signed, policytest.Web), time.Hour, addr))
		}},
		"pod of another CA": {code: "peer-chain", elsewhere: true, arrange: func(t *testing.T, g *gateway, _, b *node) {
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, newCA(t).issue(policytest.Peer(g.w.fixture.Signed, policytest.DB), time.Hour, addr))
		}},
		"ingress of another CA": {code: "peer-refused-certificate", far: "peer-chain", elsewhere: true, arrange: func(t *testing.T, g *gateway, _, _ *node) {
			ca := g.w.ca
			g.w.ca = newCA(t)
			g.cred.Store(g.w.credential(g.w.ingressFacts(), time.Hour))
			g.w.ca = ca
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g, a, b := ingressFront(t, Limits{})
			if tt.to == "" {
				tt.to = dbApp
			}
			target := g.target(tt.to)
			if tt.may == nil && name != "nobody says who may answer" {
				tt.may = anyWorkload
			}
			if tt.arrange != nil {
				tt.arrange(t, g, a, b)
				target = g.target(tt.to)
			}
			_, err := g.dialer.Dial(t.Context(), target, tt.may)
			wantRefused(t, err, tt.code, tt.elsewhere)
			if tt.far != "" {
				n := b
				if target.Node == a.addr {
					n = a
				}
				n.wantRefusal(tt.far)
			}
			for g.dialer.Stats().Conns != 0 || g.dialer.Stats().Busy != 0 {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func (g *gateway) deny(entries ...policy.Denial) {
	g.w.t.Helper()
	g.denied.Store(g.w.fixture.DenyList(g.w.t, g.denied.Load(), entries...))
}

func TestIngressHearsOfTheOtherNodesRefusal(t *testing.T) {
	g, _, b := ingressFront(t, Limits{})
	c := g.dial(dbApp) // nobody listens
	_, err := c.Read(make([]byte, 1))
	wantRefused(t, err, "connection-refused", true)
	if _, err := c.Write([]byte("x")); err == nil {
		t.Error("written")
	} else {
		wantRefused(t, err, "connection-refused", true)
	}
	b.wantRefusal("connection-refused")
	echo(t, dbApp)
	chat(t, g.dial(dbApp)) // over the same tunnel
	if s := g.dialer.Stats(); s.Reused == 0 {
		t.Errorf("%+v", s)
	}
}

func TestIngressConnectionsEndWhenTheyAreNoLongerAllowed(t *testing.T) {
	noIngress := func(t *testing.T, g *gateway) {
		g.w.manifest.Store(g.w.fixture.Next(t, func(m *policy.Manifest) { m.Ingress[0].Backends[0].Ports[0]++ }).Signed)
	}
	for name, tt := range map[string]struct {
		change func(t *testing.T, g *gateway, b *node)
		reason tunnel.Reason
	}{
		"ingress rule gone, seen here":  {reason: tunnel.ReasonPolicyChanged, change: func(t *testing.T, g *gateway, _ *node) { noIngress(t, g); g.dialer.Recheck() }},
		"ingress rule gone, seen there": {reason: tunnel.ReasonPolicyChanged, change: func(t *testing.T, g *gateway, b *node) { noIngress(t, g); b.proxy.Recheck() }},
		"ingress denied here": {reason: tunnel.ReasonDenied, change: func(_ *testing.T, g *gateway, _ *node) {
			g.deny(policytest.Deny(policy.DenyMachine, g.cred.Load().Holder.Machine))
			g.dialer.Recheck()
		}},
		"ingress denied there": {reason: tunnel.ReasonDenied, change: func(_ *testing.T, g *gateway, b *node) {
			b.deny(policytest.Deny(policy.DenySerial, g.cred.Load().Holder.Serial))
			b.proxy.Recheck()
		}},
		"pod denied": {reason: tunnel.ReasonDenied, change: func(_ *testing.T, g *gateway, _ *node) {
			g.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
			g.dialer.Recheck()
		}},
		"other CA":         {reason: tunnel.ReasonPolicyChanged, change: func(t *testing.T, g *gateway, _ *node) { g.w.roots.Store(newCA(t).pool()); g.dialer.Recheck() }},
		"certificate lost": {reason: tunnel.ReasonPolicyChanged, change: func(_ *testing.T, g *gateway, _ *node) { g.cred.Store(nil); g.dialer.Recheck() }},
		"pod gone":         {reason: tunnel.ReasonPolicyChanged, change: func(_ *testing.T, _ *gateway, b *node) { b.remove(dbAddr); b.proxy.Recheck() }},
		"role gone": {reason: tunnel.ReasonPolicyChanged, change: func(t *testing.T, g *gateway, b *node) {
			g.w.manifest.Store(g.w.fixture.Next(t, func(m *policy.Manifest) {
				m.Substrates[0].Roles = m.Substrates[0].Roles[:2]
				m.Ingress = nil
			}).Signed)
			b.proxy.Recheck()
		}},
		"certificates over": {reason: tunnel.ReasonPolicyChanged, change: func(_ *testing.T, g *gateway, _ *node) {
			g.w.ahead.Store(int64(2 * time.Hour))
			g.dialer.Recheck()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g, _, b := ingressFront(t, Limits{})
			echo(t, dbApp)
			c := g.dial(dbApp)
			chat(t, c)
			g.dialer.Recheck()
			b.proxy.Recheck()
			chat(t, c) // nothing changed
			tt.change(t, g, b)
			_, err := c.Read(make([]byte, 1))
			var end *tunnel.ConnError
			if !errors.As(err, &end) || end.Reason != tt.reason {
				t.Errorf("got %v, want %s", err, tt.reason)
			}
			for b.proxy.Stats().Incoming != 0 || g.dialer.Stats().Conns != 0 {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// A host may lead to other workloads than a moment ago: only its connections
// end.
func TestRecheckAsksAgainWhoseConnectionItIs(t *testing.T) {
	g, _, _ := ingressFront(t, Limits{})
	echo(t, dbApp)
	var gone atomic.Bool
	moved, err := g.tryDial(dbApp, func(string) policy.Decision {
		return policy.Decision{Allowed: !gone.Load(), Code: "moved"}
	})
	must(t, err)
	stays := g.dial(dbApp)
	chat(t, moved)
	chat(t, stays)
	gone.Store(true)
	g.dialer.Recheck()
	_, err = moved.Read(make([]byte, 1))
	var end *tunnel.ConnError
	if !errors.As(err, &end) || end.Reason != tunnel.ReasonPolicyChanged {
		t.Errorf("%v", err)
	}
	var why *Refusal
	if !errors.As(err, &why) || why.Code != "moved" {
		t.Errorf("the connection does not say why it ended: %v", err)
	}
	chat(t, stays)
	must(t, stays.Close())
	for g.dialer.Stats().Busy != 0 {
		time.Sleep(time.Millisecond)
	}
	g.dialer.Recheck() // idle tunnels are nobody's
	chat(t, g.dial(dbApp))
}

func TestTunnelThatIsLostIsNoEnd(t *testing.T) {
	g, _, b := ingressFront(t, Limits{})
	echo(t, dbApp)
	c := g.dial(dbApp)
	chat(t, c)
	b.stop()
	_, err := c.Read(make([]byte, 1))
	var end *tunnel.ConnError
	if !errors.As(err, &end) || end.Reason != tunnel.ReasonShutdown && end.Reason != tunnel.ReasonTunnelLost {
		t.Errorf("%v", err)
	}
	_, err = g.tryDial(dbApp, anyWorkload)
	wantRefused(t, err, "node-unreachable", true)
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

// Whatever was being set up while a denial arrived, nothing is left after
// Recheck.
func TestNoIngressConnectionSlipsPastADenial(t *testing.T) {
	g, _, _ := ingressFront(t, Limits{})
	echo(t, dbApp)
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 8 {
		wg.Go(func() {
			for !stop.Load() {
				c, err := g.dialer.Dial(t.Context(), g.target(dbApp), anyWorkload)
				if err != nil {
					continue
				}
				_, _ = c.Write([]byte("x"))
				_, _ = c.Read(make([]byte, 1))
				_ = c.Close()
			}
		})
	}
	for g.dialer.Stats().Streams < 50 {
		time.Sleep(time.Millisecond)
	}
	g.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	g.dialer.Recheck()
	after := g.dialer.Stats().Streams
	_, err := g.tryDial(dbApp, anyWorkload)
	wantRefused(t, err, "denied-workload", true)
	stop.Store(true)
	wg.Wait()
	for g.dialer.Stats().Conns != 0 {
		time.Sleep(time.Millisecond)
	}
	// Those that were judged just before may have been opened just after, and
	// died with their tunnels.
	if n := g.dialer.Stats().Streams - after; n > 8 {
		t.Errorf("%d connections after the denial", n)
	}
}

func TestHostSource(t *testing.T) {
	for _, tt := range []struct{ host, dst, want string }{
		{"10.80.0.1", "10.81.1.2", "10.80.0.1"},
		{"fd80::1", "fd81::2", "fd80::1"},
		{"192.0.2.33", "fd81::2", "64:ff9b::c000:221"}, // as in RFC 6052, section 2.4
	} {
		if got := hostSource(netip.MustParseAddr(tt.host), netip.MustParseAddr(tt.dst)); got.String() != tt.want {
			t.Errorf("%s to %s: %s", tt.host, tt.dst, got)
		}
	}
	if got := hostSource(netip.MustParseAddr("fd80::1"), netip.MustParseAddr("10.0.0.1")); got.IsValid() {
		t.Errorf("an IPv6 host has the IPv4 address %s", got)
	}
}

// What a hostile process with an ingress's certificate can ask for, stream by
// stream.
func TestIngressCannotPoseAsAPodOrReachBeyondItsRules(t *testing.T) {
	g, _, b := ingressFront(t, Limits{})
	echo(t, dbApp)
	for name, tt := range map[string]struct {
		src, dst string
		proto    uint8
		reason   tunnel.Reason
		code     string
	}{
		"a pod's address":        {src: webAddr + ":1000", reason: tunnel.ReasonSourceMismatch, code: "source-mismatch"},
		"another host's address": {src: "127.0.0.9:1000", reason: tunnel.ReasonSourceMismatch, code: "source-mismatch"},
		"the pod's own address":  {src: dbApp, reason: tunnel.ReasonSourceMismatch, code: "source-mismatch"},
		"another port":           {dst: dbAddr + ":22", reason: tunnel.ReasonNotAllowed, code: "ingress-port-not-allowed"},
		"another pod":            {dst: webAddr + ":6379", reason: tunnel.ReasonDestMismatch, code: "destination-mismatch"},
		"UDP":                    {proto: tunnel.ProtoUDP, reason: tunnel.ReasonNotAllowed, code: "ingress-protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			res := b.hostile(t, g.cred.Load(), tt.src, tt.dst, tt.proto)
			if !res.Refused || res.Reason != tt.reason {
				t.Errorf("%+v", res)
			}
			r := b.wantRefusal(tt.code)
			if r.SrcID != g.cred.Load().ID || r.Actual == "" {
				t.Errorf("%+v", r)
			}
		})
	}
	res := b.hostile(t, g.cred.Load(), "", "", 0) // and what it may
	if res.Refused || res.Err != nil {
		t.Errorf("%+v", res)
	}
}

// hostile opens one stream to db's node with cred, as nobody here would.
func (n *node) hostile(t *testing.T, cred *Credential, src, dst string, proto uint8) tunnel.Result {
	t.Helper()
	conn, err := net.Dial("tcp", netip.AddrPortFrom(n.addr, n.w.port).String())
	must(t, err)
	v := newVerifier(n, n.w.now)
	var peer *identity
	tun, err := tunnel.Dialed(t.Context(), conn, v.clientTLS(cred.TLS, netip.MustParseAddr(dbAddr), &peer), new(tunnel.Buffers))
	must(t, err)
	defer tun.Kill(tunnel.ReasonShutdown)
	h := tunnel.Header{Proto: tunnel.ProtoTCP, Src: netip.AddrPortFrom(unmap(conn.LocalAddr()).Addr(), 1000), Dst: netip.MustParseAddrPort(dbApp)}
	if src != "" {
		h.Src = netip.MustParseAddrPort(src)
	}
	if dst != "" {
		h.Dst = netip.MustParseAddrPort(dst)
	}
	if proto == tunnel.ProtoUDP {
		h.Proto = proto
		c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
		must(t, err)
		p, err := tunnel.NewPackets(c)
		must(t, err)
		defer p.Close()
		p.Hand([]byte("x"))
		p.Settle()
		return tun.RelayPackets(p, h)
	}
	done := make(chan tunnel.Result, 1)
	c := tun.Open(h, func(res tunnel.Result) { done <- res })
	must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	_, _ = c.Write([]byte("x"))
	must(t, c.CloseWrite())
	_, _ = io.Copy(io.Discard, c)
	must(t, c.Close())
	return <-done
}

// A pod's certificate is no ingress's, whatever the rules are: peer rules hold.
func TestWorkloadCannotUseIngressRules(t *testing.T) {
	g, a, b := ingressFront(t, Limits{})
	echo(t, dbApp)
	addr := netip.MustParseAddr("127.0.0.1")
	for name, tt := range map[string]struct {
		workload string
		addrs    []netip.Addr
		reason   tunnel.Reason
		code     string
	}{
		"from the host":           {policytest.DB, nil, tunnel.ReasonSourceMismatch, "source-mismatch"},
		"with the host's address": {policytest.DB, []netip.Addr{addr}, tunnel.ReasonNotAllowed, "peer-not-allowed-egress"},
	} {
		t.Run(name, func(t *testing.T) {
			cred := g.w.credential(policytest.Peer(g.w.fixture.Signed, tt.workload), time.Hour, tt.addrs...)
			if res := b.hostile(t, cred, "", "", 0); !res.Refused || res.Reason != tt.reason {
				t.Errorf("%+v", res)
			}
			b.wantRefusal(tt.code)
		})
	}
	_ = a
}

// An ingress whose tunnel comes from the address of a pod is none.
func TestIngressInAPodIsRefused(t *testing.T) {
	g, _, b := ingressFront(t, Limits{})
	echo(t, dbApp)
	g.w.mu.Lock()
	g.w.routes[netip.MustParseAddr("127.0.0.1")] = netip.MustParseAddr("127.0.0.1")
	g.w.mu.Unlock()
	c := g.dial(dbApp)
	_, err := c.Read(make([]byte, 1))
	wantRefused(t, err, "source-mismatch", false)
	b.wantRefusal("source-mismatch")
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
