// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/c8s-dev/c8s/policy/policytest"
)

// rawBackend reads requests as strictly as it can, keeps what came byte for
// byte, and answers each.
type rawBackend struct {
	net.Listener
	mu  sync.Mutex
	got []byte
}

func newRawBackend(t testing.TB) *rawBackend {
	t.Helper()
	b := &rawBackend{Listener: listen(t)}
	go func() {
		for {
			conn, err := b.Accept()
			if err != nil {
				return
			}
			go b.answer(conn)
		}
	}()
	return b
}

func (b *rawBackend) answer(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(io.TeeReader(conn, b))
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// Write keeps what the backend read.
func (b *rawBackend) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, p...)
	return len(p), nil
}

// take returns what came since the last time.
func (b *rawBackend) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := string(b.got)
	b.got = nil
	return s
}

// requests counts the requests in what a backend read, apart from the last one
// of a test.
func requests(t *testing.T, text string) (n int) {
	t.Helper()
	in := bufio.NewReader(strings.NewReader(text))
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return n
		}
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/smuggled" {
			t.Errorf("a request was smuggled:\n%s", text)
		}
		if r.URL.Path != "/end" {
			n++
		}
	}
}

func TestNothingIsSmuggledByHTTP1(t *testing.T) {
	w := newWorld(t)
	b := newRawBackend(t)
	w.addPod("d/web", policytest.Web, b)
	const host = "Host: bank.example\r\n"
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: bank.example\r\n\r\n"
	for _, tc := range []struct {
		name, raw string
		reach     int      // requests that reach the backend
		absent    []string // in what it reads, lower case
		present   string
	}{
		{name: "plain", raw: "POST /a HTTP/1.1\r\n" + host + "Content-Length: 3\r\n\r\nabc", reach: 1, present: "content-length: 3\r\n"},
		{name: "CL.TE", raw: "POST /a HTTP/1.1\r\n" + host + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", reach: 1, absent: []string{"content-length: 6"}},
		{name: "TE.CL", raw: "POST /a HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n30\r\n" + smuggled + "\r\n0\r\n\r\n", absent: []string{"content-length: 4"}},
		{name: "two lengths", raw: "POST /a HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"},
		{name: "the same length twice", raw: "POST /a HTTP/1.1\r\n" + host + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", reach: 1, present: "content-length: 3\r\n"},
		{name: "signed length", raw: "POST /a HTTP/1.1\r\n" + host + "Content-Length: +3\r\n\r\nabc"},
		{name: "list of lengths", raw: "POST /a HTTP/1.1\r\n" + host + "Content-Length: 3, 3\r\n\r\nabc"},
		{name: "negative length", raw: "POST /a HTTP/1.1\r\n" + host + "Content-Length: -1\r\n\r\nabc"},
		{name: "strange coding", raw: "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
		{name: "two codings", raw: "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
		{name: "coding twice", raw: "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"},
		{name: "space before the colon", raw: "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
		{name: "folded header", raw: "GET /a HTTP/1.1\r\n" + host + "X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n", reach: 1, absent: []string{"\r\ntransfer-encoding", "\n transfer"}},
		{name: "folded length", raw: "POST /a HTTP/1.1\r\n" + host + "Content-Length:\r\n 3\r\n\r\nabc", absent: []string{"\n 3"}},
		{name: "bare CR in a header", raw: "GET /a HTTP/1.1\r\n" + host + "X-A: b\rTransfer-Encoding: chunked\r\n\r\n"},
		{name: "NUL in a header", raw: "GET /a HTTP/1.1\r\n" + host + "X-A: b\x00\r\n\r\n"},
		{name: "bad chunk size", raw: "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", absent: []string{"0x3"}},
		{name: "chunk without its end", raw: "POST /a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n", absent: []string{"xx"}},
		{name: "two hosts", raw: "GET /a HTTP/1.1\r\n" + host + "Host: shop.example\r\n\r\n"},
		{name: "absolute form of another host", raw: "GET https://shop.example/a HTTP/1.1\r\n" + host + "\r\n"},
		{name: "absolute form", raw: "GET https://bank.example/a HTTP/1.1\r\nHost: shop.example\r\n\r\n", reach: 1, absent: []string{"shop"}},
		{name: "HTTP/0.9", raw: "GET /a\r\n"},
		{name: "HTTP/1.0 without host", raw: "GET /a HTTP/1.0\r\n\r\n"},
		{name: "HTTP/3.0", raw: "GET /a HTTP/3.0\r\n" + host + "\r\n"},
		{name: "space in the target", raw: "GET /a HTTP/1.1\r\nX: y HTTP/1.1\r\n" + host + "\r\n", reach: 1},
		{name: "pipelined", raw: "GET /a HTTP/1.1\r\n" + host + "\r\nGET /b HTTP/1.1\r\n" + host + "\r\n", reach: 2},
		{name: "length hidden by Connection", raw: "POST /a HTTP/1.1\r\n" + host + "Connection: Content-Length\r\nContent-Length: 3\r\n\r\nabc", reach: 1, present: "content-length: 3\r\n"},
		{name: "host hidden by Connection", raw: "GET /a HTTP/1.1\r\n" + host + "Connection: Host, X-Forwarded-For\r\n\r\n", reach: 1, present: "x-forwarded-for: 127.0.0.1\r\n"},
		{name: "h2c upgrade", raw: "GET /a HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n", reach: 1, absent: []string{"upgrade", "http2-settings"}},
		{name: "websocket and h2c upgrade", raw: "GET /a HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", reach: 1, absent: []string{"upgrade"}},
		{name: "websocket with POST", raw: "POST /a HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n", reach: 1, absent: []string{"upgrade"}},
		{name: "websocket with a body", raw: "GET /a HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc", reach: 1, absent: []string{"upgrade"}},
		{name: "GET with a body", raw: "GET /a HTTP/1.1\r\n" + host + "Content-Length: 42\r\n\r\n" + smuggled[:42], reach: 1, present: "content-length: 42\r\n"},
		{name: "preface of HTTP/2", raw: http2.ClientPreface},
	} {
		b.take()
		conn := w.dialTLS("bank.example")
		io.WriteString(conn, tc.raw+"GET /end HTTP/1.1\r\nHost: bank.example\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(conn)
		conn.Close()
		got := b.take()
		if n := requests(t, got); n != tc.reach && (tc.reach > 0 || n > 1) {
			t.Errorf("%s: %d requests reached the backend:\n%s\n-> %s", tc.name, n, got, answer)
		}
		lower := strings.ToLower(got)
		for _, a := range tc.absent {
			if strings.Contains(lower, a) {
				t.Errorf("%s: %q reached the backend:\n%s", tc.name, a, got)
			}
		}
		if !strings.Contains(lower, tc.present) {
			t.Errorf("%s: %q did not reach the backend:\n%s\n-> %s", tc.name, tc.present, got, answer)
		}
	}
}

// framer speaks HTTP/2 frame by frame.
func (w *world) framer() (*http2.Framer, *bytes.Buffer, *hpack.Encoder) {
	w.Helper()
	conn := w.dialTLS2("bank.example")
	io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := f.WriteSettings(); err != nil {
		w.Fatal(err)
	}
	buf := &bytes.Buffer{}
	return f, buf, hpack.NewEncoder(buf)
}

func TestNothingIsSmuggledByHTTP2(t *testing.T) {
	w := newWorld(t)
	b := newRawBackend(t)
	w.addPod("d/web", policytest.Web, b)
	usual := []string{":method", "GET", ":scheme", "https", ":authority", "bank.example", ":path", "/a"}
	with := func(more ...string) []string { return append(append([]string{}, usual...), more...) }
	instead := func(name, value string) []string {
		list := with()
		for i := 0; i < len(list); i += 2 {
			if list[i] == name {
				list[i+1] = value
			}
		}
		return list
	}
	for _, tc := range []struct {
		name   string
		fields []string
		reach  int
	}{
		{"plain", usual, 1},
		{"line break in a value", with("x-a", "b\r\nTransfer-Encoding: chunked"), 0},
		{"line break in a name", with("x-a: b\r\nx-b", "c"), 0},
		{"line break in the path", instead(":path", "/a HTTP/1.1\r\nX: y"), 0},
		{"space in the path", instead(":path", "/a HTTP/1.1"), 1}, // encoded
		{"line break in the method", instead(":method", "GET /smuggled HTTP/1.1\r\nX: y"), 0},
		{"line break in the authority", instead(":authority", "bank.example\r\nX: y"), 0},
		{"user in the authority", instead(":authority", "user@bank.example"), 0},
		{"path without slash", instead(":path", "a"), 0},
		{"absolute path", instead(":path", "https://shop.example/"), 0},
		{"another host", instead(":authority", "shop.example"), 0},
		{"transfer-encoding", with("transfer-encoding", "chunked"), 0},
		{"connection", with("connection", "close"), 0},
		{"upgrade", with("upgrade", "h2c"), 0},
		{"upper case", with("X-A", "b"), 0},
		{"pseudo-header at the end", with("x-a", "b", ":path", "/b"), 0},
		{"pseudo-header twice", append([]string{":path", "/b"}, usual...), 0},
		{"unknown pseudo-header", append([]string{":x", "y"}, usual...), 0},
		{"pseudo-header of answers", append([]string{":status", "200"}, usual...), 0},
		{"no method", usual[2:], 0},
		{"extended CONNECT", append([]string{":protocol", "websocket"}, instead(":method", "CONNECT")...), 0},
		{"te other than trailers", with("te", "gzip"), 0},
		{"length of a body that does not come", with("content-length", "5"), 1}, // removed
		{"another Host header", with("host", "shop.example"), 1},                // :authority has the word, RFC 9113 section 8.3.1
	} {
		b.take()
		f, buf, enc := w.framer()
		for i := 0; i < len(tc.fields); i += 2 {
			enc.WriteField(hpack.HeaderField{Name: tc.fields[i], Value: tc.fields[i+1]})
		}
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: buf.Bytes(), EndHeaders: true, EndStream: true})
		for done := false; !done; {
			frame, err := f.ReadFrame()
			if err != nil {
				break
			}
			switch frame := frame.(type) {
			case *http2.RSTStreamFrame, *http2.GoAwayFrame:
				done = true
			case *http2.MetaHeadersFrame:
				done = frame.StreamEnded()
			case *http2.DataFrame:
				done = frame.StreamEnded()
			}
		}
		got := b.take()
		if n := requests(t, got); n != tc.reach || strings.Contains(got, "shop") || n == 1 && !strings.HasPrefix(strings.Replace(got, "%20HTTP/1.1", "", 1), "GET /a HTTP/1.1\r\nHost: bank.example\r\nForwarded") {
			t.Errorf("%s: %d requests reached the backend:\n%s", tc.name, n, got)
		}
	}
}

func TestRapidResetsEndTheConnection(t *testing.T) {
	w := newWorld(t)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })))
	f, buf, enc := w.framer()
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := f.ReadFrame(); err != nil {
				ended <- err
				return
			}
		}
	}()
	sent := 0
	for ; sent < 100_000 && len(ended) == 0; sent++ {
		buf.Reset()
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "bank.example"}, {":path", "/"}} {
			enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		id := uint32(2*sent + 1)
		if f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: buf.Bytes(), EndHeaders: true, EndStream: true}) != nil || f.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
	}
	if err := <-ended; isTimeout(err) {
		t.Errorf("the connection lives after %d requests: %v", sent, err)
	}
	if sent == 100_000 {
		t.Error("all requests were taken")
	}
}
