// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"fmt"
	"net"
	"time"
)

// IdleResult is what Idle measured.
type IdleResult struct {
	Connections   int
	Before, After Memory // of all processes together
}

// PerConnection is the growth per connection in bytes, by the proportional
// set size. It may be negative when a process gave memory back.
func (r IdleResult) PerConnection() float64 {
	return (float64(r.After.PSS) - float64(r.Before.PSS)) / float64(r.Connections)
}

// RSSPerConnection is the same by resident set size.
func (r IdleResult) RSSPerConnection() float64 {
	return (float64(r.After.RSS) - float64(r.Before.RSS)) / float64(r.Connections)
}

// Idle opens n connections to an Echo server, sends one byte over each to be
// sure that it stands from end to end, lets them rest for settle, and compares
// the memory of the processes pids with what they had before.
//
// Neither the server nor the generator may be among pids. For a fair number
// the processes have carried traffic before: what they allocate once would
// otherwise count as memory of the connections.
func Idle(ctx context.Context, dial Dial, n int, settle time.Duration, p Proc, pids ...int) (IdleResult, error) {
	fail := func(err error) (IdleResult, error) {
		return IdleResult{}, fmt.Errorf("measuring the memory of idle connections: %w", err)
	}
	r := IdleResult{Connections: n}
	var err error
	if r.Before, err = p.Memory(pids...); err != nil {
		return fail(err)
	}
	touch := func(c net.Conn) error {
		if err := c.SetDeadline(time.Now().Add(grace)); err != nil {
			return err
		}
		if err := exchangeByte(c); err != nil {
			return err
		}
		return c.SetDeadline(time.Time{})
	}
	conns, err := dialAll(ctx, dial, n, touch)
	if err != nil {
		return fail(err)
	}
	defer closeAll(conns)
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return fail(ctx.Err())
	}
	if r.After, err = p.Memory(pids...); err != nil {
		return fail(err)
	}
	// A connection that fell in the meantime weighs nothing: all must live.
	for i, c := range conns {
		if err := touch(c); err != nil {
			return fail(fmt.Errorf("connection %d of %d did not survive: %w", i+1, n, err))
		}
	}
	return r, nil
}
