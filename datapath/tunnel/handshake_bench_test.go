// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"net"
	"testing"
)

// BenchmarkHandshakes is a new tunnel, from SYN to READY, with a server that has
// nothing else to do.
func BenchmarkHandshakes(b *testing.B) {
	client, server := testTLS(b)
	var bufs Buffers
	srv := NewServer(ServerConfig{Buffers: &bufs, Session: sessionOf(server)})
	ln := listenTCP(b)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	defer func() { cancel(); <-done }()
	for b.Loop() {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		tun, err := Dialed(b.Context(), c, client, &bufs)
		if err != nil {
			b.Fatal(err)
		}
		tun.Close()
	}
}
