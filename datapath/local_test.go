// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// sameNodeLocal has pods of one node talk without encryption.
func sameNodeLocal(m *policy.Manifest) { m.SameNode = policy.SameNodeLocal }

// neighbours is web and db on one node.
func neighbours(t *testing.T, limits Limits, opts ...policytest.Option) (*world, *node) {
	w := newWorld(t, append([]policytest.Option{policytest.With(sameNodeLocal)}, opts...)...)
	n := w.node("127.0.0.1", limits)
	n.pod(policytest.Web, webAddr)
	n.pod(policytest.DB, dbAddr)
	return w, n
}

func isLocal(r flow.Record) bool { return r.Path == "local" }

func TestNeighboursTalkWithoutATunnelAndAreBothVerified(t *testing.T) {
	_, n := neighbours(t, Limits{})
	peers := echo(t, dbApp)
	c := n.dial(webAddr, dbApp)
	talk(t, c)
	if peer := <-peers; peer.Addr().String() != webAddr {
		t.Errorf("the application sees %s, not the pod", peer)
	}
	if s := n.proxy.Stats(); s.Direct != 1 || s.Outgoing != 1 || s.Incoming != 1 || s.Handshakes != 0 {
		t.Errorf("while it lasts: %+v", s)
	}
	must(t, c.CloseWrite())
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v", err)
	}
	for _, dir := range []flow.Direction{flow.Egress, flow.Ingress} {
		for _, verdict := range []flow.Verdict{flow.Allowed, flow.Closed} {
			r := n.waitFlow(func(r flow.Record) bool { return r.Direction == dir && r.Verdict == verdict })
			if !isLocal(r) || r.Reason != "" || r.SrcWorkload != policytest.Web || r.DstWorkload != policytest.DB ||
				r.SrcID != "spiffe://c8s.test/workload/web" || r.DstID != "spiffe://c8s.test/workload/db" || r.Dst.String() != dbApp {
				t.Errorf("%s %s: %+v", dir, verdict, r)
			}
			if verdict == flow.Closed && (r.BytesSent != 4 || r.BytesReceived != 4) {
				t.Errorf("counted %d and %d bytes", r.BytesSent, r.BytesReceived)
			}
		}
	}
	for n.proxy.Stats().Outgoing > 0 {
		time.Sleep(time.Millisecond)
	}
	if s := n.proxy.Stats(); s.BytesLocal != 8 || s.BytesSent != 0 || s.Direct != 0 || s.Incoming != 0 {
		t.Errorf("afterwards: %+v", s)
	}
}

func TestOnlyPodsOfThisNodeAreNeighbours(t *testing.T) {
	w, a, b := pair(t, policytest.With(sameNodeLocal))
	echo(t, dbApp)
	talk(t, a.dial(webAddr, dbApp))
	if s := b.proxy.Stats(); s.Handshakes == 0 || s.Direct != 0 {
		t.Errorf("a pod of another node was reached without a tunnel: %+v", s)
	}
	// A route that points here does not make a pod ours.
	w.mu.Lock()
	w.routes[netip.MustParseAddr(dbAddr)] = a.addr
	w.mu.Unlock()
	a.dialRefused(webAddr, dbApp)
	if s := a.proxy.Stats(); s.Direct != 0 {
		t.Errorf("%+v", s)
	}
}

