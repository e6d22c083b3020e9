// SPDX-License-Identifier: Apache-2.0

package external

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// helloOf is what crypto/tls sends first.
func helloOf(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		defer client.Close()
		_ = tls.Client(client, cfg).Handshake()
	}()
	if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var all []byte
	buf := make([]byte, MaxHello)
	for {
		n, err := server.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, buf[:n]...)
		var h Hello
		if complete, err := h.Feed(all); complete || err != nil {
			return all
		}
	}
}

// parts of a ClientHello, for those that no library sends.
type parts struct {
	exts       [][]byte
	compress   []byte
	noExts     bool
	records    int // fragments; 0: one
	typ        byte
	afterwards []byte
}

func ext(kind uint16, data ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
}

func sni(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, 0), byte(len(n)>>8), byte(len(n)))
		list = append(list, n...)
	}
	return ext(extServerName, append([]byte{byte(len(list) >> 8), byte(len(list))}, list...)...)
}

func (p parts) build() []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01)
	if p.compress == nil {
		p.compress = []byte{1, 0}
	}
	body = append(body, p.compress...)
	if !p.noExts {
		exts := bytes.Join(p.exts, nil)
		body = append(append(body, byte(len(exts)>>8), byte(len(exts))), exts...)
	}
	if p.typ == 0 {
		p.typ = typeClientHello
	}
	msg := append([]byte{p.typ, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
	msg = append(msg, p.afterwards...)
	var out []byte
	size := len(msg)/max(p.records, 1) + 1
	for len(msg) > 0 {
		n := min(size, len(msg))
		out = append(append(out, recordHandshake, 3, 1, byte(n>>8), byte(n)), msg[:n]...)
		msg = msg[n:]
	}
	return out
}

func TestHelloReadsWhatClientsSend(t *testing.T) {
	long := strings.Repeat("a.", 120) + "example"
	for name, tt := range map[string]struct {
		sent      []byte
		server    string
		encrypted bool
	}{
		"crypto/tls":          {helloOf(t, &tls.Config{ServerName: "API.Example.com"}), "api.example.com", false}, //nolint:gosec // no handshake
		"without a name":      {helloOf(t, &tls.Config{InsecureSkipVerify: true}), "", false},                     //nolint:gosec // no handshake
		"TLS 1.2":             {helloOf(t, &tls.Config{ServerName: "old.example.com", MaxVersion: tls.VersionTLS12}), "old.example.com", false},
		"no extensions":       {parts{noExts: true}.build(), "", false},
		"only others":         {parts{exts: [][]byte{ext(10, 0, 0)}}.build(), "", false},
		"in many records":     {parts{exts: [][]byte{sni("a.example.com")}, records: 40}.build(), "a.example.com", false},
		"a long name":         {parts{exts: [][]byte{sni(long)}}.build(), long, false},
		"encrypted":           {parts{exts: [][]byte{sni("outer.example.com"), ext(extECH, 0)}}.build(), "outer.example.com", true},
		"encrypted, unnamed":  {parts{exts: [][]byte{ext(extECH, 0)}}.build(), "", true},
		"encrypted, by draft": {parts{exts: [][]byte{ext(extESNI, 0)}}.build(), "", true},
		"more behind it":      {parts{exts: [][]byte{sni("a.example.com")}, afterwards: []byte{1, 2, 3}}.build(), "a.example.com", false},
	} {
		t.Run(name, func(t *testing.T) {
			var whole, bytewise Hello
			complete, err := whole.Feed(tt.sent)
			if err != nil || !complete {
				t.Fatalf("complete %t, %v", complete, err)
			}
			for i := range tt.sent {
				complete, err = bytewise.Feed(tt.sent[i : i+1])
				if err != nil {
					t.Fatalf("at byte %d: %v", i, err)
				}
				if complete {
					break
				}
			}
			for _, h := range []*Hello{&whole, &bytewise} {
				if h.ServerName != tt.server || h.Encrypted != tt.encrypted {
					t.Errorf("server %q, encrypted %t; want %q, %t", h.ServerName, h.Encrypted, tt.server, tt.encrypted)
				}
			}
			if !complete {
				t.Error("byte by byte it is never complete")
			}
		})
	}
}

func TestHelloRefusesWhatIsNone(t *testing.T) {
	good := parts{exts: [][]byte{sni("a.example.com")}}.build()
	edit := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	for name, sent := range map[string][]byte{
		"HTTP":              []byte("GET / HTTP/1.1\r\n"),
		"SSH":               []byte("SSH-2.0-x\r\n"),
		"SSLv2":             {0x80, 0x2e, 1, 0, 2},
		"zero":              make([]byte, 100),
		"alert":             edit(0, 21),
		"record's version":  edit(1, 2),
		"empty record":      {22, 3, 1, 0, 0},
		"huge record":       {22, 3, 1, 0x40, 1},
		"server's hello":    parts{typ: 2}.build(),
		"huge message":      {22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff},
		"two extensions":    parts{exts: [][]byte{sni("a.example.com"), sni("b.example.com")}}.build(),
		"two names":         parts{exts: [][]byte{sni("a.example.com", "b.example.com")}}.build(),
		"no name in it":     parts{exts: [][]byte{ext(extServerName, 0, 0)}}.build(),
		"empty name":        parts{exts: [][]byte{sni("")}}.build(),
		"another kind":      parts{exts: [][]byte{ext(extServerName, 0, 4, 9, 0, 1, 'a')}}.build(),
		"name with a zero":  parts{exts: [][]byte{sni("a.example.com\x00.evil")}}.build(),
		"name with a space": parts{exts: [][]byte{sni("a example.com")}}.build(),
		"name in UTF-8":     parts{exts: [][]byte{sni("ä.example.com")}}.build(),
		"cut extension":     parts{exts: [][]byte{{0, 0, 0, 9, 1}}}.build(),
		"no compression":    parts{compress: []byte{0}}.build(),
		"too big":           parts{exts: [][]byte{ext(21, make([]byte, MaxHello)...), sni("a.example.com")}, records: 2}.build(),
	} {
		t.Run(name, func(t *testing.T) {
			var h Hello
			complete, err := h.Feed(sent)
			if !errors.Is(err, ErrNotHello) || complete {
				t.Errorf("complete %t, %v", complete, err)
			}
		})
	}
	for n := range len(good) {
		var h Hello
		if complete, err := h.Feed(good[:n]); complete || err != nil {
			t.Fatalf("after %d of %d bytes: complete %t, %v", n, len(good), complete, err)
		}
	}
	// Fragments of one byte cost six each: the bound holds for them too.
	var h Hello
	var err error
	for err == nil {
		_, err = h.Feed([]byte{22, 3, 1, 0, 1, 1})
		if len(h.msg) > MaxHello {
			t.Fatal("it is never refused")
		}
	}
}

func FuzzHello(f *testing.F) {
	f.Add(helloOf(f, &tls.Config{ServerName: "api.example.com"}), 7) //nolint:gosec // no handshake
	f.Add(parts{exts: [][]byte{sni("a.example.com"), ext(extECH, 0)}, records: 3}.build(), 1)
	f.Add([]byte("GET / HTTP/1.1\r\n"), 3)
	f.Fuzz(func(t *testing.T, sent []byte, step int) {
		var whole, parts Hello
		complete, err := whole.Feed(sent)
		if complete && err != nil {
			t.Fatal("complete with an error")
		}
		// However the bytes come, the answer is the same.
		var piecewise bool
		var perr error
		step = max(step%64, 1)
		for rest := sent; len(rest) > 0 && !piecewise && perr == nil; {
			n := min(step, len(rest))
			piecewise, perr = parts.Feed(rest[:n])
			rest = rest[n:]
		}
		if piecewise != complete || (perr == nil) != (err == nil) {
			t.Fatalf("at once: %t, %v; in parts: %t, %v", complete, err, piecewise, perr)
		}
		if complete && (parts.ServerName != whole.ServerName || parts.Encrypted != whole.Encrypted) {
			t.Fatalf("at once %q, in parts %q", whole.ServerName, parts.ServerName)
		}
		if whole.ServerName != strings.ToLower(whole.ServerName) || len(whole.msg) > MaxHello {
			t.Fatalf("%q, %d bytes", whole.ServerName, len(whole.msg))
		}
		// What crypto/tls understands, and is named there, is understood here.
		if name, ok := heard(sent); ok && complete && !strings.EqualFold(name, whole.ServerName) {
			t.Fatalf("crypto/tls reads %q, this %q", name, whole.ServerName)
		}
	})
}

// heard is the server name that crypto/tls reads; ok says that it got so far.
func heard(sent []byte) (name string, ok bool) {
	conn := &readOnly{Reader: bytes.NewReader(sent)}
	_ = tls.Server(conn, &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) { //nolint:gosec // no handshake
		name, ok = info.ServerName, true
		return nil, errors.New("that is all")
	}}).Handshake()
	return name, ok
}

type readOnly struct {
	*bytes.Reader
	net.Conn
}

func (r *readOnly) Read(p []byte) (int, error)     { return r.Reader.Read(p) }
func (*readOnly) Write(p []byte) (int, error)      { return len(p), nil }
func (*readOnly) Close() error                     { return nil }
func (*readOnly) SetDeadline(time.Time) error      { return nil }
func (*readOnly) SetWriteDeadline(time.Time) error { return nil }
func (*readOnly) SetReadDeadline(time.Time) error  { return nil }
func (*readOnly) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*readOnly) LocalAddr() net.Addr              { return &net.TCPAddr{} }
