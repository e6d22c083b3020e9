// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// client is one of a server that runs handler.
func client(t *testing.T, handler http.Handler) *Client {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	c := &Client{Roots: x509.NewCertPool(), Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
	}}
	c.Roots.AddCert(s.Certificate())
	return c
}

func TestClientsAreContentWithTheApplication(t *testing.T) {
	c := client(t, App("web"))
	if err := c.Events(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
	if err := c.WebSocket(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
}

// What keeps an answer until it has all of it has none of an endless one.
func TestEventsThatAreKeptBackAreNoticed(t *testing.T) {
	c := client(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var kept bytes.Buffer
		events(&keeper{ResponseWriter: w, kept: &kept}, r)
	}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Events(ctx, "example.com"); err == nil {
		t.Error("events came that nobody sent")
	}
}

type keeper struct {
	http.ResponseWriter
	kept *bytes.Buffer
}

func (k *keeper) Write(p []byte) (int, error) { return k.kept.Write(p) }
func (k *keeper) FlushError() error           { return nil }

func TestAnotherNameOrCAIsNoticed(t *testing.T) {
	c := client(t, App("web"))
	if err := c.Events(t.Context(), "another.test"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate for another name: %v", err)
	}
	c.Roots = x509.NewCertPool()
	if err := c.WebSocket(t.Context(), "example.com"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody: %v", err)
	}
}

func TestSimulated(t *testing.T) {
	all := `{"name":"connection","state":"proven"},{"name":"anchor","state":"proven"},{"name":"manifest-signed","state":"proven"},{"name":"cds","state":"proven"},` +
		`{"name":"in-force","state":"proven"},{"name":"log","state":"proven"},{"name":"memory","state":"proven"},{"name":"statement","state":"proven"},{"name":"hardware","state":"open"}`
	for name, tt := range map[string]struct {
		said string
		good bool
	}{
		"all":           {`{"steps":[` + all + "]}\nc8s: partly proven", true},
		"one is open":   {`{"steps":[` + strings.Replace(all, `"log","state":"proven"`, `"log","state":"open"`, 1) + `]}`, false},
		"one is absent": {`{"steps":[` + strings.Replace(all, `{"name":"memory","state":"proven"},`, "", 1) + `]}`, false},
		"one is wrong":  {`{"steps":[` + all + `,{"name":"hardware","state":"refused"}]}`, false},
		"nothing":       {`c8s: refused`, false},
	} {
		if err := Simulated(tt.said); (err == nil) != tt.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
