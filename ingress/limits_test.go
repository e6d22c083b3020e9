// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// endless is a body that does not end by itself.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestLimitsOfHosts(t *testing.T) {
	w := newWorld(t, func(c *Config) {
		now := time.Now()
		c.Now = func() time.Time { return now } // no request is earned back
	})
	limits := route.Limits{HeaderBytes: 1000, BodyBytes: 100, RequestsPerSecond: 8, Connections: 2}
	w.route(route.Config{
		Routes: []route.Route{to("web", route.HTTP, "bank.example", "a.bank.example")},
		Hosts:  []route.Host{{Name: "bank.example", Limits: limits}},
	})
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	c := w.client()
	body := func(b io.Reader, length int64) func(*http.Request) {
		return func(r *http.Request) { r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(b), length }
	}
	for _, tc := range []struct {
		name string
		edit func(*http.Request)
		want int
	}{
		{"small", body(strings.NewReader("ok"), 2), 200},
		{"large header", header("X-A", strings.Repeat("a", 1000)), 431},
		{"large body", body(endless{}, 1000), 413},
		{"large body without length", body(io.LimitReader(endless{}, 100_000), -1), 413},
		{"just right", body(io.LimitReader(endless{}, 100), -1), 200},
	} {
		if res, text := w.get(c, "https://bank.example/", tc.edit); res.StatusCode != tc.want {
			t.Errorf("%s: %d %s", tc.name, res.StatusCode, text)
		}
		c.CloseIdleConnections()
	}
	for i := range 5 {
		res, text := w.get(c, "https://bank.example/")
		if want := map[bool]int{true: 200, false: 429}[i < 3]; res.StatusCode != want || want == 429 && res.Header.Get("Retry-After") == "" {
			t.Errorf("request %d: %d %s", i+6, res.StatusCode, text)
		}
		if res, _ := w.get(c, "https://a.bank.example/"); res.StatusCode != 200 {
			t.Error("another host was limited:", res.StatusCode)
		}
	}
}

func TestLimitOfConnectionsOfAHost(t *testing.T) {
	w := newWorld(t)
	w.route(route.Config{
		Routes: []route.Route{to("web", route.HTTP, "bank.example")},
		Hosts:  []route.Host{{Name: "bank.example", Limits: route.Limits{Connections: 2}}},
	})
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	a, b, c := w.client(), w.client(), w.client()
	for i, tc := range []struct {
		c    *http.Client
		want int
	}{{a, 200}, {b, 200}, {a, 200}, {c, 503}, {b, 200}} {
		if res, _ := w.get(tc.c, "https://bank.example/"); res.StatusCode != tc.want {
			t.Errorf("request %d: %d", i, res.StatusCode)
		}
	}
	a.CloseIdleConnections()
	w.until("a place to be free", func() bool {
		res, _ := w.get(c, "https://bank.example/")
		return res.StatusCode == 200
	})
}

// until tries until something holds, or the test's time is over.
func (w *world) until(what string, holds func() bool) {
	w.Helper()
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	for deadline := time.Now().Add(30 * time.Second); !holds(); <-ticks.C {
		if time.Now().After(deadline) {
			w.Fatal("waiting in vain for", what)
		}
	}
}

func TestLimitOfConnectionsOfAClient(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.PerClient = 2 })
	first, _ := w.dialTLS("bank.example"), w.dialTLS("bank.example")
	refused := func() bool {
		conn, err := tls.Dial("tcp", w.https.Addr().String(), &tls.Config{RootCAs: w.certs.pool, ServerName: "bank.example"})
		if err == nil {
			conn.Close()
		}
		return err != nil
	}
	if !refused() {
		t.Error("a third connection was taken")
	}
	first.Close()
	w.until("a place to be free", func() bool { return !refused() })
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1")
	if who(a) != who(b) || who(a) == who(netip.MustParseAddr("2001:db8:0:1::1")) {
		t.Error("a client with IPv6 is its /64")
	}
}

