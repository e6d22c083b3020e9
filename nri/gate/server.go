// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/internal/unixsock"
)

const (
	maxConcurrent = 512 // questions at once; more wait in the backlog
	ioTimeout     = 5 * time.Second
	acceptPause   = 50 * time.Millisecond // after an error such as too many open files
)

// Server answers at the gate.
type Server struct {
	Judge Judge
	UID   uint32        // who may ask: root, unless a test runs as another user
	Drain time.Duration // for which questions that are open when Serve's context ends may still be answered
	Log   *slog.Logger
}

// Listen makes the gate's socket in dir, for root alone.
func Listen(dir string) (*net.UnixListener, error) {
	ln, err := unixsock.Listen(dir, SocketName, "unix")
	if err != nil {
		return nil, fmt.Errorf("opening the gate's socket: %w", err)
	}
	return ln, nil
}

// Serve answers at ln until ctx ends; then it accepts no more, gives open
// questions Drain, and returns when all are answered. It does not close ln,
// which may have been handed to a successor: what waits in its backlog is the
// successor's.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	bounded, ok := ln.(interface{ SetDeadline(t time.Time) error })
	if !ok {
		return fmt.Errorf("serving the gate: a %T cannot be left without being closed", ln)
	}
	_ = bounded.SetDeadline(time.Time{}) // it may have been served before
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stop := context.AfterFunc(ctx, func() {
		_ = bounded.SetDeadline(time.Unix(1, 0)) // wakes Accept
		time.AfterFunc(s.Drain, end)
	})
	defer stop()

	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, maxConcurrent)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		conn, err := ln.Accept()
		if err != nil {
			<-slots
			if err := s.acceptFailed(ctx, err); err != nil {
				return err
			}
			continue
		}
		open.Go(func() {
			defer func() { <-slots }()
			s.answer(work, conn)
		})
	}
}

// acceptFailed returns nil when accepting may be tried again.
func (s *Server) acceptFailed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serving the gate: %w", err)
	}
	s.Log.Error("gate: accepting", "err", err)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(acceptPause):
		return nil
	}
}

// answer is the whole life of a connection.
func (s *Server) answer(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	if err := unixsock.CheckPeer(conn, s.UID); err != nil {
		s.Log.Warn("gate: not answering", "err", err)
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(ioTimeout))
	r, err := readRequest(conn)
	if err != nil {
		s.reply(conn, r, fmt.Errorf("reading the question: %w", err))
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, AnswerWithin, errors.New("no answer in time"))
	defer cancel()
	_ = conn.SetReadDeadline(time.Time{})
	go func() {
		// Nothing more is said, so this ends with the connection.
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	s.reply(conn, r, s.judge(ctx, r))
}

func (s *Server) reply(conn net.Conn, r request, err error) {
	a := answerOf(err)
	if err != nil {
		s.Log.Warn("gate: refused", "op", r.Op, "container", r.container(), "err", err)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(ioTimeout))
	if err := writeMessage(conn, a, MaxAnswer); err != nil {
		s.Log.Warn("gate: answering", "op", r.Op, "container", r.container(), "err", err)
	}
}

// judge asks, and refuses for a judge that panics: a daemon that is gone lets
// bootstrap containers start, so nobody should be able to end it by a question.
func (s *Server) judge(ctx context.Context, r request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("judging %s: panic: %v", r.Op, p)
		}
	}()
	switch r.Op {
	case opCreate:
		return s.Judge.Create(ctx, *r.Create)
	case opExec:
		return s.Judge.Exec(ctx, *r.Exec)
	case opLock:
		return s.Judge.Lock(ctx, *r.Lock)
	case opPing:
		return nil
	}
	return fmt.Errorf("op %.16q is unknown", r.Op)
}

func (r request) container() string {
	switch {
	case r.Create != nil:
		return r.Create.ID
	case r.Exec != nil:
		return r.Exec.ID
	case r.Lock != nil:
		return r.Lock.SandboxID
	}
	return ""
}
