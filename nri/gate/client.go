// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/c8s-dev/c8s/internal/unixsock"
)

// ErrNoDaemon says that nothing listens at the gate. It is not given for a
// daemon that was reached.
var ErrNoDaemon = errors.New("no node daemon listens at the gate")

// backlogPause is how long a client waits when the daemon's backlog is full.
const backlogPause = 20 * time.Millisecond

// Client asks at the gate. Its methods return nil only when the daemon allowed;
// a refusal is a policy.Decision.
type Client struct {
	Path    string        // of the socket
	UID     uint32        // whose daemon is believed: root's, unless a test runs as another user
	Timeout time.Duration // for the whole conversation; zero: ClientTimeout
}

// Create asks whether a container or a sandbox may be made.
func (c Client) Create(ctx context.Context, r CreateRequest) error {
	return c.ask(ctx, request{Op: opCreate, Create: &r})
}

// Exec asks whether a process may be added to a running container.
func (c Client) Exec(ctx context.Context, r ExecRequest) error {
	return c.ask(ctx, request{Op: opExec, Exec: &r})
}

// Lock asks for a pod's link to be locked.
func (c Client) Lock(ctx context.Context, r LockRequest) error {
	return c.ask(ctx, request{Op: opLock, Lock: &r})
}

// Ping asks whether anybody answers.
func (c Client) Ping(ctx context.Context) error {
	return c.ask(ctx, request{Op: opPing})
}

func (c Client) ask(ctx context.Context, r request) error {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = ClientTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := c.dial(ctx)
	if err != nil {
		return fmt.Errorf("reaching the node daemon at %s: %w", c.Path, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	a, err := c.converse(conn, r)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no answer within %s: %w", timeout, ctx.Err())
		}
		return fmt.Errorf("asking the node daemon at %s: %w", c.Path, err)
	}
	return a.err()
}

func (c Client) converse(conn net.Conn, r request) (answer, error) {
	if err := unixsock.CheckPeer(conn, c.UID); err != nil {
		return answer{}, err
	}
	// A daemon that refuses before it has read everything closes the socket,
	// so the answer is worth reading even when writing failed.
	sent := writeMessage(conn, r, MaxRequest)
	var a answer
	if err := readMessage(conn, &a, MaxAnswer); err != nil {
		return answer{}, errors.Join(sent, fmt.Errorf("reading the answer: %w", err))
	}
	return a, nil
}

func (c Client) dial(ctx context.Context) (net.Conn, error) {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", c.Path)
		switch {
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
			return nil, fmt.Errorf("%w: %w", ErrNoDaemon, err)
		case !errors.Is(err, syscall.EAGAIN): // unix(7): the backlog is full
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("the daemon's backlog is full: %w", ctx.Err())
		case <-time.After(backlogPause):
		}
	}
}
