// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

const (
	webAddr = "127.10.0.1"
	dbAddr  = "127.20.0.1"
	dbApp   = "127.20.0.1:6379"
)

// pair is the usual scene: web on node a, db on node b.
func pair(t *testing.T, opts ...policytest.Option) (w *world, a, b *node) {
	w = newWorld(t, opts...)
	a, b = w.node("127.0.0.1", Limits{}), w.node("127.0.0.2", Limits{})
	a.pod(policytest.Web, webAddr)
	b.pod(policytest.DB, dbAddr)
	return w, a, b
}

func talk(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
		t.Fatalf("%q, %v", buf, err)
	}
}

func wantReset(t testing.TB, c net.Conn) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(20*time.Second))) // silence is no answer
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestAllowedPodsTalkAndSeeEachOthersAddress(t *testing.T) {
	_, a, b := pair(t)
	peers := echo(t, dbApp)
	c := a.dial(webAddr, dbApp)
	talk(t, c)
	if peer := <-peers; peer.Addr().String() != webAddr {
		t.Errorf("the application sees %s, not the pod", peer)
	}
	must(t, c.CloseWrite())
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v", err)
	}
	for _, n := range []*node{a, b} {
		r := n.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })
		if r.BytesSent != 4 || r.BytesReceived != 4 || r.Reason != "" || r.SrcWorkload != policytest.Web || r.DstWorkload != policytest.DB ||
			r.SrcID != "spiffe://c8s.test/workload/web" || r.DstID != "spiffe://c8s.test/workload/db" || r.Dst.String() != dbApp {
			t.Errorf("%+v", r)
		}
	}
}

func TestSourcePortIsPreservedWhereItIsFree(t *testing.T) {
	peers := echo(t, dbApp)
	src := netip.MustParseAddrPort(webAddr + ":31234")
	c, err := DialPod(t.Context(), src, netip.MustParseAddrPort(dbApp), unmarked, 5*time.Second)
	must(t, err)
	defer c.Close()
	if got := <-peers; got != src {
		t.Errorf("the application sees %s, want %s", got, src)
	}
	// Taken: the same address, another port.
	again, err := DialPod(t.Context(), src, netip.MustParseAddrPort(dbApp), unmarked, 5*time.Second)
	must(t, err)
	defer again.Close()
	if got := <-peers; got.Addr() != src.Addr() || got.Port() == src.Port() {
		t.Errorf("the application sees %s", got)
	}
}

func TestPodsOfOneNodeTalkThroughATunnelToo(t *testing.T) {
	w := newWorld(t)
	n := w.node("127.0.0.1", Limits{})
	n.pod(policytest.Web, webAddr)
	n.pod(policytest.DB, dbAddr)
	echo(t, dbApp)
	talk(t, n.dial(webAddr, dbApp))
	if s := n.proxy.Stats(); s.Handshakes < 2 || s.Streams != 2 {
		t.Errorf("%+v", s)
	}
}