func TestEachNeighbourIsVerifiedAsAPeerWouldBe(t *testing.T) {
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, w *world, n *node)
		port    string
		reason  string
	}{
		"port not allowed": {port: "6380", reason: "port-not-allowed", arrange: func(*testing.T, *world, *node) {}},
		"nobody listens":   {port: "6379", reason: "connection-refused", arrange: func(*testing.T, *world, *node) {}},
		"source not enrolled": {reason: "not-enrolled", arrange: func(_ *testing.T, _ *world, n *node) {
			n.podWith(policytest.Web, netip.MustParseAddr(webAddr), nil)
		}},
		"destination not enrolled": {reason: "not-enrolled", arrange: func(_ *testing.T, _ *world, n *node) {
			n.podWith(policytest.DB, netip.MustParseAddr(dbAddr), nil)
		}},
		"destination expired": {reason: "certificate-expired", arrange: func(_ *testing.T, w *world, n *node) {
			addr := netip.MustParseAddr(dbAddr)
			n.podWith(policytest.DB, addr, w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.DB), -time.Second, addr))
		}},
		"destination of another CA": {reason: "peer-chain", arrange: func(t *testing.T, w *world, n *node) {
			addr := netip.MustParseAddr(dbAddr)
			n.podWith(policytest.DB, addr, newCA(t).issue(policytest.Peer(w.fixture.Signed, policytest.DB), time.Hour, addr))
		}},
		"source of another CA": {reason: "peer-chain", arrange: func(t *testing.T, w *world, n *node) {
			addr := netip.MustParseAddr(webAddr)
			n.podWith(policytest.Web, addr, newCA(t).issue(policytest.Peer(w.fixture.Signed, policytest.Web), time.Hour, addr))
		}},
		"source with another address": {reason: "peer-address", arrange: func(_ *testing.T, w *world, n *node) {
			cert := w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.Web), time.Hour, netip.MustParseAddr("127.10.0.9"))
			n.podWith(policytest.Web, netip.MustParseAddr(webAddr), cert)
		}},
		"destination with another address": {reason: "peer-address", arrange: func(_ *testing.T, w *world, n *node) {
			cert := w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.DB), time.Hour, netip.MustParseAddr("127.20.0.9"))
			n.podWith(policytest.DB, netip.MustParseAddr(dbAddr), cert)
		}},
		"destination on an unknown measurement": {reason: "measurement", arrange: func(_ *testing.T, w *world, n *node) {
			addr, facts := netip.MustParseAddr(dbAddr), policytest.Peer(w.fixture.Signed, policytest.DB)
			facts.Measurement = policytest.Hex(0xbb, 48)
			n.podWith(policytest.DB, addr, w.ca.issue(facts, time.Hour, addr))
		}},
		"destination is a node": {reason: "peer-role", arrange: func(_ *testing.T, w *world, n *node) {
			addr, facts := netip.MustParseAddr(dbAddr), policytest.Peer(w.fixture.Signed, policytest.DB)
			facts.Role, facts.Workload, facts.WorkloadDigest = policy.RoleNode, "", ""
			n.podWith(policytest.DB, addr, w.ca.issue(facts, time.Hour, addr))
		}},
		"destination certified for another entry": {reason: "peer-not-allowed-egress", arrange: func(_ *testing.T, w *world, n *node) {
			addr := netip.MustParseAddr(dbAddr)
			n.podWith(policytest.DB, addr, w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.Web), time.Hour, addr))
		}},
		"key is not the certificate's": {reason: "peer-certificate", arrange: func(t *testing.T, w *world, n *node) {
			addr := netip.MustParseAddr(dbAddr)
			cert := w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.DB), time.Hour, addr)
			other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			must(t, err)
			cert.PrivateKey = other
			n.podWith(policytest.DB, addr, cert)
		}},
		"source denied": {reason: "denied-workload", arrange: func(_ *testing.T, _ *world, n *node) {
			n.deny(policytest.Deny(policy.DenyWorkload, policytest.Web))
		}},
		"destination denied": {reason: "denied-workload", arrange: func(_ *testing.T, _ *world, n *node) {
			n.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w, n := neighbours(t, Limits{})
			tt.arrange(t, w, n)
			dst := dbAddr + ":6379"
			if tt.port != "" {
				dst = dbAddr + ":" + tt.port
			} else {
				echo(t, dbApp)
			}
			n.dialRefused(webAddr, dst)
			n.wantRefusal(tt.reason)
			if s := n.proxy.Stats(); s.Direct != 0 || s.Handshakes+s.HandshakeFails != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestRecheckEndsWhatNeighboursMayNoLonger(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(t *testing.T, w *world, n *node)
		reason string
		rule   string
	}{
		"sameNode is mesh again": {reason: "policy-changed", rule: "sameNode", change: func(t *testing.T, w *world, _ *node) {
			w.manifest.Store(w.fixture.Next(t, func(m *policy.Manifest) { m.SameNode = policy.SameNodeMesh }).Signed)
		}},
		"peer rule gone": {reason: "policy-changed", change: func(t *testing.T, w *world, _ *node) {
			w.manifest.Store(w.fixture.Next(t, func(m *policy.Manifest) {
				m.Workloads[0].Peers.To[0].Ports[0]++
				m.Workloads[1].Peers.From[0].Ports[0]++
			}).Signed)
		}},
		"other CA":       {reason: "policy-changed", change: func(t *testing.T, w *world, _ *node) { w.roots.Store(newCA(t).pool()) }},
		"source gone":    {reason: "policy-changed", change: func(_ *testing.T, _ *world, n *node) { n.remove(webAddr) }},
		"pod gone":       {reason: "policy-changed", change: func(_ *testing.T, _ *world, n *node) { n.remove(dbAddr) }},
		"address reused": {reason: "policy-changed", change: func(_ *testing.T, _ *world, n *node) { n.pod(policytest.DB, dbAddr).UID = "another" }},
		"source denied": {reason: "denied-workload", change: func(_ *testing.T, _ *world, n *node) {
			n.deny(policytest.Deny(policy.DenyWorkload, policytest.Web))
		}},
		"neighbour denied": {reason: "denied-workload", change: func(_ *testing.T, _ *world, n *node) {
			n.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w, n := neighbours(t, Limits{})
			echo(t, dbApp)
			c := n.dial(webAddr, dbApp)
			talk(t, c)
			n.proxy.Recheck()
			talk(t, c) // still allowed: nothing happens
			tt.change(t, w, n)
			n.proxy.Recheck()
			wantReset(t, c)
			for _, dir := range []flow.Direction{flow.Egress, flow.Ingress} {
				r := n.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Direction == dir })
				if r.Reason != tt.reason || tt.rule != "" && r.Rule != tt.rule || r.Actual == "" {
					t.Errorf("%s: %+v", dir, r)
				}
			}
		})
	}
}

