// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
)

// raw opens a TLS connection to the replica for a protocol, believing anything.
func (r *replica) raw(proto string) (*tls.Conn, error) {
	cfg := ratls.ClientConfig(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }, func(tls.ConnectionState) error { return nil })
	cfg.NextProtos = []string{proto}
	return tls.Dial("tcp", r.addr, cfg)
}

// http is a client of one raw connection; edit changes how it speaks HTTP/2.
func (r *replica) http(edit func(*http.HTTP2Config)) *http.Client {
	r.g.t.Helper()
	conn, err := r.raw("h2")
	if err != nil {
		r.g.t.Fatal(err)
	}
	r.g.t.Cleanup(func() { conn.Close() })
	var used atomic.Bool
	tr := &http.Transport{
		ForceAttemptHTTP2: true, HTTP2: &http.HTTP2Config{},
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errors.New("the connection is gone")
			}
			return conn, nil
		},
	}
	if edit != nil {
		edit(tr.HTTP2)
	}
	return &http.Client{Transport: tr}
}

// stalls is what slow and half-open callers do. Each returns once it was cut off.
func stalls(r *replica) map[string]func() error {
	overHTTP1 := func(write func(w io.Writer) error) func() error {
		return func() error {
			conn, err := r.raw("http/1.1")
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := write(conn); err != nil {
				return nil //nolint:nilerr // cut off while it wrote
			}
			_, _ = io.Copy(io.Discard, conn) // until the service closes
			return nil
		}
	}
	const post = "POST " + api.AttestationChallengeProcedure + " HTTP/1.1\r\nHost: cds\r\nContent-Type: application/proto\r\n"
	return map[string]func() error{
		"nothing, not even TLS": func() error {
			conn, err := net.Dial("tcp", r.addr)
			if err != nil {
				return err
			}
			defer conn.Close()
			_, _ = io.Copy(io.Discard, conn)
			return nil
		},
		"no request":     overHTTP1(func(io.Writer) error { return nil }),
		"half a header":  overHTTP1(func(w io.Writer) error { _, err := io.WriteString(w, post); return err }),
		"no end of body": overHTTP1(func(w io.Writer) error { _, err := io.WriteString(w, post+"Content-Length: 1000\r\n\r\nx"); return err }),
		"answers not read": func() error {
			conn, err := r.raw("http/1.1")
			if err != nil {
				return err
			}
			defer conn.Close()
			for { // pipelined, until nothing fits any more and the service closes
				if _, err := io.WriteString(conn, strings.Repeat("GET /v1/endorsement HTTP/1.1\r\nHost: cds\r\n\r\n", 100)); err != nil {
					return nil //nolint:nilerr // cut off
				}
			}
		},
		"a body that never comes": func() error {
			body, _ := io.Pipe()
			resp, err := r.http(nil).Post("https://cds"+api.AttestationChallengeProcedure, "application/proto", body)
			if err == nil {
				resp.Body.Close()
			}
			return nil
		},
	}
}

