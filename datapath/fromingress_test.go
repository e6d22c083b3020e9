// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy/policytest"
)

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
	_, _ = c.Write([]byte("x")) // it may be refused before or after this
	_ = c.CloseWrite()
	_, _ = io.Copy(io.Discard, c)
	must(t, c.Close())
	return <-done
}

// A pod's certificate is no ingress's, whatever the rules are: peer rules hold.
func TestWorkloadCannotUseIngressRules(t *testing.T) {
	g, _, b := ingressFront(t, Limits{})
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
