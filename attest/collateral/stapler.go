// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"context"
	"log/slog"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// Stapler puts beside an attester's evidence what the vendor publishes about
// it, so that whoever appraises needs no network. What cannot be had is logged
// and left out: whether that matters is the verifier's question.
type Stapler struct {
	Attester attest.Attester
	Source   Source
	Patience time.Duration // how long one piece of evidence may wait for collateral
	Now      func() time.Time
	Log      *slog.Logger
}

var (
	_ attest.Attester = (*Stapler)(nil)
	_ attest.Sealer   = (*Stapler)(nil)
)

// Attest asks for evidence and completes it.
func (s *Stapler) Attest(ctx context.Context, reportData [64]byte) (*attest.Evidence, error) {
	ev, err := s.Attester.Attest(ctx, reportData)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.Patience)
	defer cancel()
	complete, report := Complete(ctx, s.Source, ev, s.Now())
	for _, problem := range report.Problems {
		s.Log.Warn("collateral is missing beside this machine's evidence", "err", problem)
	}
	return complete, nil
}

// SealingKey passes the question on.
func (s *Stapler) SealingKey(ctx context.Context, purpose string) ([32]byte, error) {
	if sealer, ok := s.Attester.(attest.Sealer); ok {
		return sealer.SealingKey(ctx, purpose)
	}
	return [32]byte{}, attest.ErrNoSealing
}