func TestConnectionsReuseTunnelsWithoutHandshake(t *testing.T) {
	_, a, b := pair(t)
	echo(t, dbApp)
	const conns = 50
	for range conns {
		c := a.dial(webAddr, dbApp)
		talk(t, c)
		must(t, c.CloseWrite())
		_, err := c.Read(make([]byte, 1))
		if err != io.EOF {
			t.Fatal(err)
		}
		for a.proxy.Stats().Busy > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	s := b.proxy.Stats()
	if s.Handshakes > 3 || s.Streams != conns { // one in use, and spares
		t.Errorf("%d handshakes for %d connections", s.Handshakes, s.Streams)
	}
}

func TestRefusalsResetTheApplicationAtOnceAndSayWhy(t *testing.T) {
	stranger := "127.10.0.99"
	for name, tt := range map[string]struct {
		src, dst string
		arrange  func(t *testing.T, w *world, a, b *node)
		reason   string
		far      string // reason on the other node, if it decided
	}{
		"source is no pod of ours": {src: stranger, dst: dbApp, reason: "unknown-source"},
		"no route":                 {src: webAddr, dst: "127.99.0.1:80", reason: "no-route"},
		"port not allowed":         {src: webAddr, dst: dbAddr + ":6380", reason: "port-not-allowed"},
		"nobody listens":           {src: webAddr, dst: dbApp, reason: "connection-refused", far: "connection-refused"},
		"workloads may not talk": {src: dbAddr, dst: webAddr + ":6379", reason: "peer-not-allowed-egress", arrange: func(_ *testing.T, _ *world, a, b *node) {
			a.pod(policytest.DB, dbAddr)
			b.pod(policytest.Web, webAddr)
		}},
		"pod not enrolled": {src: webAddr, dst: dbApp, reason: "not-enrolled", arrange: func(_ *testing.T, _ *world, a, _ *node) {
			a.podWith(policytest.Web, netip.MustParseAddr(webAddr), nil)
		}},
		"own certificate expired": {src: webAddr, dst: dbApp, reason: "certificate-expired", arrange: func(_ *testing.T, w *world, a, _ *node) {
			addr := netip.MustParseAddr(webAddr)
			a.podWith(policytest.Web, addr, w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.Web), -time.Second, addr))
		}},
		"node down": {src: webAddr, dst: dbApp, reason: "node-unreachable", arrange: func(_ *testing.T, w *world, _, _ *node) {
			w.routes[netip.MustParseAddr(dbAddr)] = netip.MustParseAddr("127.0.0.77")
		}},
		"destination gone from its node": {src: webAddr, dst: dbApp, reason: "peer-refused-certificate", far: "destination-not-enrolled", arrange: func(_ *testing.T, _ *world, _, b *node) {
			b.remove(dbAddr)
		}},
		"peer has another address": {src: webAddr, dst: dbApp, reason: "peer-address", arrange: func(_ *testing.T, w *world, _, b *node) {
			cert := w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.DB), time.Hour, netip.MustParseAddr("127.20.0.2"))
			b.podWith(policytest.DB, netip.MustParseAddr(dbAddr), cert)
		}},
		"peer of another CA": {src: webAddr, dst: dbApp, reason: "peer-chain", arrange: func(t *testing.T, w *world, _, b *node) {
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, newCA(t).issue(policytest.Peer(w.fixture.Signed, policytest.DB), time.Hour, addr))
		}},
		"peer expired": {src: webAddr, dst: dbApp, reason: "peer-refused-certificate", far: "certificate-expired", arrange: func(_ *testing.T, w *world, _, b *node) {
			addr := netip.MustParseAddr(dbAddr)
			b.podWith(policytest.DB, addr, w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.DB), -time.Second, addr))
		}},
		"peer on an unknown measurement": {src: webAddr, dst: dbApp, reason: "measurement", arrange: func(_ *testing.T, w *world, _, b *node) {
			addr, facts := netip.MustParseAddr(dbAddr), policytest.Peer(w.fixture.Signed, policytest.DB)
			facts.Measurement = policytest.Hex(0xbb, 48)
			b.podWith(policytest.DB, addr, w.ca.issue(facts, time.Hour, addr))
		}},
		"peer is a node, not a pod": {src: webAddr, dst: dbApp, reason: "peer-role", arrange: func(_ *testing.T, w *world, _, b *node) {
			addr, facts := netip.MustParseAddr(dbAddr), policytest.Peer(w.fixture.Signed, policytest.DB)
			facts.Role, facts.Workload, facts.WorkloadDigest = policy.RoleNode, "", ""
			b.podWith(policytest.DB, addr, w.ca.issue(facts, time.Hour, addr))
		}},
		"our certificate is refused over there": {src: webAddr, dst: dbApp, reason: "peer-refused-certificate", far: "peer-chain", arrange: func(t *testing.T, w *world, a, _ *node) {
			addr := netip.MustParseAddr(webAddr)
			a.podWith(policytest.Web, addr, newCA(t).issue(policytest.Peer(w.fixture.Signed, policytest.Web), time.Hour, addr))
		}},
		"our certificate lacks our address": {src: webAddr, dst: dbApp, reason: "source-mismatch", far: "source-mismatch", arrange: func(_ *testing.T, w *world, a, _ *node) {
			cert := w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.Web), time.Hour, netip.MustParseAddr(stranger))
			a.podWith(policytest.Web, netip.MustParseAddr(webAddr), cert)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, b := pair(t)
			if tt.arrange != nil {
				tt.arrange(t, w, a, b)
			}
			a.dialRefused(tt.src, tt.dst)
			r := a.wantRefusal(tt.reason)
			if r.Dst.String() != tt.dst || r.Src.Addr().String() != tt.src {
				t.Errorf("%+v", r)
			}
			if tt.far != "" {
				b.wantRefusal(tt.far)
			}
			if n := a.proxy.Stats().Outgoing; n != 0 {
				for range 100 {
					time.Sleep(time.Millisecond)
				}
				if n := a.proxy.Stats().Outgoing; n != 0 {
					t.Errorf("%d connections are still counted", n)
				}
			}
		})
	}
}

func TestConnectionToTheListenerItselfIsRefused(t *testing.T) {
	_, a, _ := pair(t)
	a.dialRefused(webAddr, a.entry)
	a.wantRefusal("listener-direct")
}

