// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// askAgain is after how long an application repeats a question.
const askAgain = 300 * time.Millisecond

// ask is a flow of its own with one question and its answer.
func (p pair) ask(ctx context.Context, canary []byte) error {
	conn, err := p.dial(ctx, "udp")
	if err == nil {
		defer conn.Close()
		err = question(ctx, conn, canary, 0)
	}
	if err != nil {
		return fmt.Errorf("%s: asking by datagram: %w", p, err)
	}
	return nil
}

// question sends a numbered canary, repeatedly as UDP's users must, until the
// same comes back. Late answers to earlier questions are passed over.
func question(ctx context.Context, conn net.Conn, canary []byte, n int) error {
	out := fmt.Appendf(nil, "%s %09d", canary, n)
	in := make([]byte, 2048)
	var last error
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		if _, last = conn.Write(out); last != nil {
			pause(ctx, askAgain)
			continue
		}
		if err := conn.SetReadDeadline(time.Now().Add(askAgain)); err != nil {
			return err
		}
		for {
			var m int
			if m, last = conn.Read(in); last != nil {
				break
			}
			switch got := in[:m]; {
			case bytes.Equal(got, out):
				return nil
			case len(got) != len(out) || !bytes.HasPrefix(got, canary):
				return errChanged
			}
		}
	}
	return errors.Join(ctx.Err(), last, os.ErrDeadlineExceeded)
}

// flows makes one after the other.
func flows(ctx context.Context, p pair, canary []byte, book *ledger) {
	for pause(ctx, 2*newEvery) {
		began := time.Now()
		err := p.ask(ctx, canary)
		if ctx.Err() == nil {
			book.add(attempt{newFlow, p.String(), began, time.Now(), err})
		}
	}
}

// standingFlow uses one socket for as long as the pod lives: unlike a
// connection, a flow must come back by itself.
func standingFlow(ctx context.Context, p pair, canary []byte, book *ledger) {
	for pause(ctx, streamEvery) {
		from, to := p.from.now(), p.to.now()
		conn, err := p.dial(ctx, "udp")
		for n := 0; err == nil && p.from.now() == from && p.to.now() == to && pause(ctx, streamEvery); n++ {
			began := time.Now()
			if err := question(ctx, conn, canary, n); ctx.Err() == nil {
				book.add(attempt{standingFlows, p.String(), began, time.Now(), err})
			}
		}
		if conn != nil {
			conn.Close()
		}
	}
}