func TestNeighboursCertificateEndEndsTheConnection(t *testing.T) {
	w, n := neighbours(t, Limits{})
	echo(t, dbApp)
	c := n.dial(webAddr, dbApp)
	talk(t, c)
	n.proxy.expireDirect(w.now())
	talk(t, c)
	w.ahead.Store(int64(61 * time.Minute))
	n.proxy.expireDirect(w.now())
	wantReset(t, c)
	if r := n.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed }); r.Reason != "policy-changed" || r.Rule != "certificate" {
		t.Errorf("%+v", r)
	}
}

func TestRenewedCertificatesAreVerifiedAnew(t *testing.T) {
	w, n := neighbours(t, Limits{})
	echo(t, dbApp)
	talk(t, n.dial(webAddr, dbApp))
	addr := netip.MustParseAddr(dbAddr)
	n.podWith(policytest.DB, addr, newCA(t).issue(policytest.Peer(w.fixture.Signed, policytest.DB), time.Hour, addr))
	n.dialRefused(webAddr, dbApp)
	n.wantRefusal("peer-chain")
}

func TestNeighboursAreWithinBothLimits(t *testing.T) {
	_, n := neighbours(t, Limits{ConnectionsPerPod: 2})
	echo(t, dbApp)
	talk(t, n.dial(webAddr, dbApp))
	talk(t, n.dial(webAddr, dbApp))
	n.dialRefused(webAddr, dbApp)
	n.wantRefusal("too-many-connections")
}

func TestIdleNeighboursAreResetAfterTheLimit(t *testing.T) {
	_, n := neighbours(t, Limits{Idle: 200 * time.Millisecond})
	echo(t, dbApp)
	c := n.dial(webAddr, dbApp)
	talk(t, c)
	wantReset(t, c)
	if r := n.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed }); r.Reason != "idle-timeout" {
		t.Errorf("%+v", r)
	}
}

func TestDrainEndsNeighboursThatGoOn(t *testing.T) {
	_, n := neighbours(t, Limits{})
	echo(t, dbApp)
	c := n.dial(webAddr, dbApp)
	talk(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if left := n.proxy.Drain(ctx, 0); left == 0 {
		t.Error("nothing was left")
	}
	wantReset(t, c)
	if r := n.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed }); r.Reason != "shutdown" {
		t.Errorf("%+v", r)
	}
}

func TestBulkBetweenNeighboursArrivesWhole(t *testing.T) {
	_, n := neighbours(t, Limits{})
	ln, err := net.Listen("tcp", dbApp)
	must(t, err)
	defer ln.Close()
	data := make([]byte, 8<<20)
	_, _ = rand.Read(data)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = c.Write(data)
		c.Close()
	}()
	got, err := io.ReadAll(n.dial(webAddr, dbApp))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
