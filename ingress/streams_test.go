// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/net/websocket"

	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func (w *world) websocket() *websocket.Conn {
	w.Helper()
	cfg, err := websocket.NewConfig("wss://bank.example/ws", "https://bank.example")
	if err != nil {
		w.Fatal(err)
	}
	ws, err := websocket.NewClient(cfg, w.dialTLS("bank.example"))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { ws.Close() })
	return ws
}

func TestWebSocket(t *testing.T) {
	w := newWorld(t)
	closed := make(chan struct{}, 1)
	w.addPod("d/web", policytest.Web, serve(t, websocket.Handler(func(ws *websocket.Conn) {
		for {
			var m string
			if websocket.Message.Receive(ws, &m) != nil {
				break
			}
			websocket.Message.Send(ws, m)
		}
		closed <- struct{}{}
	})))
	ws := w.websocket()
	for _, m := range []string{"one", strings.Repeat("two", 10_000)} {
		if err := websocket.Message.Send(ws, m); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := websocket.Message.Receive(ws, &got); err != nil || got != m {
			t.Fatalf("%.20q %v", got, err)
		}
	}
	ws.Close()
	<-closed
	// To a backend of another protocol nothing is upgraded.
	w.route(route.Config{Routes: []route.Route{to("web", route.H2C, "bank.example")}})
	cfg, _ := websocket.NewConfig("wss://bank.example/ws", "https://bank.example")
	if _, err := websocket.NewClient(cfg, w.dialTLS("bank.example")); err == nil {
		t.Error("an upgrade to h2c")
	}
}

// tcpRoute leads CONNECT bank.example:5432 to d/db.
func (w *world) tcpRoute() {
	w.Helper()
	w.route(route.Config{TCP: []route.TCP{{Source: "db", Host: "bank.example", Port: 5432, Backends: []route.Backend{
		{Service: "d/db", Port: route.Port{Number: 5432}, Weight: 1},
	}}}})
}

// shout answers each line in upper case, and "bye" after the client's end. How
// each connection ended is sent to ends, which may be nil.
func shout(t testing.TB, ends chan<- error) net.Listener {
	t.Helper()
	ln := listen(t)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := bufio.NewScanner(conn)
				for in.Scan() {
					if in.Text() == "reset" {
						conn.(*net.TCPConn).SetLinger(0)
						return
					}
					fmt.Fprintln(conn, strings.ToUpper(in.Text()))
				}
				if ends != nil {
					ends <- in.Err()
				}
				io.WriteString(conn, "bye")
			}()
		}
	}()
	return ln
}

func TestConnectOverHTTP1(t *testing.T) {
	w := newWorld(t)
	w.tcpRoute()
	w.addPod("d/db", policytest.Web, shout(t, nil))
	open := func(target, first string) (*tls.Conn, *bufio.Reader, *http.Response) {
		conn := w.dialTLS("bank.example")
		fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n%s", target, target, first)
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
		if err != nil {
			t.Fatal(err)
		}
		return conn, in, res
	}
	conn, in, res := open("bank.example:5432", "hello\n") // with the first bytes of the stream
	if res.StatusCode != 200 || res.Header.Get("C8s-Workload") != "web" || res.Header.Get("C8s-Manifest") == "" {
		t.Fatal(res)
	}
	if line, err := in.ReadString('\n'); err != nil || line != "HELLO\n" {
		t.Fatal(line, err)
	}
	conn.CloseWrite() // half: the other direction goes on
	if rest, err := io.ReadAll(in); err != nil || string(rest) != "bye" {
		t.Errorf("%q %v", rest, err)
	}
	conn, in, _ = open("bank.example:5432", "reset\n")
	if rest, err := io.ReadAll(in); err == nil {
		t.Errorf("a backend that was reset looks complete: %q", rest)
	}
	conn.Close()
	for target, want := range map[string]int{"bank.example:5433": 404, "a.bank.example:5432": 421, "10.0.0.1:5432": 421, "bank.example": 404} {
		if _, _, res := open(target, ""); res.StatusCode != want {
			t.Errorf("%s: %d", target, res.StatusCode)
		}
	}
	// A workload that the manifest has for requests only.
	w = newWorld(t)
	w.tcpRoute()
	w.addPod("d/db", policytest.DB, shout(t, nil))
	if _, _, res := open("bank.example:5432", ""); res.StatusCode != 502 {
		t.Error(res.StatusCode)
	}
}

