// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mesh is two daemons' relays in one process: applications dial front, their
// bytes cross a tunnel, and arrive at the application that listens at back.
type mesh struct {
	front *net.TCPListener
	pool  *Pool
}

func newMesh(tb testing.TB, useTLS bool, back string) *mesh {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	bufs := &Buffers{Budget: NewBudget(1<<30, 64<<20)}
	var cfg ServerConfig
	var clientTLS, serverTLS *tls.Config
	if useTLS {
		clientTLS, serverTLS = testTLS(tb)
	}
	cfg.Session = func() (*tls.Config, any) { return serverTLS, nil }
	cfg.Buffers = bufs
	cfg.Accept = func(ctx context.Context, _ *Tunnel, h Header) (App, func(Result), Reason) {
		c, err := tryDial(back)
		if err != nil {
			return nil, nil, ReasonConnectionRefused
		}
		return c, func(Result) {}, 0
	}
	ln := listenTCP(tb)
	srv := NewServer(cfg)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ctx, ln) })
	m := &mesh{front: listenTCP(tb)}
	m.pool = NewPool(PoolConfig{Now: time.Now, Dial: func(ctx context.Context, _ Key) (*Tunnel, Meta, error) {
		c, err := tryDial(ln.Addr().String())
		if err != nil {
			return nil, Meta{}, err
		}
		t, err := Dialed(ctx, c, clientTLS, bufs)
		return t, Meta{NotAfter: time.Now().Add(time.Hour)}, err
	}})
	wg.Go(func() { m.pool.Run(ctx) })
	wg.Go(func() {
		for {
			app, err := m.front.AcceptTCP()
			if err != nil {
				return
			}
			wg.Go(func() { m.carry(ctx, app) })
		}
	})
	tb.Cleanup(func() {
		cancel()
		ln.Close()
		m.front.Close()
		wg.Wait()
	})
	return m
}

func (m *mesh) carry(ctx context.Context, app *net.TCPConn) {
	l, err := m.pool.Get(ctx, Key{Src: testHeader.Src.Addr(), Dst: testHeader.Dst.Addr()})
	if err != nil {
		abort(app)
		return
	}
	l.Tunnel.Relay(app, testHeader)
	m.pool.Put(l)
}

func cpu() time.Duration {
	var ru syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func forEachWire(b *testing.B, fn func(b *testing.B, useTLS bool)) {
	for _, useTLS := range []bool{false, true} {
		b.Run(map[bool]string{false: "wire=tcp", true: "wire=tls"}[useTLS], func(b *testing.B) { fn(b, useTLS) })
	}
}

// BenchmarkBulk moves 1 MiB an iteration over long connections.
func BenchmarkBulk(b *testing.B) {
	for _, flows := range []int{1, 8} {
		b.Run(fmt.Sprintf("flows=%d", flows), func(b *testing.B) {
			forEachWire(b, func(b *testing.B, useTLS bool) { benchBulk(b, useTLS, flows) })
		})
	}
}

func benchBulk(b *testing.B, useTLS bool, flows int) {
	m := newMesh(b, useTLS, startServer(b, "sink"))
	b.SetBytes(1 << 20)
	b.ResetTimer()
	began := cpu()
	_, wait := startApp(b, "source", m.front.Addr(), flows, b.N*4)
	wait()
	b.StopTimer()
	b.ReportMetric((cpu()-began).Seconds()/(float64(b.N)*(1<<20)/1e9), "cpu-s/GB")
}

// BenchmarkRequests is closed-loop 1 KB requests with 1 KB answers.
func BenchmarkRequests(b *testing.B) {
	for _, conns := range []int{1, 16} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			forEachWire(b, func(b *testing.B, useTLS bool) {
				benchRequests(b, newMesh(b, useTLS, startServer(b, "echo")), conns, "keep")
			})
		})
	}
}

// BenchmarkConnections is connect, 1 KB request and answer, close; pool warm.
func BenchmarkConnections(b *testing.B) {
	forEachWire(b, func(b *testing.B, useTLS bool) {
		m := newMesh(b, useTLS, startServer(b, "echo"))
		_, warm := startApp(b, "requests", m.front.Addr(), 8, 400, "reconnect")
		warm()
		b.ResetTimer()
		before := m.pool.Stats().Dials
		benchRequests(b, m, 8, "reconnect")
		b.ReportMetric(float64(m.pool.Stats().Dials-before), "handshakes")
	})
}

func benchRequests(b *testing.B, m *mesh, conns int, mode string) {
	b.ResetTimer()
	began := cpu()
	out, wait := startApp(b, "requests", m.front.Addr(), conns, b.N, mode)
	text, err := out.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	wait()
	ns, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/(float64(ns)/1e9), "req/s")
	b.ReportMetric(float64((cpu()-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// BenchmarkIdleMemory reports what one idle established connection costs
// both daemons, after it carried one request and after it carried 1 MiB.
func BenchmarkIdleMemory(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("after=%d", size), func(b *testing.B) {
			forEachWire(b, func(b *testing.B, useTLS bool) {
				worst := 0.0
				for range b.N {
					worst = max(worst, idleMemory(b, useTLS, size))
				}
				b.ReportMetric(worst, "KB/conn")
			})
		})
	}
}

func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func idleMemory(b *testing.B, useTLS bool, size int) float64 {
	const conns = 500
	back := listenTCP(b)
	held := make(chan net.Conn, conns)
	go func() {
		buf := make([]byte, size)
		for {
			c, err := back.AcceptTCP()
			if err != nil {
				return
			}
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Error(err)
			}
			if _, err := c.Write(buf); err != nil {
				b.Error(err)
			}
			held <- c
		}
	}()
	m := newMesh(b, useTLS, back.Addr().String())
	before := memory()
	cs := make([]net.Conn, conns)
	buf := make([]byte, size)
	for i := range cs {
		c := dialTCP(b, m.front.Addr().String())
		go c.Write(buf)
		if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
			b.Fatal(err)
		}
		cs[i] = c
	}
	after := memory()
	for _, c := range cs {
		c.Close()
		(<-held).Close()
	}
	return float64(after-before) / conns / 1000
}
