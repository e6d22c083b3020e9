// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
)

// CodeUnreachable is the code while no replica of the CDS answers.
const CodeUnreachable = "cds-unreachable"

var errUnreachable = errors.New("no replica of the CDS answers")

const (
	// sourceTimeout bounds what is asked of the CDS at once.
	sourceTimeout = 15 * time.Second
	// How long the CDS is left alone after a connection failed.
	reconnectMin, reconnectMax = 500 * time.Millisecond, 10 * time.Second
)

// source keeps one verified connection to the CDS. A connection that was
// verified by another manifest or deny list than the one in force is replaced.
type source struct {
	cds  CDS
	now  func() time.Time
	rand func(int64) int64

	turn  chan struct{} // holds one token: guards what follows, and respects contexts
	docs  *client.Documents
	under known
	fails int
	after time.Time // nobody connects before
	err   error
}

func newSource(cds CDS, now func() time.Time, rand func(int64) int64) *source {
	s := &source{cds: cds, now: now, rand: rand, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// with calls do with a connection. A kept one may be gone without anything
// being wrong, so a fresh one is tried.
func (s *source) with(ctx context.Context, do func(context.Context, *client.Documents) error) error {
	ctx, cancel := context.WithTimeout(ctx, sourceTimeout)
	defer cancel()
	for {
		d, kept, err := s.get(ctx)
		if err != nil {
			return err
		}
		err = do(ctx, d)
		if err == nil || !broken(err) {
			return err
		}
		s.drop(d)
		if !kept || ctx.Err() != nil {
			return fmt.Errorf("%w: %w", errUnreachable, err)
		}
	}
}

// broken tells errors of the connection from answers on it.
func broken(err error) bool {
	return !errors.Is(err, fs.ErrNotExist) && codeOf(err) == "internal"
}

func (s *source) get(ctx context.Context) (d *client.Documents, kept bool, err error) {
	select {
	case <-ctx.Done():
		return nil, false, fmt.Errorf("%w: %w", errUnreachable, ctx.Err())
	case <-s.turn:
		defer func() { s.turn <- struct{}{} }()
	}
	now := knownTo(s.cds)
	if s.docs != nil && s.under == now {
		return s.docs, true, nil
	}
	s.closeHeld()
	if wait := s.after.Sub(s.now()); wait > 0 && wait <= reconnectMax { // longer: the clock was set back
		return nil, false, fmt.Errorf("%w: %w", errUnreachable, s.err)
	}
	if s.docs, err = s.cds.Documents(ctx); err != nil {
		s.docs = nil
		wait := reconnectMax
		if s.fails < 5 {
			wait = reconnectMin << s.fails
		}
		s.fails++
		s.err, s.after = err, s.now().Add(wait/2+time.Duration(s.rand(int64(wait/2)+1)))
		return nil, false, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	s.under, s.fails, s.err = now, 0, nil
	return s.docs, false, nil
}

// drop closes a connection that broke, unless it was replaced already.
func (s *source) drop(d *client.Documents) {
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	if s.docs == d {
		s.closeHeld()
	}
}

func (s *source) close() {
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	s.closeHeld()
}

// closeHeld needs the turn.
func (s *source) closeHeld() {
	if s.docs != nil {
		s.docs.Close()
		s.docs = nil
	}
}
