// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// owner is a daemon with one listener.
type owner struct {
	t    *testing.T
	ln   *net.TCPListener
	path string
	srv  *Server
	done chan error

	memory []Memory

	mu     sync.Mutex
	events []string
	err    error // of Yield
}

func (o *owner) note(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, what)
}

func (o *owner) noted() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.events, " ")
}

func (o *owner) Pods() []Pod {
	return []Pod{{Info: json.RawMessage(`{"uid":"a"}`), Open: true}, {Info: json.RawMessage(`{"uid":"b"}`)}}
}

func (o *owner) Yield(context.Context) ([]Socket, error) {
	o.note("yield")
	f, err := o.ln.File()
	if err != nil {
		return nil, err
	}
	o.t.Cleanup(func() { f.Close() })
	o.mu.Lock()
	defer o.mu.Unlock()
	return []Socket{{"tcp4", f}}, o.err
}

func (o *owner) Memory(kinds []string) []Memory {
	o.note("memory of " + strings.Join(kinds, ","))
	return o.memory
}
func (o *owner) Resume() { o.note("resume") }
func (o *owner) Gone()   { o.note("gone") }

func newOwner(t *testing.T, change ...func(*owner)) *owner {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &owner{t: t, ln: ln.(*net.TCPListener), path: filepath.Join(t.TempDir(), "s"), done: make(chan error, 1)}
	o.srv = &Server{Owner: o, Release: "v1", Terms: Terms{"mark": "0x1", "ours": "x"}, UID: uint32(os.Geteuid()), Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(o)
	}
	socket, err := net.ListenUnix(Network, &net.UnixAddr{Name: o.path, Net: Network})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { o.done <- o.srv.Serve(ctx, socket) }()
	t.Cleanup(func() { cancel(); <-o.done; o.ln.Close() })
	return o
}

func (o *owner) ended() error {
	err := <-o.done
	o.done <- err
	return err
}

// waitNoted waits for the events, which follow what a successor sees.
func (o *owner) waitNoted(want string) {
	o.t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if o.noted() == want {
			return
		}
	}
	o.t.Fatalf("the owner went through %q, want %q", o.noted(), want)
}

func dial(t *testing.T, o *owner) *Successor {
	t.Helper()
	s, err := Dial(t.Context(), o.path, "v2", Terms{"mark": "0x1", "theirs": "y"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func take(t *testing.T, s *Successor) net.Listener {
	t.Helper()
	taken, err := s.Take()
	if err != nil {
		t.Fatal(err)
	}
	f := taken.Sockets["tcp4"]
	if len(taken.Sockets) != 1 || f == nil || len(taken.Pods) != 2 || len(taken.Memory) != 0 {
		t.Fatalf("got %+v", taken)
	}
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func TestSuccessorGetsPodsAndSockets(t *testing.T) {
	o := newOwner(t)
	waiting, err := net.Dial("tcp", o.ln.Addr().String()) // in the queue
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	s := dial(t, o)
	if s.Release != "v1" || !o.srv.Busy() {
		t.Errorf("release %q, busy %t", s.Release, o.srv.Busy())
	}
	for range 2 {
		pods, err := s.Pods()
		if err != nil || len(pods) != 2 || string(pods[0].Info) != `{"uid":"a"}` || !pods[0].Open || pods[1].Open {
			t.Fatalf("%v, %v", pods, err)
		}
	}
	ln := take(t, s)
	if err := s.Done(); err != nil {
		t.Fatal(err)
	}
	if err := o.ended(); err != nil {
		t.Error(err)
	}
	o.waitNoted("yield gone")
	o.ln.Close()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.RemoteAddr().String() != waiting.LocalAddr().String() {
		t.Errorf("accepted %s, want the connection that waited", conn.RemoteAddr())
	}
}

func TestOwnerGoesOnWhenTheSuccessorDoesNotConfirm(t *testing.T) {
	for name, fail := range map[string]func(*testing.T, *owner, *Successor){
		"dies before":  func(_ *testing.T, _ *owner, s *Successor) { s.Close() },
		"says nothing": func(*testing.T, *owner, *Successor) {},
		"says something else": func(t *testing.T, _ *owner, s *Successor) {
			if err := s.c.send(message{Op: opPods}); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwner(t, func(o *owner) { o.srv.Confirm = 50 * time.Millisecond })
			s := dial(t, o)
			take(t, s)
			fail(t, o, s)
			o.waitNoted("yield resume")
			if err := s.Done(); name != "dies before" && (err == nil || errors.Is(err, ErrOwnerGone)) {
				t.Errorf("too late, and it was told %v", err)
			}
			again := dial(t, o)
			take(t, again)
			if err := again.Done(); err != nil {
				t.Error(err)
			}
			o.waitNoted("yield resume yield gone")
		})
	}
}

func TestOwnerThatCannotYieldRefuses(t *testing.T) {
	o := newOwner(t, func(o *owner) { o.err = errors.New("the plugin is stuck") })
	s := dial(t, o)
	if _, err := s.Take(); err == nil || errors.Is(err, ErrOwnerGone) || !strings.Contains(err.Error(), "the plugin is stuck") {
		t.Errorf("%v", err)
	}
	o.waitNoted("yield")
}

// A successor that was stopped for a while must not take the owner, which has
// hung up on it, for dead.
func TestOwnerThatHearsNothingRefuses(t *testing.T) {
	o := newOwner(t, func(o *owner) { o.srv.Silence = 20 * time.Millisecond })
	s := dial(t, o)
	for end := time.Now().Add(10 * time.Second); o.srv.Busy(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the owner waits for ever")
		}
	}
	if _, err := s.Pods(); err == nil || errors.Is(err, ErrOwnerGone) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
}

func TestOneSuccessorAtATime(t *testing.T) {
	o := newOwner(t)
	first := dial(t, o)
	if _, err := Dial(t.Context(), o.path, "v3", nil); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("%v", err)
	}
	first.Close()
	for end := time.Now().Add(10 * time.Second); o.srv.Busy(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the first successor has gone and is still waited for")
		}
	}
	dial(t, o)
}