func TestSlowAndHalfOpenCallersAreCutOffWhileOthersAreServed(t *testing.T) {
	t.Parallel() // it waits most of the time
	g := newGroup(t, 1)
	r := g.replicas[0]
	r.tune = func(s *cds.Server) { s.SetCallTime(500 * time.Millisecond) }
	r.edit = func(c *cds.Config) { c.Limits.CallsPerSecond, c.Limits.CallBurst = 1e6, 1e6 }
	g.startAll()
	var wg sync.WaitGroup
	for name, stall := range stalls(r) {
		wg.Go(func() {
			if err := stall(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	g.poke(r)
	wg.Wait() // that it returns is the test
	g.poke(r)
}

// A watcher that takes nothing holds up nobody, and is given up.
func TestStalledWatcherIsGivenUpWhileOthersHearTheNews(t *testing.T) {
	g := newGroup(t, 1)
	r := g.replicas[0]
	r.tune = func(s *cds.Server) { s.SetCallTime(time.Second) }
	g.startAll()
	got := watching(t, g.client(nil))
	await(t, "the watcher", func() error { return atLeast(r.metric("c8s_cds_watchers"), 1) }, r.log)
	const stalled = 8
	streams := make(chan *connect.ServerStreamForClient[api.State], stalled)
	for range stalled {
		h := r.http(func(c *http.HTTP2Config) { c.MaxReceiveBufferPerStream = 4 << 10 }) // less than a manifest
		go func() {
			stream, err := api.NewPolicyClient(h, "https://cds").Watch(t.Context(), &api.WatchRequest{})
			if err != nil {
				t.Errorf("watching: %v", err)
			}
			streams <- stream
		}()
	}
	next := g.f.Next(t, hostAccess(0))
	g.publish(r, next)
	arrives(t, got, next.Digest, 5*time.Second)
	await(t, "the stalled watchers to be given up", func() error { return atLeast(1, r.metric("c8s_cds_watchers")) }, r.log)
	for range stalled {
		(<-streams).Close()
	}
	// A watcher that is idle is none that stalls.
	third := next.Next(t, hostAccess(0))
	g.publish(r, third)
	arrives(t, got, third.Digest, 5*time.Second)
}

func atLeast(n, want float64) error {
	if n < want {
		return fmt.Errorf("%g, want at least %g", n, want)
	}
	return nil
}

func TestConnectionsAreLimitedAndHalfIsLeftForOtherHosts(t *testing.T) {
	g := newGroup(t, 1)
	r := g.replicas[0]
	const limit = 8
	r.edit = func(c *cds.Config) { c.Limits.Connections = limit }
	g.startAll()
	var conns []*tls.Conn
	open := func() error {
		conn, err := r.raw("h2")
		if err == nil {
			conns = append(conns, conn)
		}
		return err
	}
	await(t, "all places of this host to be free again", func() error {
		for len(conns) < limit/2 {
			if err := open(); err != nil {
				return err
			}
		}
		return nil
	}, r.log)
	if err := open(); err == nil {
		t.Errorf("a host has %d connections of %d", len(conns), limit)
	}
	conns[0].Close()
	await(t, "a place", open, r.log)
	for _, conn := range conns {
		conn.Close() // the end would wait for them
	}
}

func TestLargeRequestsAreRefused(t *testing.T) {
	g := newGroup(t, 1).startAll()
	r := g.replicas[0]
	h := r.http(nil)
	_, err := api.NewAttestationClient(h, "https://cds").Enrol(t.Context(), &api.EnrolRequest{Csr: make([]byte, 300<<10)})
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("an enrolment of 300 KiB: %v", err)
	}
	_, err = api.NewPolicyClient(h, "https://cds").PublishManifest(t.Context(), &api.Document{Envelope: make([]byte, 17<<20)})
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("a manifest of 17 MiB: %v", err)
	}
	resp, err := h.Get("https://cds/v1/manifest?" + strings.Repeat("x", 64<<10))
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("a header of 64 KiB: %s", resp.Status)
		}
	}
	g.poke(r)
}

// Anybody may publish what the operators signed, so anybody may send large
// bodies: few at a time, and those who must wait are told for how long.
func TestLargeBodiesAreReadFewAtATime(t *testing.T) {
	g := newGroup(t, 1).startAll()
	r := g.replicas[0]
	var ends []*io.PipeWriter
	for range 2 {
		body, end := io.Pipe()
		ends = append(ends, end)
		go func() {
			resp, err := r.http(nil).Post("https://cds"+api.PolicyPublishManifestProcedure, "application/proto", body)
			if err == nil {
				resp.Body.Close()
			}
		}()
	}
	next := g.f.Next(t, hostAccess(0))
	await(t, "both to be under way", func() error {
		_, err := g.client(nil).PublishManifest(t.Context(), []byte("nothing"))
		if refused := new(client.RefusedError); !errors.As(err, &refused) || refused.Code != "busy" {
			return fmt.Errorf("got %w, want busy", err)
		} else if refused.RetryAfter < time.Second || refused.RetryAfter > 5*time.Second {
			t.Fatalf("to come again after %s", refused.RetryAfter)
		}
		return nil
	}, r.log)
	g.poke(r) // all else goes on
	if _, err := g.client(nil).PublishManifest(t.Context(), next.Envelope); err == nil {
		t.Error("a third was read")
	}
	for _, end := range ends {
		end.CloseWithError(errors.New("gave up"))
	}
	await(t, "a place", func() error {
		_, err := g.client(nil).PublishManifest(t.Context(), next.Envelope)
		return err
	}, r.log)
}

func TestTooManyCallsAreRefusedBeforeTheirBodiesAreRead(t *testing.T) {
	g := newGroup(t, 1)
	r := g.replicas[0]
	r.edit = func(c *cds.Config) { c.Limits.CallsPerSecond, c.Limits.CallBurst = 1e-6, 3 }
	g.startAll()
	h := r.http(nil)
	for range 3 {
		if _, err := api.NewAttestationClient(h, "https://cds").Challenge(t.Context(), &api.ChallengeRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	before := len(r.log.String())
	for range 20 {
		_, err := api.NewPolicyClient(h, "https://cds").PublishManifest(t.Context(), &api.Document{Envelope: bytes.Repeat([]byte("x"), 1<<20)})
		var remote *connect.Error
		if !errors.As(err, &remote) || remote.Message() != "too-fast" || remote.Meta().Get("Retry-After") == "" {
			t.Fatalf("got %v, want too-fast and when to come again", err)
		}
	}
	resp, err := h.Get("https://cds/v1/manifest")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a document: %s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
	if n := r.metric("c8s_cds_refused_total"); n != 21 {
		t.Errorf("%g refusals are counted, want 21", n)
	}
	if extra := r.log.String()[before:]; strings.Contains(extra, "too-fast") {
		t.Errorf("a flood of calls is a flood of log lines: %.300s", extra)
	}
}
