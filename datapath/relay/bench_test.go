// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"io"
	"testing"
)

// The numbers are in docs/datapath.md.
func BenchmarkBulk(b *testing.B) {
	s := newScene(b, "127.0.0.1")
	chunk := make([]byte, 256<<10)
	b.SetBytes(int64(len(chunk)))
	go func() {
		for range b.N {
			if _, err := s.client.Write(chunk); err != nil {
				return
			}
		}
	}()
	if _, err := io.CopyN(io.Discard, s.server, int64(b.N)*int64(len(chunk))); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkRequest1KB(b *testing.B) {
	s := newScene(b, "127.0.0.1")
	go func() {
		buf := make([]byte, 1024)
		for {
			if _, err := io.ReadFull(s.server, buf); err != nil {
				return
			}
			if _, err := s.server.Write(buf); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.client.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(s.client, buf); err != nil {
			b.Fatal(err)
		}
	}
}