func TestTermsMustBeShared(t *testing.T) {
	o := newOwner(t)
	_, err := Dial(t.Context(), o.path, "v2", Terms{"mark": "0x2"})
	if err == nil || !strings.Contains(err.Error(), "mark is 0x1 here and 0x2 there") {
		t.Errorf("%v", err)
	}
}

func TestVersionsAreNegotiated(t *testing.T) {
	for _, tt := range []struct {
		versions []int
		agreed   bool
	}{{[]int{Version}, true}, {[]int{Version + 1, Version}, true}, {[]int{Version + 1}, false}, {nil, false}} {
		o := newOwner(t)
		c, err := connect(t.Context(), o.path, uint32(os.Geteuid()))
		if err != nil {
			t.Fatal(err)
		}
		s := &Successor{c: c}
		m, _, err := s.ask(message{Op: opHello, Versions: tt.versions}, opHello)
		if (err == nil) != tt.agreed || err == nil && m.Version != Version {
			t.Errorf("%v: %+v, %v", tt.versions, m, err)
		}
		s.Close()
	}
}

func TestNobodyThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := Dial(t.Context(), path, "v2", nil); !errors.Is(err, ErrNobody) {
		t.Errorf("no socket: %v", err)
	}
	ln, err := net.ListenUnix(Network, &net.UnixAddr{Name: path, Net: Network})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if _, err := Dial(t.Context(), path, "v2", nil); !errors.Is(err, ErrNobody) {
		t.Errorf("a dead daemon's socket: %v", err)
	}
}

// An owner that dies between Take and Done leaves the node to the successor.
func TestSuccessorOutlivesTheOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix(Network, &net.UnixAddr{Name: path, Net: Network})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan *conn, 1)
	go func() {
		uc, err := ln.AcceptUnix()
		if err != nil {
			t.Error(err)
		}
		c := &conn{uc}
		for _, answer := range []message{{Op: opHello, Version: Version}, {Op: opSockets}} {
			if _, _, err := c.receive(); err != nil {
				t.Error(err)
			}
			if err := c.send(answer); err != nil {
				t.Error(err)
			}
		}
		accepted <- c
	}()
	s, err := Dial(t.Context(), path, "v2", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Take(); err != nil {
		t.Fatal(err)
	}
	(<-accepted).Close()
	if err := s.Done(); err != nil {
		t.Error(err)
	}
	if _, err := s.Pods(); !errors.Is(err, ErrOwnerGone) {
		t.Errorf("%v", err)
	}
}

func TestEndOfTheOwnerEndsItsSessions(t *testing.T) {
	o := newOwner(t)
	socket, err := net.ListenUnix(Network, &net.UnixAddr{Name: o.path + "2", Net: Network})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	srv := &Server{Owner: o, UID: o.srv.UID, Log: o.srv.Log}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, socket) }()
	s, err := Dial(t.Context(), o.path+"2", "v2", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := s.Pods(); !errors.Is(err, ErrOwnerGone) {
		t.Errorf("%v", err)
	}
}

func TestStrayDescriptorsAreClosed(t *testing.T) {
	o := newOwner(t)
	c, err := connect(t.Context(), o.path, uint32(os.Geteuid()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := c.send(message{Op: opHello, Versions: []int{Version}}, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the owner keeps a descriptor it did not ask for: %v", err)
	}
}

func TestOversizedMessagesAreNotSent(t *testing.T) {
	o := newOwner(t)
	c, err := connect(t.Context(), o.path, uint32(os.Geteuid()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.send(message{Op: opRefused, Why: strings.Repeat("x", maxMessage)}); err == nil {
		t.Error("sent")
	}
	if _, err := c.WriteToUnix([]byte(fmt.Sprintf("%0*d", maxMessage+10, 1)), nil); err == nil {
		if _, _, err := c.receive(); err == nil {
			t.Error("the owner answered an oversized message")
		}
	}
}