func TestConnectThatTheClientBreaksOffNeverLooksComplete(t *testing.T) {
	w := newWorld(t)
	w.tcpRoute()
	ends := make(chan error, 1)
	w.addPod("d/db", policytest.Web, shout(t, ends))
	for name, breakOff := range map[string]func(*tls.Conn){
		"in order":              func(c *tls.Conn) { c.Close() },
		"without the last word": func(c *tls.Conn) { c.NetConn().Close() },
		"by a reset": func(c *tls.Conn) {
			c.NetConn().(*net.TCPConn).SetLinger(0)
			c.NetConn().Close()
		},
	} {
		conn := w.dialTLS("bank.example")
		io.WriteString(conn, "CONNECT bank.example:5432 HTTP/1.1\r\nHost: bank.example:5432\r\n\r\nhello\n")
		in := bufio.NewReader(conn)
		if _, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect}); err != nil {
			t.Fatal(err)
		}
		if line, err := in.ReadString('\n'); err != nil || line != "HELLO\n" {
			t.Fatal(line, err)
		}
		breakOff(conn)
		if err := <-ends; (err == nil) != (name == "in order") {
			t.Errorf("%s: the backend saw the end %v", name, err)
		}
	}
	// In HTTP/2 a stream that is reset.
	f, buf, enc := w.framer()
	enc.WriteField(hpack.HeaderField{Name: ":method", Value: "CONNECT"})
	enc.WriteField(hpack.HeaderField{Name: ":authority", Value: "bank.example:5432"})
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: buf.Bytes(), EndHeaders: true})
	f.WriteData(1, false, []byte("hello\n"))
	for answered := false; !answered; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		_, answered = frame.(*http2.DataFrame)
	}
	f.WriteRSTStream(1, http2.ErrCodeCancel)
	if err := <-ends; err == nil {
		t.Error("a stream that was reset looks complete to the backend")
	}
}

func TestConnectOverHTTP2(t *testing.T) {
	w := newWorld(t)
	w.tcpRoute()
	w.addPod("d/db", policytest.Web, shout(t, nil))
	for last, want := range map[string]bool{"end": true, "reset": false} {
		f, buf, enc := w.framer()
		enc.WriteField(hpack.HeaderField{Name: ":method", Value: "CONNECT"})
		enc.WriteField(hpack.HeaderField{Name: ":authority", Value: "bank.example:5432"})
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: buf.Bytes(), EndHeaders: true})
		f.WriteData(1, false, []byte("hello\n"))
		got, status, complete := "", "", false
		for over := false; !over; {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch frame := frame.(type) {
			case *http2.MetaHeadersFrame:
				status = frame.PseudoValue("status")
			case *http2.DataFrame:
				if got += string(frame.Data()); got == "HELLO\n" {
					f.WriteData(1, last == "end", []byte(last+"\n"))
				}
				complete = frame.StreamEnded()
				over = complete
			case *http2.RSTStreamFrame:
				over = true
			}
		}
		if status != "200" || complete != want || want && got != "HELLO\nEND\nbye" {
			t.Errorf("%s: %s %q, complete: %v", last, status, got, complete)
		}
	}
}

