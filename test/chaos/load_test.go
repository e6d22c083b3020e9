// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

const (
	newEvery    = 100 * time.Millisecond // a new connection of each pair
	streamEvery = 50 * time.Millisecond  // a message on each standing one
	patience    = 10 * time.Second       // of an application
)

// errChanged is the one failure that nothing explains.
var errChanged = errors.New("the bytes that came back are not those that were sent")

// pair is who talks to whom, in which family.
type pair struct {
	from, to *slot
	v6       bool
}

func (p pair) String() string {
	family := "IPv4"
	if p.v6 {
		family = "IPv6"
	}
	return fmt.Sprintf("%s -> %s, %s", p.from, p.to, family)
}

// errVacant says that one of the two pods is not there.
var errVacant = errors.New("no pod")

func (p pair) dial(ctx context.Context, network string) (net.Conn, error) {
	from, to := p.from.now(), p.to.now()
	if from == nil || to == nil {
		return nil, errVacant
	}
	addr := to.Addr4
	if p.v6 {
		addr = to.Addr6
	}
	return from.Dial(ctx, network, netip.AddrPortFrom(addr, echoPort).String())
}

// exchange is a connection with one message there and back.
func (p pair) exchange(ctx context.Context, canary []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := p.dial(ctx, "tcp")
	if err != nil {
		return fmt.Errorf("%s: connecting: %w", p, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := message(conn, canary, 0); err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	return nil
}

// message sends a numbered canary and wants it back.
func message(conn net.Conn, canary []byte, n int) error {
	out := fmt.Appendf(nil, "%s %09d", canary, n)
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write(out); err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	in := make([]byte, len(out))
	if _, err := io.ReadFull(conn, in); err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if !bytes.Equal(in, out) {
		return errChanged
	}
	return nil
}

// load is what pods say to each other all the time.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func startLoad(t *testing.T, w *world, book *ledger) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	t.Cleanup(l.stop)
	for _, from := range w.clients {
		for _, to := range w.servers {
			for _, v6 := range []bool{false, true} {
				p := pair{from, to, v6}
				l.done.Go(func() { connections(ctx, p, w.canary, book) })
				l.done.Go(func() { standing(ctx, p, w.canary, book) })
				l.done.Go(func() { flows(ctx, p, w.canary, book) })
				l.done.Go(func() { standingFlow(ctx, p, w.canary, book) })
			}
		}
	}
	return l
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// connections makes one after the other.
func connections(ctx context.Context, p pair, canary []byte, book *ledger) {
	for pause(ctx, newEvery) {
		began := time.Now()
		err := p.exchange(ctx, canary)
		if ctx.Err() == nil {
			book.add(attempt{newConnection, p.String(), began, time.Now(), err})
		}
	}
}

// standing uses one connection until it breaks, then another.
func standing(ctx context.Context, p pair, canary []byte, book *ledger) {
	for pause(ctx, streamEvery) {
		began := time.Now()
		dialCtx, cancel := context.WithTimeout(ctx, patience)
		conn, err := p.dial(dialCtx, "tcp")
		cancel()
		for n := 0; err == nil && pause(ctx, streamEvery); n++ {
			began = time.Now()
			if err = message(conn, canary, n); err == nil && ctx.Err() == nil {
				book.add(attempt{standingConn, p.String(), began, time.Now(), nil})
			}
		}
		if conn != nil {
			conn.Close()
		}
		if ctx.Err() == nil {
			book.add(attempt{standingConn, p.String(), began, time.Now(), err})
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
