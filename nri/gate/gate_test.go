// SPDX-License-Identifier: Apache-2.0

package gate_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/policy"
)

// judge answers by what a test put into it; nil allows.
type judge struct {
	create func(context.Context, gate.CreateRequest) error
	exec   func(context.Context, gate.ExecRequest) error
	lock   func(context.Context, gate.LockRequest) error
}

func (j judge) Create(ctx context.Context, r gate.CreateRequest) error { return call(ctx, j.create, r) }

func (j judge) Exec(ctx context.Context, r gate.ExecRequest) error { return call(ctx, j.exec, r) }

func (j judge) Lock(ctx context.Context, r gate.LockRequest) error { return call(ctx, j.lock, r) }

func call[R any](ctx context.Context, f func(context.Context, R) error, r R) error {
	if f == nil {
		return nil
	}
	return f(ctx, r)
}

func uid() uint32 { return uint32(os.Geteuid()) }

func listen(t *testing.T) (*net.UnixListener, gate.Client) {
	t.Helper()
	dir := t.TempDir()
	ln, err := gate.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln, gate.Client{Path: filepath.Join(dir, gate.SocketName), UID: uid()}
}

// serve runs a server until the test or the returned function ends it.
func serve(t *testing.T, ln net.Listener, j gate.Judge, drain time.Duration) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := &gate.Server{Judge: j, UID: uid(), Drain: drain, Log: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve = %v, want the end of its context", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestQuestionsArriveWholeAndAnswersToo(t *testing.T) {
	refusal := policy.Decision{Code: "some-code", Rule: "rule", Expected: "this", Actual: "that", Remedy: "do"}
	create := gate.CreateRequest{ID: "c1", Namespace: "k8s.io", Config: []byte("{\"a\": \"\u2028 \\u0000\"}\n"), Passwd: []byte("root:x:0:0")}
	exec := gate.ExecRequest{ID: "c2", Namespace: "k8s.io", Process: []byte("{}"), Config: []byte{0xff, 0}}
	lock := gate.LockRequest{
		NetNS: "/run/netns/x", Interface: "eth0", HostInterface: "veth1", SandboxID: "s",
		PodNamespace: "n", PodName: "p", PodUID: "u", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64")},
	}
	ln, client := listen(t)
	serve(t, ln, judge{
		create: func(_ context.Context, r gate.CreateRequest) error { return same(r, create, nil) },
		exec:   func(_ context.Context, r gate.ExecRequest) error { return same(r, exec, refusal) },
		lock:   func(_ context.Context, r gate.LockRequest) error { return same(r, lock, errors.New("no such link")) },
	}, 0)
	ctx := t.Context()
	if err := errors.Join(client.Ping(ctx), client.Create(ctx, create)); err != nil {
		t.Error(err)
	}
	var d policy.Decision
	if err := client.Exec(ctx, exec); !errors.As(err, &d) || d != refusal {
		t.Errorf("Exec = %v, want the judge's own decision", err)
	}
	if err := client.Lock(ctx, lock); policy.CodeOf(err) != gate.CodeUnanswered || !strings.Contains(err.Error(), "no such link") {
		t.Errorf("Lock = %v, want a refusal with the reason", err)
	}
}

func same(got, want any, answer error) error {
	if !reflect.DeepEqual(got, want) {
		return errors.New("the question was changed on its way")
	}
	return answer
}

func TestAJudgeThatPanicsRefusesAndTheGateGoesOn(t *testing.T) {
	ln, client := listen(t)
	serve(t, ln, judge{create: func(context.Context, gate.CreateRequest) error { panic("bug") }}, 0)
	if err := client.Create(t.Context(), gate.CreateRequest{}); policy.CodeOf(err) != gate.CodeUnanswered {
		t.Errorf("Create = %v", err)
	}
	if err := client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNoDaemonIsOnlyWhenNobodyListens: alone this error lets the caller judge
// by itself.
func TestNoDaemonIsOnlyWhenNobodyListens(t *testing.T) {
	missing := gate.Client{Path: filepath.Join(t.TempDir(), "none"), UID: uid()}
	if err := missing.Ping(t.Context()); !errors.Is(err, gate.ErrNoDaemon) {
		t.Errorf("without a socket: %v", err)
	}
	ln, left := listen(t)
	ln.Close()
	if err := left.Ping(t.Context()); !errors.Is(err, gate.ErrNoDaemon) {
		t.Errorf("at a dead daemon's socket: %v", err)
	}
	file := gate.Client{Path: filepath.Join(t.TempDir(), "file", "x"), UID: uid()}
	if err := os.WriteFile(filepath.Dir(file.Path), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := file.Ping(t.Context()); err == nil || errors.Is(err, gate.ErrNoDaemon) {
		t.Errorf("below a file: %v", err)
	}
}

// TestNothingButAWholeYesAllows lets daemons fail in every way after they were
// reached.
func TestNothingButAWholeYesAllows(t *testing.T) {
	message := func(body string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(body)))) + body
	}
	yes := `{"allowed":true,"decision":{"allowed":true,"code":"allowed"}}`
	for name, tc := range map[string]struct {
		answer string
		hang   bool
		ok     bool
	}{
		"yes":                   {answer: message(yes), ok: true},
		"dies at once":          {},
		"dies within the size":  {answer: "\x00\x00"},
		"dies within the words": {answer: message(yes)[:20]},
		"hangs":                 {hang: true},
		"hangs within":          {answer: message(yes)[:20], hang: true},
		"garbage":               {answer: "HTTP/1.1 200 OK\r\n\r\n"},
		"not JSON":              {answer: message("allowed")},
		"null":                  {answer: message("null")},
		"empty object":          {answer: message("{}")},
		"nothing":               {answer: message("")},
		"too long":              {answer: message(yes + strings.Repeat(" ", gate.MaxAnswer))},
		"more after it":         {answer: message(yes + yes)},
		"only the outer word":   {answer: message(`{"allowed":true}`)},
		"contradicts":           {answer: message(`{"allowed":true,"decision":{"allowed":false,"code":"x"}}`)},
		"contradicts inside":    {answer: message(`{"allowed":false,"decision":{"allowed":true,"code":"x"}}`)},
		"a member more":         {answer: message(`{"allowed":true,"decision":{"allowed":true,"code":"allowed"},"but":"no"}`)},
	} {
		t.Run(name, func(t *testing.T) {
			ln, client := listen(t)
			client.Timeout = time.Minute
			if tc.hang {
				client.Timeout = 50 * time.Millisecond
			}
			release := make(chan struct{})
			go func() {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 1<<10))
				_, _ = io.WriteString(conn, tc.answer)
				if tc.hang {
					<-release
				}
			}()
			err := client.Create(t.Context(), gate.CreateRequest{ID: "c"})
			close(release)
			if (err == nil) != tc.ok || errors.Is(err, gate.ErrNoDaemon) {
				t.Errorf("Create = %v, want allowed %t", err, tc.ok)
			}
		})
	}
}

