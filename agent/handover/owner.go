// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	silentFor     = time.Minute      // default of Server.Silence
	confirmWithin = 10 * time.Second // default of Server.Confirm
)

// Socket is a listener to hand over.
type Socket struct {
	Name string
	File *os.File // stays the owner's
}

// Owner is the daemon that has the node.
type Owner interface {
	Pods() []Pod
	// Yield has the daemon stand still and leave what only one may hold. Its
	// sockets stay open, and connections wait in them. After an error it goes on
	// as before.
	Yield(ctx context.Context) ([]Socket, error)
	// Memory returns what the daemon remembers, of these kinds, as it stands
	// still.
	Memory(kinds []string) []Memory
	// Resume undoes Yield.
	Resume()
	// Gone is called once the successor owns the node; nothing can be undone.
	Gone()
}

// Server answers successors.
type Server struct {
	Owner   Owner
	Release string
	Terms   Terms
	UID     uint32 // whose processes may succeed
	Log     *slog.Logger

	Silence time.Duration // default 1 min; how long a successor that prepares may say nothing
	Confirm time.Duration // default 10 s; how long it may take to confirm

	busy atomic.Bool
}

// Busy reports whether a successor is preparing or taking over.
func (s *Server) Busy() bool { return s.busy.Load() }

// errYielded ends Serve: there is a new owner.
var errYielded = errors.New("handed over")

// Serve answers on ln until ctx ends, or until the node is handed over: then
// it returns nil.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	for {
		uc, err := ln.AcceptUnix()
		if err != nil {
			if errors.Is(context.Cause(ctx), errYielded) {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("accepting a successor: %w", err)
		}
		sessions.Go(func() {
			if s.session(ctx, uc) {
				cancel(errYielded)
			}
		})
	}
}

// session reports whether it ended with a hand-over.
func (s *Server) session(ctx context.Context, uc *net.UnixConn) bool {
	c, err := checked(uc, s.UID)
	if err != nil {
		s.Log.Warn("somebody who may not take over was turned away", "err", err)
		return false
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
	if !s.busy.CompareAndSwap(false, true) {
		_ = c.send(message{Op: opRefused, Why: "another daemon is taking over already"})
		return false
	}
	defer s.busy.Store(false)
	if err := s.greet(c); err != nil {
		s.Log.Warn("a new daemon cannot take over", "err", err)
		return false
	}
	done, err := s.converse(ctx, c)
	if !done && ctx.Err() == nil {
		s.Log.Warn("the new daemon did not take over", "err", err)
	}
	return done
}

func (s *Server) greet(c *conn) error {
	if err := c.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return err
	}
	m, files, err := c.receive()
	closeAll(files)
	if err != nil {
		return err
	}
	err = s.Terms.differ(m.Terms)
	if _, ok := agree(m.Versions); !ok {
		err = fmt.Errorf("this daemon speaks version %d of the hand-over, the new one %v", Version, m.Versions)
	}
	if m.Op != opHello {
		err = fmt.Errorf("%s instead of a greeting", m.Op)
	}
	if err != nil {
		_ = c.send(message{Op: opRefused, Why: err.Error()})
		return err
	}
	s.Log.Info("a new daemon prepares to take over", "release", m.Release)
	return c.send(message{Op: opHello, Version: Version, Release: s.Release})
}

// converse answers until the successor is the owner, or an error says why it
// is not.
func (s *Server) converse(ctx context.Context, c *conn) (done bool, err error) {
	for {
		if err := c.SetWriteDeadline(time.Now().Add(answerWithin)); err != nil {
			return false, err
		}
		m, err := s.next(ctx, c, cmp.Or(s.Silence, silentFor))
		if err != nil && ctx.Err() == nil {
			return false, s.refuse(c, err) // a successor that hears nothing takes us for dead
		}
		if err != nil {
			return false, err
		}
		switch m.Op {
		case opPods:
			if err := s.sendPods(c); err != nil {
				return false, err
			}
			if err := c.send(message{Op: opEnd}); err != nil {
				return false, err
			}
		case opTake:
			return s.yield(ctx, c, m.Kinds)
		default:
			return false, s.refuse(c, fmt.Errorf("%s out of turn", m.Op))
		}
	}
}

// yield stands still until the successor confirms. Whatever else happens, the
// owner goes on.
func (s *Server) yield(ctx context.Context, c *conn, kinds []string) (done bool, err error) {
	sockets, err := s.Owner.Yield(ctx)
	if err != nil {
		return false, s.refuse(c, err)
	}
	defer func() {
		if !done {
			err = s.refuse(c, err) // first: a successor that hears nothing takes us for dead
			s.Owner.Resume()
		}
	}()
	if err := s.sendPods(c); err != nil {
		return false, err
	}
	if err := s.sendMemory(c, kinds); err != nil {
		return false, err
	}
	answer := message{Op: opSockets}
	var files []*os.File
	for _, socket := range sockets {
		answer.Sockets = append(answer.Sockets, socket.Name)
		files = append(files, socket.File)
	}
	if err := c.send(answer, files...); err != nil {
		return false, err
	}
	m, err := s.next(ctx, c, cmp.Or(s.Confirm, confirmWithin))
	if err != nil {
		return false, err
	}
	if m.Op != opDone {
		return false, fmt.Errorf("%s instead of a confirmation", m.Op)
	}
	// A successor that has given up meanwhile has closed its end.
	if err := c.send(message{Op: opDone}); err != nil {
		return false, err
	}
	s.Owner.Gone()
	return true, nil
}

func (s *Server) next(ctx context.Context, c *conn, limit time.Duration) (*message, error) {
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // its end may have come before the deadline was set
		return nil, ctx.Err()
	}
	m, files, err := c.receive()
	closeAll(files)
	return m, err
}

func (s *Server) refuse(c *conn, err error) error {
	_ = c.SetWriteDeadline(time.Now().Add(time.Second))
	_ = c.send(message{Op: opRefused, Why: err.Error()})
	return err
}

func (s *Server) sendPods(c *conn) error {
	for _, pod := range s.Owner.Pods() {
		if err := c.send(message{Op: opPod, Pod: &pod}); err != nil {
			return err
		}
	}
	return nil
}

// sendMemory leaves out what does not fit: the hand-over must not fail for it.
func (s *Server) sendMemory(c *conn, kinds []string) error {
	if len(kinds) == 0 {
		return nil
	}
	sent, left := 0, 0
	for _, piece := range s.Owner.Memory(kinds) {
		if sent += len(piece.Data); sent > maxMemory || !slices.Contains(kinds, piece.Kind) {
			left++
			continue
		}
		err := c.send(message{Op: opMemory, Memory: &piece})
		if errors.Is(err, errTooLong) {
			left++
			continue
		}
		if err != nil {
			return err
		}
	}
	if left > 0 {
		s.Log.Warn("not all that this daemon remembers can be handed over", "piecesLeftOut", left)
	}
	return nil
}
