// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/tunnel"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestSilentHandshakeIsCutOff(t *testing.T) {
	w := newWorld(t)
	n := w.node("127.0.0.1", Limits{HandshakeTimeout: 100 * time.Millisecond})
	c, err := net.Dial("tcp", netip.AddrPortFrom(n.addr, w.port).String())
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
		t.Error("the connection stays open")
	}
	for n.proxy.Stats().HandshakeFails == 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestOutsiderWithoutCertificateIsRefused(t *testing.T) {
	w, _, b := pair(t)
	node := netip.AddrPortFrom(b.addr, w.port)
	err := ProbeTunnel(t.Context(), (&net.Dialer{}).DialContext, node, netip.MustParseAddr(dbAddr))
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("%v", err)
	}
	if err := ProbeTunnel(t.Context(), (&net.Dialer{}).DialContext, node, netip.MustParseAddr("127.20.0.9")); err == nil {
		t.Error("a pod that does not exist answers")
	}
}

// A verified peer that opens a stream to another pod than the tunnel's, or
// from an address that is not its own, is refused stream by stream.
func TestVerifiedPeerCannotReachBeyondItsTunnel(t *testing.T) {
	w, a, b := pair(t)
	b.pod(policytest.DB, "127.20.0.3")
	echo(t, "127.20.0.3:6379")
	pod, _ := a.Pod(netip.MustParseAddr(webAddr))
	for name, tt := range map[string]struct {
		src, dst string
		reason   tunnel.Reason
	}{
		"other destination": {webAddr + ":1000", "127.20.0.3:6379", tunnel.ReasonDestMismatch},
		"other source":      {"127.10.0.2:1000", dbApp, tunnel.ReasonSourceMismatch},
		"other port":        {webAddr + ":1000", dbAddr + ":22", tunnel.ReasonNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", netip.AddrPortFrom(b.addr, w.port).String())
			must(t, err)
			var peer *identity
			tun, err := tunnel.Dialed(t.Context(), conn, a.proxy.clientTLS(pod.Credential().TLS, netip.MustParseAddr(dbAddr), &peer), new(tunnel.Buffers))
			must(t, err)
			defer tun.Kill(tunnel.ReasonShutdown)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer ln.Close()
			app, err := net.Dial("tcp", ln.Addr().String())
			must(t, err)
			res := tun.Relay(app.(*net.TCPConn), tunnel.Header{Proto: tunnel.ProtoTCP, Src: netip.MustParseAddrPort(tt.src), Dst: netip.MustParseAddrPort(tt.dst)})
			if !res.Refused || res.Reason != tt.reason {
				t.Errorf("%+v", res)
			}
		})
	}
}

func TestTunnelsInsistOnTheirOwnProtocol(t *testing.T) {
	w, a, b := pair(t)
	pod, _ := a.Pod(netip.MustParseAddr(webAddr))
	for name, edit := range map[string]func(*tls.Config){
		"no ALPN":      func(c *tls.Config) { c.NextProtos = nil },
		"other ALPN":   func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"TLS 1.2":      func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no SNI":       func(c *tls.Config) { c.ServerName = "" },
		"foreign SNI":  func(c *tls.Config) { c.ServerName = "kubernetes.default" },
		"old exchange": func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} },
	} {
		t.Run(name, func(t *testing.T) {
			var peer *identity
			cfg := a.proxy.clientTLS(pod.Credential().TLS, netip.MustParseAddr(dbAddr), &peer)
			cfg.VerifyConnection = nil
			edit(cfg)
			c, err := tls.Dial("tcp", netip.AddrPortFrom(b.addr, w.port).String(), cfg)
			if err == nil {
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				_, err = c.Read(make([]byte, 1))
				c.Close()
			}
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("accepted: %v", err)
			}
		})
	}
}

func TestServerNamesParseStrictly(t *testing.T) {
	for _, a := range []string{"10.1.2.3", "fd00::1"} {
		addr := netip.MustParseAddr(a)
		if got, err := parseServerName(serverName(addr)); err != nil || got != addr {
			t.Errorf("%s: %s, %v", a, got, err)
		}
	}
	for _, name := range []string{"", ".pod.c8s", "0a01.pod.c8s", "0A010203.pod.c8s", "0a010203.pod.c8s.", "0a010203", "zz010203.pod.c8s", "00000000000000000000ffff0a010203.pod.c8s"} {
		if got, err := parseServerName(name); err == nil {
			t.Errorf("%q: %s", name, got)
		}
	}
}

func FuzzServerName(f *testing.F) {
	f.Add("0a010203.pod.c8s")
	f.Add("fd000000000000000000000000000001.pod.c8s")
	f.Fuzz(func(t *testing.T, name string) {
		if addr, err := parseServerName(name); err == nil && serverName(addr) != name {
			t.Errorf("%q parses to %s", name, addr)
		}
	})
}
