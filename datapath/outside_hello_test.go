// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/tls"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// tlsEcho is an echo behind TLS.
func tlsEcho(t *testing.T, w *world, addr string) {
	t.Helper()
	cert := w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.DB), time.Hour, netip.MustParseAddr(dbAddr))
	ln, err := tls.Listen("tcp", addr, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13})
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
}

func TestAClientHelloIsHeardAndPassedOn(t *testing.T) {
	o := newOutsider(t, Limits{})
	tlsEcho(t, o.w, farApp+":444")
	for _, name := range []string{"api.example.com", "API.example.COM"} {
		raw := o.dial(webAddr, farAddr+":444")
		c := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // the test is not about the certificate
		if _, err := io.WriteString(c, "ping"); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "ping" {
			t.Fatalf("%q, %v", buf, err)
		}
		must(t, c.Close())
		r := o.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })
		if r.Rule != "external/sni" || r.DstName != "api.example.com" || r.BytesSent < 500 {
			t.Errorf("%+v", r)
		}
	}
}

func TestAClientHelloThatIsNotAllowedReachesNobody(t *testing.T) {
	for name, tt := range map[string]struct{ port, sent, reason, actual string }{
		"no TLS":           {":443", "GET / HTTP/1.1\r\n", "external-not-tls", "0x47"},
		"no TLS under SNI": {":444", "SSH-2.0-x\r\n", "external-not-tls", "0x53"},
		"another name":     {":444", clientHello(t, "evil.example.com"), "external-sni-not-allowed", "evil.example.com"},
		"no name":          {":444", clientHello(t, ""), "external-sni-not-allowed", "names no server"},
		"cut off":          {":444", clientHello(t, "api.example.com")[:50], "external-not-tls", "the connection ended"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutsider(t, Limits{})
			c := o.dial(webAddr, farAddr+tt.port)
			if _, err := io.WriteString(c, tt.sent); err != nil {
				t.Fatal(err)
			}
			if tt.actual == "the connection ended" {
				must(t, c.CloseWrite())
			}
			wantReset(t, c)
			if r := o.wantRefusal(tt.reason); !strings.Contains(r.Actual, tt.actual) {
				t.Errorf("it says %q, want %q in it", r.Actual, tt.actual)
			}
			if n := o.dialled.Load(); n != 0 {
				t.Errorf("the endpoint was dialled %d times", n)
			}
		})
	}
	t.Run("silence", func(t *testing.T) {
		o := newOutsider(t, Limits{HelloTimeout: 50 * time.Millisecond})
		o.dialRefused(webAddr, farAddr+":443")
		o.wantRefusal("external-hello-timeout")
	})
}