func TestHeadersMustComeInTime(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Header = 100 * time.Millisecond })
	for name, raw := range map[string]string{"no header": "", "half a header": "GET / HTTP/1.1\r\nHost: bank.example\r\nX-Slow:"} {
		conn := w.dialTLS("bank.example")
		io.WriteString(conn, raw)
		if _, err := io.ReadAll(conn); isTimeout(err) {
			t.Errorf("%s: the connection lives", name)
		}
	}
	conn, err := net.Dial("tcp", w.https.Addr().String()) // no handshake
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadAll(conn); isTimeout(err) {
		t.Error("no handshake: the connection lives")
	}
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

func TestHeaderBombs(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.HeaderBytes = 8 << 10 })
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	conn := w.dialTLS("bank.example")
	go io.Copy(conn, io.MultiReader(strings.NewReader("GET / HTTP/1.1\r\nHost: bank.example\r\nX-A: "), io.LimitReader(endless{}, 1<<20)))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && res.StatusCode != 431 {
		t.Error("h1:", res.StatusCode)
	}
	c := w.client(h2)
	req, _ := http.NewRequest(http.MethodGet, "https://bank.example/", nil)
	for i := range 100 {
		req.Header.Set(fmt.Sprint("X-", i), strings.Repeat("a", 100))
	}
	if res, err := c.Do(req); err == nil {
		res.Body.Close()
		if res.StatusCode != 431 {
			t.Error("h2:", res.StatusCode)
		}
	}
}

func TestClientsThatStallAreLeft(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Stall = 100 * time.Millisecond })
	ended := make(chan struct{}, 8)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		if r.Method == http.MethodPost {
			io.Copy(io.Discard, r.Body)
			return
		}
		if r.URL.Path == "/slow" { // longer than a client may stall: this is no client
			select {
			case <-time.After(300 * time.Millisecond):
			case <-r.Context().Done():
				t.Error("a slow backend was taken for a slow client")
			}
			return
		}
		io.Copy(rw, endless{})
	})))
	conn := w.dialTLS("bank.example")
	io.WriteString(conn, "POST / HTTP/1.1\r\nHost: bank.example\r\nContent-Length: 10\r\n\r\nabc")
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != 408 {
		t.Errorf("a body that stalls: %v %v", res, err)
	}
	<-ended
	conn = w.dialTLS("bank.example")
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bank.example\r\n\r\n") // and nobody reads
	<-ended
	for name, c := range map[string]*http.Client{"h1": w.client(), "h2": w.client(h2)} {
		if res, _ := w.get(c, "https://bank.example/slow"); res.StatusCode != 200 {
			t.Error(name, res.StatusCode)
		}
		<-ended
		res, err := c.Get("https://bank.example/") // flow control fills up
		if err != nil {
			t.Fatal(name, err)
		}
		<-ended
		res.Body.Close()
	}
}

func TestSilenceOfStreamsIsNoStall(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Stall = 100 * time.Millisecond })
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.NewResponseController(rw).EnableFullDuplex()
		if r.URL.Path == "/answered" {
			rw.WriteHeader(http.StatusOK)
			http.NewResponseController(rw).Flush()
		}
		body, err := io.ReadAll(r.Body)
		fmt.Fprint(rw, string(body), err)
	})))
	for path, kind := range map[string]string{"/answered": "text/plain", "/grpc": "application/grpc"} {
		in, out := io.Pipe()
		go func() {
			out.Write([]byte("late"))
			time.Sleep(300 * time.Millisecond) // longer than a stall
			out.Close()
		}()
		req, _ := http.NewRequest(http.MethodPost, "https://bank.example"+path, in)
		req.Header.Set("Content-Type", kind)
		res, err := w.client(h2).Do(req)
		if err != nil {
			t.Fatal(path, err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != "late<nil>" || err != nil {
			t.Errorf("%s: %d %q %v", path, res.StatusCode, body, err)
		}
	}
}

func TestPlainPortOnlyRedirects(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		host, path string
		want       int
		location   string
	}{
		{"bank.example", "/a?b=c", 308, "https://bank.example/a?b=c"},
		{"BANK.example:80", "//evil.example/", 308, "https://bank.example//evil.example/"},
		{"nobody.example", "/", 404, ""},
		{"bank.example", "/.well-known/acme-challenge/x", 200, ""},
		{"bank.example", "/.well-known/c8s", 308, "https://bank.example/.well-known/c8s"},
	} {
		conn, err := net.Dial("tcp", w.plain.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", tc.path, tc.host)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || res.StatusCode != tc.want || res.Header.Get("Location") != tc.location {
			t.Errorf("%+v: %v %v", tc, res, err)
		}
		conn.Close()
	}
}