func TestConnectionLimitsHoldPerPod(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("127.0.0.1", Limits{ConnectionsPerPod: 2}), w.node("127.0.0.2", Limits{})
	a.pod(policytest.Web, webAddr)
	b.pod(policytest.DB, dbAddr)
	echo(t, dbApp)
	first, second := a.dial(webAddr, dbApp), a.dial(webAddr, dbApp)
	talk(t, first)
	talk(t, second)
	a.dialRefused(webAddr, dbApp)
	a.wantRefusal("too-many-connections")
	must(t, first.Close())
	for a.proxy.Stats().Outgoing > 1 {
		time.Sleep(time.Millisecond)
	}
	talk(t, a.dial(webAddr, dbApp))
}

func TestRecheckClosesWhatIsNoLongerAllowed(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, w *world, a, b *node){
		"peer rule gone": func(t *testing.T, w *world, _, _ *node) {
			next := w.fixture.Next(t, func(m *policy.Manifest) {
				m.Workloads[0].Peers.To[0].Ports[0]++
				m.Workloads[1].Peers.From[0].Ports[0]++
			})
			w.manifest.Store(next.Signed)
		},
		"workload gone": func(t *testing.T, w *world, _, _ *node) {
			w.manifest.Store(w.fixture.Next(t, func(m *policy.Manifest) {
				m.Workloads[0].Peers = policy.Peers{}
				m.Workloads = m.Workloads[:1]
			}).Signed)
		},
		"TCB floor raised": func(t *testing.T, w *world, _, _ *node) {
			w.manifest.Store(w.fixture.Next(t, func(m *policy.Manifest) { m.Substrates[0].SNP.MinTCB.SNP++ }).Signed)
		},
		"other CA":  func(t *testing.T, w *world, _, _ *node) { w.roots.Store(newCA(t).pool()) },
		"pod gone":  func(_ *testing.T, _ *world, a, _ *node) { a.remove(webAddr) },
		"peer gone": func(_ *testing.T, _ *world, _, b *node) { b.remove(dbAddr) },
		"pod replaced under its address": func(_ *testing.T, _ *world, a, _ *node) {
			a.pod(policytest.Web, webAddr).UID = "another"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, b := pair(t)
			echo(t, dbApp)
			c := a.dial(webAddr, dbApp)
			talk(t, c)
			a.proxy.Recheck()
			b.proxy.Recheck()
			talk(t, c) // still allowed: nothing happens
			change(t, w, a, b)
			a.proxy.Recheck()
			b.proxy.Recheck()
			wantReset(t, c)
			a.waitFlow(func(r flow.Record) bool {
				return r.Verdict == flow.Closed && (r.Reason == "policy-changed" || r.Reason == "tunnel-lost")
			})
		})
	}
}

func TestExpiredMeasurementEndsLiveTunnelsAndSaysWhich(t *testing.T) {
	until := time.Now().Add(10 * time.Minute).UTC().Truncate(time.Second)
	w, a, _ := pair(t, policytest.With(func(m *policy.Manifest) {
		m.Substrates[0].Measurements = append(m.Substrates[0].Measurements, policytest.Hex(0xbb, 48))
		m.Substrates[0].Expires = map[string]string{policytest.Hex(0xaa, 48): until.Format(time.RFC3339)}
	}))
	echo(t, dbApp)
	c := a.dial(webAddr, dbApp)
	talk(t, c)
	a.proxy.Recheck()
	talk(t, c)
	w.ahead.Store(int64(11 * time.Minute)) // leaves live for an hour
	a.proxy.Recheck()
	wantReset(t, c)
	r := a.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Reason == "policy-changed" })
	if r.Rule == "" || r.Actual == "" {
		t.Errorf("the record does not say what expired: %+v", r)
	}
	a.dialRefused(webAddr, dbApp)
}

func TestUnrelatedManifestChangeKeepsConnections(t *testing.T) {
	w, a, b := pair(t)
	echo(t, dbApp)
	c := a.dial(webAddr, dbApp)
	talk(t, c)
	w.manifest.Store(w.fixture.Next(t, func(m *policy.Manifest) {
		m.Workloads = append(m.Workloads, policy.Workload{Name: "other", Images: []policy.Image{{Name: "o", Digest: policytest.Digest("o")}}})
	}).Signed)
	a.proxy.Recheck()
	b.proxy.Recheck()
	talk(t, c)
}

func TestIdleConnectionsAreResetAfterTheLimit(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("127.0.0.1", Limits{Idle: time.Second}), w.node("127.0.0.2", Limits{})
	a.pod(policytest.Web, webAddr)
	b.pod(policytest.DB, dbAddr)
	echo(t, dbApp)
	c := a.dial(webAddr, dbApp)
	for range 8 { // longer than the limit, but never idle
		talk(t, c)
		time.Sleep(150 * time.Millisecond)
	}
	wantReset(t, c)
	r := b.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })
	if r.Reason != "idle-timeout" {
		t.Errorf("%+v", r)
	}
}
