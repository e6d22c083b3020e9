// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/c8s-dev/c8s/internal/pause"
)

// Part runs while this daemon owns its node: from the moment it has taken it
// over until a successor wants it. It is ended by its context, must return
// soon then, and runs again when the successor failed. What only one daemon of
// a node can do, such as being an NRI plugin, is a Part.
type Part struct {
	Name string
	Run  func(ctx context.Context) error
}

// Service is a Part with a listener. In a hand-over the listener goes to the
// successor, and clients that come in between wait in its queue.
type Service struct {
	Name string // names the socket in hand-overs; never changes
	// Listen opens the listener, which must be a TCP or a unix one. handed is
	// the predecessor's, nil where there is none; Listen returns or closes it.
	Listen func(ctx context.Context, handed net.Listener) (net.Listener, error)
	// Serve answers until ctx ends. It closes ln, never removes a unix socket's
	// file, and finishes what it has accepted.
	Serve func(ctx context.Context, ln net.Listener) error
}

// sockets are second descriptors of the daemon's listeners and UDP sockets. As
// long as they are open, closing a listener stops this daemon from accepting
// and nothing else.
type sockets struct {
	mu    sync.Mutex
	names []string
	files map[string]*os.File
}

type filer interface{ File() (*os.File, error) }

// keep makes a second descriptor of ln, a net.Listener or a net.PacketConn.
func (s *sockets) keep(name string, ln any) error {
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the file belongs to whoever has the socket
	}
	l, ok := ln.(filer)
	if !ok {
		return fmt.Errorf("keeping the socket %s: a %T cannot be handed over", name, ln)
	}
	f, err := l.File()
	if err != nil {
		return fmt.Errorf("keeping the socket %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		s.files = map[string]*os.File{}
	}
	s.names, s.files[name] = append(s.names, name), f
	return nil
}

// all lists the sockets as a hand-over passes them.
func (s *sockets) all() (list []handover.Socket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.names {
		list = append(list, handover.Socket{Name: name, File: s.files[name]})
	}
	return list
}

// drop lets go of a kept socket.
func (s *sockets) drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.files[name]; f != nil {
		_ = f.Close()
	}
	delete(s.files, name)
	s.names = slices.DeleteFunc(s.names, func(n string) bool { return n == name })
}

// listener returns a listener on a kept socket.
func (s *sockets) listener(name string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ln, err := net.FileListener(s.files[name])
	if err != nil {
		return nil, fmt.Errorf("listening on the socket %s again: %w", name, err)
	}
	return ln, nil
}

func (s *sockets) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		_ = f.Close()
	}
}

// takeListener turns a socket that was handed over into a listener; nil if
// there is none of that name.
func takeListener(handed map[string]*os.File, name string) (net.Listener, error) {
	f := handed[name]
	if f == nil {
		return nil, nil
	}
	delete(handed, name)
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("using the socket %s of the daemon before: %w", name, err)
	}
	return ln, nil
}

// takePackets is takeListener for a UDP socket.
func takePackets(handed map[string]*os.File, name string) (*net.UDPConn, error) {
	f := handed[name]
	if f == nil {
		return nil, nil
	}
	delete(handed, name)
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("using the socket %s of the daemon before: %w", name, err)
	}
	c, ok := pc.(*net.UDPConn)
	if !ok {
		_ = pc.Close()
		return nil, fmt.Errorf("using the socket %s of the daemon before: it is a %T", name, pc)
	}
	return c, nil
}

const (
	freeWithin = 5 * time.Second
	freeRetry  = 20 * time.Millisecond
)

// whenFree calls listen until the address is free: the daemon that had it may
// still be on its way out.
func whenFree[L net.Listener](ctx context.Context, listen func() (L, error)) (L, error) {
	limit, cancel := context.WithTimeout(ctx, freeWithin)
	defer cancel()
	for {
		ln, err := listen()
		if !errors.Is(err, syscall.EADDRINUSE) || limit.Err() != nil {
			return ln, err
		}
		pause.For(limit, freeRetry, nil)
	}
}
