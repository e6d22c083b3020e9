// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// webServer speaks HTTP/1.1 and, without TLS, HTTP/2.
func webServer(t *testing.T, handle http.HandlerFunc) Dial {
	t.Helper()
	s := httptest.NewUnstartedServer(handle)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}
}

func TestLoopCountsAnswersOfHTTP(t *testing.T) {
	var wrong http.HandlerFunc = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }
	for name, begin := range map[string]func(Get) func(net.Conn) (Exchange, error){
		"http1": func(g Get) func(net.Conn) (Exchange, error) { return g.HTTP1 },
		"http2": func(g Get) func(net.Conn) (Exchange, error) { return g.HTTP2 },
	} {
		for kind, tt := range map[string]struct {
			handle http.HandlerFunc
			says   string // the error; empty: none
		}{
			"length": {handle: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1000)) }},
			"stream": {handle: func(w http.ResponseWriter, _ *http.Request) {
				for range 10 {
					_, _ = w.Write(make([]byte, 100))
					_ = http.NewResponseController(w).Flush()
				}
			}},
			"short":  {handle: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 999)) }, says: "999"},
			"status": {handle: wrong, says: "the answer is "},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				dial := webServer(t, tt.handle)
				loop, err := NewLoop(t.Context(), dial, 2, begin(Get{Host: "web.example", Path: "/", Size: 1000}))
				if tt.says != "" {
					if err == nil || !strings.Contains(err.Error(), tt.says) {
						t.Fatalf("got %v, want something about %q", err, tt.says)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer loop.Close()
				r, err := loop.Run(t.Context(), 20*time.Millisecond)
				if err != nil || r.Requests < 2 || r.Latencies.Count() != r.Requests {
					t.Errorf("%+v, %v", r, err)
				}
			})
		}
	}
}

func TestLastAnswerEndsTheConnection(t *testing.T) {
	dial := webServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) })
	c, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	exchange, err := Get{Host: "web.example", Path: "/", Size: 1, Last: true}.HTTP1(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := exchange(); err != nil {
		t.Error(err)
	}
}

func TestFirstByteDoesNotWaitForTheEnd(t *testing.T) {
	const pause = 50 * time.Millisecond
	dial := webServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("first"))
		_ = http.NewResponseController(w).Flush()
		time.Sleep(pause) // what is measured must not contain it
		_, _ = w.Write([]byte("last"))
	})
	l, err := FirstByte(t.Context(), dial, Get{Host: "web.example", Path: "/", Size: 9}, 3*pause)
	if err != nil {
		t.Fatal(err)
	}
	if l.Count() == 0 || l.Quantile(0) >= pause {
		t.Errorf("%d measured, the least %s", l.Count(), l.Quantile(0))
	}
	whole := webServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) })
	if _, err := FirstByte(t.Context(), whole, Get{Host: "web.example", Path: "/", Size: 1}, pause); err == nil {
		t.Error("what is no stream was measured as one")
	}
}
