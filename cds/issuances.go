// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

const (
	issuancePrefix = "issuance/"
	// issuanceSpan is how long certificates may end apart that are kept
	// together: so they are found with few reads, and removed without a second
	// key that says when.
	issuanceSpan = 30 * time.Minute
	// issuanceMaxAge is how long caches may keep a document. Later ones differ
	// only by a proof for a longer log.
	issuanceMaxAge = 5 * time.Minute
)

// issuances finds the log entry of a certificate for as long as it lives. Its
// keys are no truth of their own: the entry that they lead to must be the
// certificate's.
type issuances struct {
	now    func() time.Time
	store  store.Store
	ledger *ledger.Ledger
}

// issuanceItem is written in the step that logs the issuance.
func issuanceItem(certificate policy.Digest, ends time.Time, index int64) store.Item {
	return store.Item{Key: issuanceKey(issuanceSlot(ends), certificate), Data: binary.BigEndian.AppendUint64(nil, uint64(index))} //nolint:gosec // not negative
}

func issuanceSlot(t time.Time) int64 { return t.Unix() / int64(issuanceSpan/time.Second) }

// issuanceKey begins with what is removed together.
func issuanceKey(slot int64, certificate policy.Digest) string {
	return fmt.Sprintf("%s%08x/%s", issuancePrefix, slot, strings.TrimPrefix(string(certificate), "sha256:"))
}

// document proves by the log as it is now that the certificate was issued.
func (s *issuances) document(ctx context.Context, certificate policy.Digest) ([]byte, error) {
	if !certificate.Valid() {
		return nil, fs.ErrNotExist
	}
	index, err := s.find(ctx, certificate)
	if err != nil {
		return nil, err
	}
	view := s.ledger.View()
	if index >= view.Head.Size { // another replica logged it a moment ago
		if err := s.ledger.Refresh(ctx); err != nil {
			return nil, err
		}
		if view = s.ledger.View(); index >= view.Head.Size {
			return nil, fs.ErrNotExist
		}
	}
	raw, err := view.Tree.Record(ctx, s.ledger.Storage(), index)
	if err != nil {
		return nil, err
	}
	entry, err := translog.ParseEntry(raw)
	if err != nil {
		return nil, err
	}
	if entry.Type != translog.TypeIssuance || entry.Certificate != certificate {
		return nil, fs.ErrNotExist // the log alone is believed
	}
	proof, err := view.Tree.ProveRecord(ctx, s.ledger.Storage(), index)
	if err != nil {
		return nil, err
	}
	doc := &api.Issuance{Entry: raw, Index: index, Checkpoint: string(view.Checkpoint)}
	for _, h := range proof {
		doc.Proof = append(doc.Proof, h[:])
	}
	return doc.Marshal()
}

// find reads the index. Certificates that were just issued are asked for the
// most, and end last.
func (s *issuances) find(ctx context.Context, certificate policy.Digest) (int64, error) {
	now := s.now()
	for slot := issuanceSlot(now.Add(ca.MaxLife + maxSkew)); slot >= issuanceSlot(now.Add(-tidyGrace)); slot-- {
		v, err := s.store.Get(ctx, issuanceKey(slot, certificate))
		switch {
		case isGone(err):
			continue
		case err != nil:
			return 0, fmt.Errorf("finding an issuance: %w", err)
		case len(v.Data) != 8:
			return 0, fmt.Errorf("finding an issuance: the index has %d bytes", len(v.Data))
		}
		return int64(binary.BigEndian.Uint64(v.Data)), nil //nolint:gosec // compared with the log's size
	}
	return 0, fs.ErrNotExist
}

// first is the oldest slot that is kept, or one that never ends.
func (s *issuances) first(ctx context.Context) (int64, error) {
	slot, found := int64(math.MaxInt64), errors.New("found")
	err := s.store.Scan(ctx, issuancePrefix, func(key string, _ store.Value) error {
		text, _, _ := strings.Cut(strings.TrimPrefix(key, issuancePrefix), "/")
		n, err := strconv.ParseInt(text, 16, 64)
		if err != nil {
			return fmt.Errorf("tidying issuances: %q is none", key)
		}
		slot = n
		return found
	})
	if err != nil && !errors.Is(err, found) {
		return 0, err
	}
	return slot, nil
}

// keepTidy removes what leads to certificates that have ended.
func (s *issuances) keepTidy(ctx context.Context) error {
	for {
		if err := pauseFor(ctx, tidyEvery/2+rand.N(tidyEvery)); err != nil {
			return err
		}
		_ = s.tidy(ctx) // what stays is removed the next time
	}
}

// tidy removes slot by slot, each in several steps: changes wait for a step.
func (s *issuances) tidy(ctx context.Context) error {
	const digits = "0123456789abcdef"
	last := issuanceSlot(s.now().Add(-tidyGrace - issuanceSpan)) // wholly in the past
	for {
		slot, err := s.first(ctx)
		if err != nil || slot > last {
			return err
		}
		for _, digit := range digits {
			prefix := fmt.Sprintf("%s%08x/%c", issuancePrefix, slot, digit)
			if _, err := s.store.Commit(ctx, store.Txn{DeletePrefix: []string{prefix}}); err != nil {
				return err
			}
		}
	}
}