func TestProxyProtocolFromWhereItMustCome(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Listen.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	v2 := proxyV2 + "\x21\x11\x00\x0c" + "\xc0\x00\x02\x07" + "\x0a\x00\x00\x01" + "\x30\x39\x01\xbb"
	for name, tc := range map[string]struct{ header, want string }{
		"v1":      {"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n", "X-Forwarded-For: 192.0.2.7\r\n"},
		"v1 IPv6": {"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n", `Forwarded: for="[2001:db8::7]";host`},
		"v2":      {v2, "X-Forwarded-For: 192.0.2.7\r\n"},
		"local":   {proxyV2 + "\x20\x00\x00\x00", "X-Forwarded-For: 127.0.0.1\r\n"},
		"none":    {"", ""},
	} {
		raw, err := net.Dial("tcp", w.https.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(raw, tc.header)
		conn := tls.Client(raw, &tls.Config{RootCAs: w.certs.pool, ServerName: "bank.example"})
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bank.example\r\nConnection: close\r\n\r\n")
		got, err := io.ReadAll(conn)
		if (err == nil) != (tc.want != "") || !strings.Contains(string(got), tc.want) {
			t.Errorf("%s: %v %s", name, err, got)
		}
		raw.Close()
	}
	// From elsewhere the header is not understood.
	w = newWorld(t, func(c *Config) { c.Listen.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	raw, err := net.Dial("tcp", w.https.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	io.WriteString(raw, v2)
	if err := tls.Client(raw, &tls.Config{RootCAs: w.certs.pool, ServerName: "bank.example"}).Handshake(); err == nil {
		t.Error("a header of the PROXY protocol was taken from anybody")
	}
	w.dialTLS("bank.example") // without one it works
}

func TestNewWantsEveryPart(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an ingress of nothing")
	}
	l := Limits{Streams: -1}
	if l.fill() == nil {
		t.Error("a negative limit")
	}
}

func FuzzReadProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\nrest"))
	f.Add([]byte("PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(proxyV2 + "\x21\x11\x00\x0c\xc0\x00\x02\x07\x0a\x00\x00\x01\x30\x39\x01\xbbrest"))
	f.Add([]byte(proxyV2 + "\x21\x21\x00\x24" + strings.Repeat("\x20", 36)))
	f.Add([]byte(proxyV2 + "\x20\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bytes.NewReader(data)
		src, err := readProxyHeader(in)
		read := data[:len(data)-in.Len()]
		if err != nil {
			if src.IsValid() {
				t.Error("an address and an error")
			}
			return
		}
		if src.Addr().Is4In6() || src.Addr().Zone() != "" {
			t.Error(src)
		}
		// What follows is the client's: with other bytes there, the answer is the same.
		again, err := readProxyHeader(io.MultiReader(bytes.NewReader(read), strings.NewReader("\x16\x03\x01")))
		if err != nil || again != src {
			t.Errorf("%q: %v, then %v %v", read, src, again, err)
		}
	})
}

// A field section of HTTP/2 that never ends holds nobody: neither where nothing
// more comes, nor where it comes for ever (CVE-2023-45288).
func TestHeadersOfHTTP2MustEnd(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Idle = 200 * time.Millisecond })
	for name, more := range map[string]int{"nothing more": 0, "for ever": 100_000} {
		f, buf, enc := w.framer()
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "bank.example"}, {":path", "/"}} {
			enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: buf.Bytes(), EndStream: true}); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			for {
				if _, err := f.ReadFrame(); err != nil {
					ended <- err
					return
				}
			}
		}()
		buf.Reset()
		enc.WriteField(hpack.HeaderField{Name: "x-a", Value: strings.Repeat("a", 1000), Sensitive: true})
		for ; more > 0 && len(ended) == 0; more-- {
			if f.WriteContinuation(1, false, buf.Bytes()) != nil {
				break
			}
		}
		if err := <-ended; isTimeout(err) || name == "for ever" && more == 0 {
			t.Errorf("%s: the connection lives: %v", name, err)
		}
	}
}
