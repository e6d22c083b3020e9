// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// answerWithin bounds how long the owner may take for one answer. It leaves
// what only one daemon may hold before it answers "take".
const answerWithin = 20 * time.Second

// ErrOwnerGone means that the owner has ended: the caller is on its own.
var ErrOwnerGone = errors.New("the daemon to take over from has ended")

// Successor is the new daemon's side.
type Successor struct {
	c       *conn
	Release string // of the owner
}

// Dial finds the owner of the node at path and settles that this process may
// succeed it. The error is ErrNobody where there is none.
func Dial(ctx context.Context, path, release string, terms Terms) (*Successor, error) {
	c, err := connect(ctx, path, uint32(os.Geteuid())) //nolint:gosec // never negative on Linux
	if err != nil {
		return nil, fmt.Errorf("looking for a running daemon at %s: %w", path, err)
	}
	s := &Successor{c: c}
	m, _, err := s.ask(message{Op: opHello, Versions: []int{Version}, Release: release, Terms: terms}, opHello)
	if err == nil && m.Version != Version {
		err = fmt.Errorf("the running daemon chose version %d of the hand-over, this one speaks %d", m.Version, Version)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("greeting the running daemon: %w", err), c.Close())
	}
	s.Release = m.Release
	return s, nil
}

// Pods returns the pods the owner has now.
func (s *Successor) Pods() ([]Pod, error) {
	got, _, files, err := s.list(message{Op: opPods}, opEnd)
	closeAll(files)
	if err != nil {
		return nil, fmt.Errorf("asking for the pods: %w", err)
	}
	return got.Pods, nil
}

// Taken is what an owner that stands still passes on.
type Taken struct {
	Sockets map[string]*os.File // by name; the caller's
	Pods    []Pod               // that it has at that moment
	Memory  []Memory            // of the kinds that were asked for; none from an owner that knows none
	LeftOut int                 // pieces of memory beyond what a successor takes
}

// Take has the owner stand still. kinds are those of memory that the caller can
// use. Done must follow soon, or the owner goes on.
func (s *Successor) Take(kinds ...string) (*Taken, error) {
	got, m, files, err := s.list(message{Op: opTake, Kinds: kinds}, opSockets)
	if err != nil {
		closeAll(files)
		return nil, fmt.Errorf("taking over: %w", err)
	}
	got.Sockets = map[string]*os.File{}
	for i, name := range m.Sockets {
		got.Sockets[name] = files[i]
	}
	return got, nil
}

// Done makes this process the owner when it returns nil. Otherwise the former
// one still is, and this process must let go of the sockets.
func (s *Successor) Done() error {
	_, _, err := s.ask(message{Op: opDone}, opDone)
	if errors.Is(err, ErrOwnerGone) {
		return nil // without a word of refusal: it died
	}
	if err != nil {
		return fmt.Errorf("confirming the hand-over: %w", err)
	}
	return nil
}

// Close ends the conversation.
func (s *Successor) Close() error { return s.c.Close() }

// list asks for pods and what else comes with them, up to the message that ends
// the list.
func (s *Successor) list(ask message, last string) (got *Taken, m *message, files []*os.File, err error) {
	got = &Taken{}
	want := []string{opPod, last}
	if len(ask.Kinds) > 0 {
		want = append(want, opMemory)
	}
	remembered := 0
	for m, files, err = s.ask(ask, want...); err == nil && m.Op != last; m, files, err = s.hear(want...) {
		if m.Op == opPod {
			got.Pods = append(got.Pods, *m.Pod)
			continue
		}
		if remembered += len(m.Memory.Data); remembered > maxMemory {
			got.LeftOut++
			continue
		}
		got.Memory = append(got.Memory, *m.Memory)
	}
	return got, m, files, err
}

func (s *Successor) ask(m message, want ...string) (*message, []*os.File, error) {
	if err := s.c.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return nil, nil, err
	}
	// The owner's last word may wait here although it takes no more messages.
	if err := s.c.send(m); err != nil && !errors.Is(err, syscall.EPIPE) {
		return nil, nil, gone(err)
	}
	return s.hear(want...)
}

func (s *Successor) hear(want ...string) (*message, []*os.File, error) {
	m, files, err := s.c.receive()
	if errors.Is(err, syscall.ECONNRESET) {
		m, files, err = s.c.receive() // it left something unread; so what it said is still to come
	}
	if err != nil {
		return nil, nil, gone(err)
	}
	for _, op := range want {
		if m.Op == op {
			return m, files, nil
		}
	}
	closeAll(files)
	if m.Op == opRefused {
		return nil, nil, fmt.Errorf("the running daemon refused: %s", m.Why)
	}
	return nil, nil, fmt.Errorf("the running daemon said %s, want %v", m.Op, want)
}

// gone joins ErrOwnerGone to errors that say so.
func gone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("%w (%w)", ErrOwnerGone, err)
	}
	return err
}
