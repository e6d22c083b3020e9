// SPDX-License-Identifier: Apache-2.0

// Package relay stands between the two ends of a unix socket, so that a test
// can have their connections break at a moment of its choice.
package relay

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Relay passes on what comes.
type Relay struct {
	mu    sync.Mutex
	conns []net.Conn
}

// Start listens at from and passes connections on to the socket to, until the
// test ends.
func Start(t testing.TB, from, to string) *Relay {
	t.Helper()
	ln, err := net.Listen("unix", from)
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{}
	var accepting sync.WaitGroup
	accepting.Go(func() { r.accept(ln, to) })
	t.Cleanup(func() {
		ln.Close()
		accepting.Wait()
		r.Drop()
	})
	return r
}

func (r *Relay) accept(ln net.Listener, to string) {
	for {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("unix", to)
		if err != nil {
			in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		go pass(in, out)
		go pass(out, in)
	}
}

func pass(a, b net.Conn) {
	_, _ = io.Copy(a, b)
	a.Close()
	b.Close()
}

// Drop breaks all connections there are.
func (r *Relay) Drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}