func TestDrainWaitsForWhatRunsAndNoLonger(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.Drain = 300 * time.Millisecond })
	began, finish := make(chan struct{}, 3), make(chan struct{})
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ws":
			websocket.Handler(func(ws *websocket.Conn) { io.Copy(ws, ws) }).ServeHTTP(rw, r)
		case "/stuck":
			began <- struct{}{}
			<-r.Context().Done()
		default:
			began <- struct{}{}
			<-finish
			io.WriteString(rw, "done")
		}
	})))
	ws := w.websocket()
	type result struct {
		res  *http.Response
		body string
		err  error
	}
	ask := func(path string, c *http.Client) chan result {
		out := make(chan result, 1)
		go func() {
			res, err := c.Get("https://bank.example" + path)
			r := result{res: res, err: err}
			if err == nil {
				body, err := io.ReadAll(res.Body)
				r.body, r.err = string(body), err
				res.Body.Close()
			}
			out <- r
		}()
		return out
	}
	one, two := ask("/", w.client()), ask("/", w.client(h2))
	stuck := ask("/stuck", w.client())
	for range 3 { // two and the stuck one
		<-began
	}
	ended := make(chan struct{})
	go func() { w.stop(); close(ended) }()
	w.until("the listener to be closed", func() bool {
		conn, err := net.Dial("tcp", w.https.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(finish)
	for _, r := range []result{<-one, <-two} {
		if r.err != nil || r.body != "done" {
			t.Errorf("a request that was under way: %+v", r)
		} else if r.res.ProtoMajor == 1 && !r.res.Close {
			t.Error("HTTP/1.1 was not told that the connection ends")
		}
	}
	if r := <-stuck; r.err == nil && r.res.StatusCode == 200 {
		t.Errorf("a request that did not end: %+v", r)
	}
	if _, err := io.ReadAll(ws); isTimeout(err) {
		t.Error("the WebSocket lives")
	}
	<-ended
	if _, open := w.mesh.counts(); open != 0 {
		t.Errorf("%d connections into the mesh are left", open)
	}
	if n := w.server.clients.now(); n != 0 {
		t.Errorf("%d clients are counted", n)
	}
}

func TestHTTP3(t *testing.T) {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config) { c.Listen.QUIC, c.Limits.PerClient = udp, 1 })
	w.tcpRoute()
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	w.route(route.Config{Routes: []route.Route{to("web", route.HTTP, "bank.example")}})
	tr := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: w.certs.pool}}
	dialled := udp.LocalAddr().String()
	tr.Dial = http3Dial(dialled)
	defer tr.Close()
	c := &http.Client{Transport: tr}

	for path, has := range map[string]string{"/a": "HTTP/1.1 GET /a host=bank.example", "/.well-known/c8s": "own true"} {
		res, body := w.get(c, "https://bank.example"+path)
		if res.ProtoMajor != 3 || res.StatusCode != 200 || !strings.HasPrefix(body, has) || res.Header.Get("Alt-Svc") != "" {
			t.Errorf("%s: %s %d %s", path, res.Proto, res.StatusCode, body)
		}

	}

	res, err := c.Post("https://bank.example/", "text/plain", strings.NewReader(strings.Repeat("x", 100_000)))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if !strings.Contains(string(body), "len=100000") || res.Header.Get("C8s-Workload") != "web" {
		t.Errorf("%s", body)
	}
	other := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: w.certs.pool}, Dial: http3Dial(dialled)}
	defer other.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://bank.example/", nil)
	if _, err := other.RoundTrip(req); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Error("a second connection of a client:", err)
	}
	tr.Close()
	w.until("the place to be free", func() bool { return w.server.clients.now() == 0 })
	if res, _ := w.get(w.client(), "https://bank.example/"); res.Header.Get("Alt-Svc") != fmt.Sprintf(`h3=":%d"; ma=86400`, udp.LocalAddr().(*net.UDPAddr).Port) {
		t.Error(res.Header)
	}
}

func http3Dial(addr string) func(context.Context, string, *tls.Config, *quic.Config) (*quic.Conn, error) {
	return func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
		return quic.DialAddrEarly(ctx, addr, t, q)
	}
}

func TestExtendedConnectIsNoStreamOfBytes(t *testing.T) {
	for name, tt := range map[string]struct {
		r    http.Request
		want bool
	}{
		"HTTP/2":             {http.Request{ProtoMajor: 2, Proto: "HTTP/2.0", Header: http.Header{}}, false},
		"HTTP/3":             {http.Request{ProtoMajor: 3, Proto: "HTTP/3.0", Header: http.Header{}}, false},
		"RFC 8441, net/http": {http.Request{ProtoMajor: 2, Proto: "HTTP/2.0", Header: http.Header{":protocol": {"websocket"}}}, true},
		"RFC 9220, quic-go":  {http.Request{ProtoMajor: 3, Proto: "connect-udp", Header: http.Header{}}, true},
	} {
		tt.r.Method = http.MethodConnect
		if got := isExtended(&tt.r); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
