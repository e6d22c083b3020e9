// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"testing"
)

func TestKeyOfIsThatOfTheConnection(t *testing.T) {
	w := newWorld(t)
	spki := func() string {
		return fmt.Sprintf("own true %x", sha256.Sum256(w.certs.current.Load().Leaf.RawSubjectPublicKeyInfo))
	}
	ask := func(conn *tls.Conn) string {
		t.Helper()
		io.WriteString(conn, "GET /.well-known/c8s HTTP/1.1\r\nHost: bank.example\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		return string(body)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cfg := &tls.Config{RootCAs: w.certs.pool, ServerName: "bank.example", ClientSessionCache: tls.NewLRUClientSessionCache(4), MaxVersion: version}
		dial := func() *tls.Conn {
			conn, err := tls.Dial("tcp", w.https.Addr().String(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			return conn
		}
		before, conn := spki(), dial()
		if got := ask(conn); got != before {
			t.Errorf("%s, want %s", got, before)
		}
		w.certs.rotate(t)
		if got := ask(conn); got != before {
			t.Errorf("after the rotation: %s, want %s", got, before)
		}
		resumed := dial()
		if got := ask(resumed); got != before || !resumed.ConnectionState().DidResume {
			t.Errorf("resumed (%v): %s, want %s", resumed.ConnectionState().DidResume, got, before)
		}
		again := dial() // with a ticket of the resumed one
		if got := ask(again); got != before || !again.ConnectionState().DidResume {
			t.Errorf("resumed twice (%v): %s, want %s", again.ConnectionState().DidResume, got, before)
		}
		cfg.ClientSessionCache = nil
		if got := ask(dial()); got != spki() {
			t.Errorf("a new one: %s, want %s", got, spki())
		}
	}
	if _, ok := KeyOf(context.Background()); ok {
		t.Error("a key of no connection")
	}
}

func TestTLSVersionsAndSuites(t *testing.T) {
	w := newWorld(t)
	strict := newWorld(t, func(c *Config) { c.TLS13 = true })
	for _, tc := range []struct {
		w    *world
		cfg  *tls.Config
		good bool
	}{
		{w, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{w, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{w, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA}}, false},
		{w, &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{strict, &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		{strict, &tls.Config{}, true},
	} {
		tc.cfg.RootCAs, tc.cfg.ServerName = tc.w.certs.pool, "bank.example"
		conn, err := tls.Dial("tcp", tc.w.https.Addr().String(), tc.cfg)
		if (err == nil) != tc.good {
			t.Errorf("%+v: %v", tc.cfg, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}
