// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"io"
	"net"
	"testing"
)

// ways are those from this program to an application in another: a Conn, a
// relayed TCP connection as a pod's is, and a TCP connection without a tunnel.
func ways(b *testing.B, app string, fn func(b *testing.B, open func(b *testing.B) net.Conn)) {
	for _, way := range []string{"conn", "relay", "plain"} {
		b.Run("way="+way, func(b *testing.B) {
			back := startServer(b, app)
			if way == "plain" {
				fn(b, func(b *testing.B) net.Conn { return dialTCP(b, back) })
				return
			}
			m := newMesh(b, true, back)
			fn(b, func(b *testing.B) net.Conn {
				if way == "relay" {
					return dialTCP(b, m.front.Addr().String())
				}
				l, err := m.pool.Get(context.Background(), Key{Src: testHeader.Src.Addr(), Dst: testHeader.Dst.Addr()})
				if err != nil {
					b.Fatal(err)
				}
				return l.Tunnel.Open(testHeader, func(Result) { m.pool.Put(l) })
			})
		})
	}
}

// BenchmarkConnUpload writes 32 KiB at a time, as io.Copy does; an iteration is
// 1 MiB.
func BenchmarkConnUpload(b *testing.B) {
	ways(b, "sink", func(b *testing.B, open func(*testing.B) net.Conn) {
		c := open(b)
		defer c.Close()
		chunk := make([]byte, 32<<10)
		b.SetBytes(1 << 20)
		b.ReportAllocs()
		began := cpu()
		for b.Loop() {
			for range (1 << 20) / len(chunk) {
				if _, err := c.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric((cpu()-began).Seconds()/(float64(b.N)*(1<<20)/1e9), "cpu-s/GB")
	})
}

// BenchmarkConnDownload reads 32 KiB at a time.
func BenchmarkConnDownload(b *testing.B) {
	ways(b, "fount", func(b *testing.B, open func(*testing.B) net.Conn) {
		c := open(b)
		defer c.Close()
		chunk := make([]byte, 32<<10)
		b.SetBytes(1 << 20)
		b.ReportAllocs()
		began := cpu()
		for b.Loop() {
			for left := 1 << 20; left > 0; {
				n, err := c.Read(chunk[:min(len(chunk), left)])
				if left -= n; err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric((cpu()-began).Seconds()/(float64(b.N)*(1<<20)/1e9), "cpu-s/GB")
	})
}

// BenchmarkConnRequest is a request of 1 KB and its answer on one connection.
func BenchmarkConnRequest(b *testing.B) {
	ways(b, "echo", func(b *testing.B, open func(*testing.B) net.Conn) {
		c := open(b)
		defer c.Close()
		msg := make([]byte, 1024)
		b.ReportAllocs()
		began := cpu()
		for b.Loop() {
			if _, err := c.Write(msg); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, msg); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
	})
}

// BenchmarkConnRequests is 16 of them at once: what is gained where the machine
// is busy.
func BenchmarkConnRequests(b *testing.B) {
	ways(b, "echo", func(b *testing.B, open func(*testing.B) net.Conn) {
		b.SetParallelism(8)
		began := cpu()
		b.RunParallel(func(pb *testing.PB) {
			c := open(b)
			defer c.Close()
			msg := make([]byte, 1024)
			for pb.Next() {
				if _, err := c.Write(msg); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(c, msg); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
	})
}
