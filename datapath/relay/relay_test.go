// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/tunnel"
)

// scene is a link between two applications.
type scene struct {
	client, server *net.TCPConn
	link           *Link
	result         chan tunnel.Result
}

func newScene(t testing.TB, host string) *scene {
	t.Helper()
	return newSceneOn(t, host, new(Pool))
}

func newSceneOn(t testing.TB, host string, pool *Pool) *scene {
	t.Helper()
	s := &scene{result: make(chan tunnel.Result, 1)}
	var near, far *net.TCPConn
	s.client, near = tcpPair(t, host)
	far, s.server = tcpPair(t, host)
	s.link = pool.Join("", near, far)
	go func() { s.result <- s.link.Run() }()
	t.Cleanup(func() {
		s.link.End(tunnel.Ending{Reason: tunnel.ReasonShutdown})
		s.client.Close()
		s.server.Close()
		pool.Close()
	})
	return s
}

func tcpPair(t testing.TB, host string) (dialled, accepted *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	must(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	a, err := ln.Accept()
	must(t, err)
	deadline := time.Now().Add(30 * time.Second)
	must(t, errors.Join(c.SetDeadline(deadline), a.SetDeadline(deadline)))
	return c.(*net.TCPConn), a.(*net.TCPConn)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scene) want(t *testing.T, reason tunnel.Reason) tunnel.Result {
	t.Helper()
	select {
	case r := <-s.result:
		if r.Reason != reason {
			t.Errorf("the link ended with %q, want %q", r.Reason, reason)
		}
		s.result <- r
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("the link does not end")
		return tunnel.Result{}
	}
}

// wantReset reads up to a reset. A side that has read the other's end before
// sees it when it writes.
func wantReset(t *testing.T, c *net.TCPConn, ended bool) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	for ended && err == nil {
		_, err = c.Write([]byte("x"))
	}
	if !errors.Is(err, syscall.ECONNRESET) && (!ended || !errors.Is(err, syscall.EPIPE)) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestBytesArriveWholeAndInOrder(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, size := range []int{1, copySize - 1, copySize, copySize + 1, 100_000, 8 << 20} {
			s := newScene(t, host)
			data := make([]byte, size)
			_, _ = rand.Read(data)
			go func() {
				_, _ = s.client.Write(data)
				_ = s.client.CloseWrite()
			}()
			// The answer begins when the end of the request has arrived.
			got, err := io.ReadAll(s.server)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d bytes over %s: %d arrived, %v", size, host, len(got), err)
			}
			go func() {
				_, _ = s.server.Write(data[:size/2])
				_ = s.server.Close()
			}()
			if got, err := io.ReadAll(s.client); err != nil || !bytes.Equal(got, data[:size/2]) {
				t.Fatalf("%d bytes came back, want %d, %v", len(got), size/2, err)
			}
			if r := s.want(t, tunnel.ReasonNone); r.Sent != int64(size) || r.Received != int64(size/2) || s.link.Moved() != r.Sent+r.Received {
				t.Errorf("counted %+v", r)
			}
		}
	}
}

func TestMessagesAlternateWithBulk(t *testing.T) {
	s := newScene(t, "127.0.0.1")
	for i := range 50 {
		data := bytes.Repeat([]byte{byte(i)}, 1+i%5*40_000)
		go func() { _, _ = s.client.Write(data) }()
		got := make([]byte, len(data))
		if _, err := io.ReadFull(s.server, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("message %d: %v", i, err)
		}
	}
}

func TestResetsReachTheOtherSide(t *testing.T) {
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, s *scene)
		resets  func(s *scene) *net.TCPConn
		sees    func(s *scene) *net.TCPConn
	}{
		"of the client":                    {func(*testing.T, *scene) {}, func(s *scene) *net.TCPConn { return s.client }, func(s *scene) *net.TCPConn { return s.server }},
		"of the server":                    {func(*testing.T, *scene) {}, func(s *scene) *net.TCPConn { return s.server }, func(s *scene) *net.TCPConn { return s.client }},
		"of a client that finished":        {halfClosed, func(s *scene) *net.TCPConn { return s.client }, func(s *scene) *net.TCPConn { return s.server }},
		"of a client whose bytes wait":     {stalled, func(s *scene) *net.TCPConn { return s.client }, nil},
		"of the server while bytes wait":   {stalled, func(s *scene) *net.TCPConn { return s.server }, func(s *scene) *net.TCPConn { return s.client }},
		"of the server after a half-close": {halfClosed, func(s *scene) *net.TCPConn { return s.server }, func(s *scene) *net.TCPConn { return s.client }},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "127.0.0.1")
			tt.arrange(t, s)
			c := tt.resets(s)
			must(t, c.SetLinger(0))
			must(t, c.Close())
			if tt.sees != nil {
				wantReset(t, tt.sees(s), name == "of a client that finished")
				s.want(t, tunnel.ReasonReset)
				return
			}
			s.want(t, tunnel.ReasonStalled)
			wantReset(t, s.server, false)
		})
	}
}

