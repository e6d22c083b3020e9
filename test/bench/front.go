// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/test/bench/load"
	"github.com/c8s-dev/c8s/test/lab"
)

const (
	webHost = "bank.example"
	webPort = 8080

	edgeHost = "edge" // where proxies of the web are
	userHost = "user" // where clients are

	smallSize = 1 << 10
	bigSize   = 1 << 30
	eventSize = 15 // "data: an event\n"
)

// front is a way to a web server in a pod.
type front struct {
	client  *lab.NS
	addr    netip.AddrPort
	backend netip.AddrPort // the web server; set where others in the mesh are to reach it
	plain   bool           // without TLS
	proxy   []int          // processes that end TLS
	daemons []int          // of the mesh
}

// dial connects, with a handshake in full. Who answers is not verified: that
// would be the generator's work and not the proxy's. The key exchange is one
// that all have.
func (f *front) dial(protocol string) load.Dial {
	config := &tls.Config{
		ServerName: webHost, NextProtos: []string{protocol}, MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519},
		InsecureSkipVerify: true,
	}
	return func(ctx context.Context) (net.Conn, error) {
		conn, err := f.client.Dial(ctx, "tcp", f.addr.String())
		if err != nil || f.plain {
			return conn, err
		}
		c := tls.Client(conn, config)
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		if got := c.ConnectionState().NegotiatedProtocol; got != protocol {
			return nil, errors.Join(errors.New("the proxy speaks "+strconv.Quote(got)+", want "+protocol), c.Close())
		}
		return c, nil
	}
}

// serveWeb is the backend: small answers, a big one, and a short stream.
func serveWeb(ctx context.Context, in *lab.NS, at netip.AddrPort) error {
	ln, err := in.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	small, chunk := make([]byte, smallSize), make([]byte, 256<<10)
	mux := http.NewServeMux()
	mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(small)))
		_, _ = w.Write(small) // who does not get it complains
	})
	mux.HandleFunc("/big", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(bigSize))
		for left := bigSize; left > 0; left -= len(chunk) {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no") // what nginx wants to hear
		_, _ = w.Write([]byte("data: an event\n"))
		_ = http.NewResponseController(w).Flush()
		select { // a stream: its end does not come with its beginning
		case <-r.Context().Done():
		case <-time.After(2 * time.Millisecond):
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { server.Close() })
	go func() { _ = server.Serve(ln) }()
	return nil
}

// family is a process and its children.
func family(pid int) []int {
	all := []int{pid}
	p := strconv.Itoa(pid)
	raw, _ := os.ReadFile("/proc/" + p + "/task/" + p + "/children")
	for _, child := range strings.Fields(string(raw)) {
		if n, err := strconv.Atoi(child); err == nil {
			all = append(all, n)
		}
	}
	return all
}