func TestOnlyTheRightUserAsksAndAnswers(t *testing.T) {
	ln, client := listen(t)
	other := client
	other.UID++
	asked := make(chan struct{}, 2)
	stop := serve(t, ln, judge{create: func(context.Context, gate.CreateRequest) error { asked <- struct{}{}; return nil }}, 0)
	if err := other.Create(t.Context(), gate.CreateRequest{}); err == nil {
		t.Error("believed another user's daemon")
	}
	stop()
	s := &gate.Server{Judge: judge{create: func(context.Context, gate.CreateRequest) error { asked <- struct{}{}; return nil }}, UID: uid() + 1, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = s.Serve(ctx, ln) }()
	if err := client.Create(t.Context(), gate.CreateRequest{}); err == nil {
		t.Error("answered another user")
	}
	if len(asked) > 0 {
		t.Error("the judge was asked")
	}
	info, err := os.Stat(client.Path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
}

func TestTheJudgeStopsWhenTheCallerHasGone(t *testing.T) {
	ln, client := listen(t)
	began, ended := make(chan struct{}), make(chan struct{})
	serve(t, ln, judge{create: func(ctx context.Context, _ gate.CreateRequest) error {
		close(began)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}}, 0)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if err := client.Create(ctx, gate.CreateRequest{}); err == nil {
		t.Error("allowed without an answer")
	}
	<-ended
}

// TestASuccessorAnswersWhatWaits: handing over loses no question.
func TestASuccessorAnswersWhatWaits(t *testing.T) {
	ln, client := listen(t)
	stop := serve(t, ln, judge{}, 0)
	if err := client.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	answered := make(chan error, 1)
	go func() { answered <- client.Create(t.Context(), gate.CreateRequest{}) }()
	file, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	handed, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handed.Close() })
	ln.Close()
	file.Close()
	serve(t, handed, judge{}, 0)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestOpenQuestionsAreDrained(t *testing.T) {
	for name, tc := range map[string]struct {
		drain time.Duration
		want  bool
	}{"answered within the time": {time.Minute, true}, "cut after it": {0, false}} {
		t.Run(name, func(t *testing.T) {
			ln, client := listen(t)
			began, release := make(chan struct{}), make(chan struct{})
			stop := serve(t, ln, judge{create: func(ctx context.Context, _ gate.CreateRequest) error {
				close(began)
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}}, tc.drain)
			answered := make(chan error, 1)
			go func() { answered <- client.Create(t.Context(), gate.CreateRequest{}) }()
			<-began
			if tc.want {
				go stop()
				close(release)
			} else {
				stop()
			}
			if err := <-answered; (err == nil) != tc.want {
				t.Errorf("Create = %v", err)
			}
		})
	}
}

func TestASocketOfAKilledDaemonIsReplaced(t *testing.T) {
	ln, client := listen(t)
	ln.Close()
	again, err := gate.Listen(filepath.Dir(client.Path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	serve(t, again, judge{}, 0)
	if err := client.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(client.Path), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func BenchmarkCreate(b *testing.B) {
	dir := b.TempDir()
	ln, err := gate.Listen(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &gate.Server{Judge: judge{}, UID: uid(), Log: slog.New(slog.DiscardHandler)}
	go func() { _ = s.Serve(ctx, ln) }()
	client := gate.Client{Path: filepath.Join(dir, gate.SocketName), UID: uid()}
	config := make([]byte, 30<<10)
	b.SetBytes(int64(len(config)))
	for b.Loop() {
		if err := client.Create(ctx, gate.CreateRequest{ID: "c", Namespace: "k8s.io", Config: config}); err != nil {
			b.Fatal(err)
		}
	}
}