func halfClosed(t *testing.T, s *scene) {
	t.Helper()
	must(t, s.client.CloseWrite())
	if _, err := s.server.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
}

// stalled fills everything between the client and a server that does not read.
func stalled(t *testing.T, s *scene) {
	t.Helper()
	chunk := make([]byte, 1<<20)
	for last := int64(-1); ; {
		must(t, s.client.SetWriteDeadline(time.Now().Add(300*time.Millisecond)))
		_, err := s.client.Write(chunk)
		if moved := s.link.Moved(); errors.Is(err, os.ErrDeadlineExceeded) {
			if moved == last {
				return
			}
			last = moved
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestSlowReaderHoldsTheWriterBack(t *testing.T) {
	s := newScene(t, "127.0.0.1")
	stalled(t, s)
	before := s.link.Moved()
	must(t, s.client.SetDeadline(time.Now().Add(30*time.Second)))
	go func() { _ = s.client.CloseWrite() }()
	n, err := io.Copy(io.Discard, s.server)
	if err != nil || n < before {
		t.Errorf("after the stall %d bytes arrived, of which %d were on their way: %v", n, before, err)
	}
	must(t, s.server.Close())
	s.want(t, tunnel.ReasonNone)
}

func TestEndResetsBothSidesAndSaysWhy(t *testing.T) {
	for name, arrange := range map[string]func(*testing.T, *scene){"idle": func(*testing.T, *scene) {}, "half-closed": halfClosed, "stalled": stalled} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, "127.0.0.1")
			arrange(t, s)
			why := errors.New("the manifest")
			s.link.End(tunnel.Ending{Reason: tunnel.ReasonPolicyChanged, Why: why})
			s.link.End(tunnel.Ending{Reason: tunnel.ReasonIdle})
			wantReset(t, s.client, false)
			wantReset(t, s.server, name == "half-closed")
			if r := s.want(t, tunnel.ReasonPolicyChanged); !errors.Is(r.Why, why) {
				t.Errorf("why: %v", r.Why)
			}
		})
	}
}

func TestIdleLinksHoldNoBufferAndNoPipe(t *testing.T) {
	s := newScene(t, "127.0.0.1")
	const bulk = 4 << 20
	go func() { _, _ = s.client.Write(make([]byte, bulk)) }()
	_, err := io.CopyN(io.Discard, s.server, bulk)
	must(t, err)
	must(t, s.server.CloseWrite()) // ends one direction; the other waits
	_, err = s.client.Read(make([]byte, 1))
	if err != io.EOF {
		t.Fatal(err)
	}
	must(t, s.client.CloseWrite())
	s.want(t, tunnel.ReasonNone)
	for _, h := range []held{s.link.up.held, s.link.down.held} {
		if h.buf != nil || h.pipe != nil || h.n != 0 {
			t.Errorf("held: %+v", h)
		}
	}
	pool := s.link.up.held.from
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if len(pool.free) == 0 {
		t.Error("bulk data did not use a pipe, or it was not given back")
	}
}

func TestLinksOverTheirBudgetCopyInSmallBuffers(t *testing.T) {
	pool := Pool{Budget: tunnel.NewBudget(0, 0)}
	s := newSceneOn(t, "127.0.0.1", &pool)
	data := make([]byte, 3_000_003)
	_, _ = rand.Read(data)
	go func() {
		_, _ = s.client.Write(data)
		_ = s.client.CloseWrite()
	}()
	got, err := io.ReadAll(s.server)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes arrived, %v", len(got), err)
	}
	must(t, s.server.Close())
	s.want(t, tunnel.ReasonNone)
	if len(pool.free) != 0 || pool.Budget.Refused() == 0 {
		t.Errorf("%d pipes, %d refusals", len(pool.free), pool.Budget.Refused())
	}
}

func TestStalledLinksHoldNoMoreThanTheirBudget(t *testing.T) {
	const room = 2*pipeSize + copySize
	pool := Pool{Budget: tunnel.NewBudget(1<<30, room)}
	var all []*scene
	for range 6 {
		s := newSceneOn(t, "127.0.0.1", &pool)
		stalled(t, s)
		all = append(all, s)
	}
	if used := pool.Budget.Used(); used > room || used < pipeSize {
		t.Errorf("%d bytes are held, of %d", used, room)
	}
	for _, s := range all {
		before := s.link.Moved()
		deadline := time.Now().Add(30 * time.Second)
		must(t, errors.Join(s.client.SetDeadline(deadline), s.server.SetDeadline(deadline), s.client.CloseWrite()))
		if n, err := io.Copy(io.Discard, s.server); err != nil || n < before {
			t.Errorf("after the stall %d bytes arrived, of which %d were on their way: %v", n, before, err)
		}
		must(t, s.server.Close())
		s.want(t, tunnel.ReasonNone)
	}
	if used := pool.Budget.Used(); used != 0 {
		t.Errorf("%d bytes are held by nobody", used)
	}
}
