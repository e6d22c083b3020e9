// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/policy"
)

const (
	// providerFactor is how many machines may share a provider's VLEK.
	providerFactor = 1024
	// maxRemembered bounds the evidence held in memory, about 8 KB a piece; the
	// rest is read from the store when needed.
	maxRemembered = 4096
	// tidyEvery is how often expired evidence is removed from the store, and
	// tidyBatch how many pieces at once.
	tidyEvery = 10 * time.Minute
	tidyBatch = store.MaxTxnOps / 2
	// tidyGrace keeps evidence a little longer than its certificates.
	tidyGrace = 10 * time.Minute
)

// evidenceStore keeps the evidence behind every live certificate: to be judged
// again for every pod under the manifest then in force, by any replica, and to
// be read by anybody who wants to judge for himself.
type evidenceStore struct {
	now    func() time.Time
	store  store.Store
	limits Limits

	mu   sync.Mutex
	all  map[[sha256.Size]byte]*storedEvidence
	live map[string][]time.Time // when the certificates of a machine end
}

type storedEvidence struct {
	evidence   *attest.Evidence
	purpose    string
	reportData [64]byte

	mu       sync.Mutex
	manifest policy.Digest // under which verdict was reached
	until    time.Time     // zero, or when the manifest would judge otherwise
	verdict  *attest.Verdict
}

func newEvidenceStore(now func() time.Time, s store.Store, limits Limits) *evidenceStore {
	return &evidenceStore{now: now, store: s, limits: limits, all: map[[sha256.Size]byte]*storedEvidence{}, live: map[string][]time.Time{}}
}

// files are what has to be kept for the evidence of a certificate that ends
// then.
func (s *evidenceStore) files(hash [sha256.Size]byte, doc *api.EvidenceDocument, ends time.Time) ([]store.Item, error) {
	raw, err := doc.Marshal()
	if err != nil {
		return nil, fmt.Errorf("keeping evidence: %w", err)
	}
	name := hex.EncodeToString(hash[:])
	return []store.Item{
		{Key: evidenceKey(name), Data: raw},
		{Key: fmt.Sprintf("%s%016x/%s", expiryPrefix, ends.Unix(), name)},
	}, nil
}

const expiryPrefix = "expiry/"

func evidenceKey(name string) string { return "evidence/" + name }

// claim takes one of the places of a machine's live certificates; release
// gives it back when none was issued.
func (s *evidenceStore) claim(machine string, ends time.Time) (release func(), err error) {
	limit := s.limits.LivePerMachine
	if strings.HasPrefix(machine, policy.MachineProvider) {
		limit *= providerFactor
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	live := s.live[machine]
	first := now.Add(time.Hour)
	kept := live[:0]
	for _, t := range live {
		if t.After(now) {
			kept = append(kept, t)
			first = minTime(first, t)
		}
	}
	if len(kept) >= limit {
		s.live[machine] = kept
		return nil, &refusal{
			code: codeTooManyLive, detail: fmt.Sprintf("%d certificates of machine %s are valid, at most %d are allowed", len(kept), machine, limit),
			retryAfter: first.Sub(now),
		}
	}
	s.live[machine] = append(kept, ends)
	return func() { s.unclaim(machine, ends) }, nil
}

func (s *evidenceStore) unclaim(machine string, ends time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, t := range s.live[machine] {
		if t.Equal(ends) {
			s.live[machine] = append(s.live[machine][:i], s.live[machine][i+1:]...)
			return
		}
	}
}

// forgetGone drops machines that have no live certificate any more.
func (s *evidenceStore) forgetGone() {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for machine, live := range s.live {
		if !slices.ContainsFunc(live, now.Before) {
			delete(s.live, machine)
		}
	}
}

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// remember keeps evidence in memory, in place of any other if there is no room.
func (s *evidenceStore) remember(hash [sha256.Size]byte, ev *attest.Evidence, doc *api.EvidenceDocument) *storedEvidence {
	e := &storedEvidence{evidence: ev, purpose: doc.Transcript.Purpose, reportData: doc.ReportData()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxRemembered {
		for other := range s.all {
			delete(s.all, other)
			break
		}
	}
	s.all[hash] = e
	return e
}

// document reads a piece of evidence as it is kept.
func (s *evidenceStore) document(ctx context.Context, name string) ([]byte, error) {
	if hash, err := hex.DecodeString(name); err != nil || len(hash) != sha256.Size {
		return nil, refuse(codeEvidenceUnknown, "%.80q is not the hash of evidence", name)
	}
	v, err := s.store.Get(ctx, evidenceKey(name))
	if isGone(err) {
		return nil, refuse(codeEvidenceUnknown, "no evidence %s is held; it may have ended with its certificate", name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading evidence: %w", err)
	}
	return v.Data, nil
}

func (s *evidenceStore) find(ctx context.Context, hash [sha256.Size]byte) (*storedEvidence, error) {
	s.mu.Lock()
	e := s.all[hash]
	s.mu.Unlock()
	if e != nil {
		return e, nil
	}
	raw, err := s.document(ctx, hex.EncodeToString(hash[:]))
	if err != nil {
		return nil, err
	}
	doc, ev, err := api.ParseEvidenceDocument(raw)
	if err != nil {
		return nil, err
	}
	if ev.Hash() != hash {
		return nil, refuse(codeEvidenceUnknown, "the store has other evidence under this hash")
	}
	return s.remember(hash, ev, doc), nil
}

// judge returns the verdict on a node's kept evidence under a manifest. It is
// reached once for as long as neither can have changed.
func (s *evidenceStore) judge(ctx context.Context, hash [sha256.Size]byte, signed *policy.Signed, appraise func(*attest.Evidence, [64]byte) *attest.Verdict) (*attest.Verdict, error) {
	e, err := s.find(ctx, hash)
	if err != nil {
		return nil, err
	}
	if e.purpose != api.PurposeNode {
		return nil, refuse(codeEvidenceUnknown, "the evidence was given for %q, want %q", e.purpose, api.PurposeNode)
	}
	now := s.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.verdict == nil || e.manifest != signed.Digest || !e.until.IsZero() && !now.Before(e.until) {
		e.until = time.Time{}
		if t, ok := signed.Manifest.NextChange(now); ok {
			e.until = t
		}
		e.verdict, e.manifest = appraise(e.evidence, e.reportData), signed.Digest
	}
	return e.verdict, nil
}

// keepTidy removes evidence whose certificates have ended. Replicas do so at
// different times; doing it twice does no harm.
func (s *evidenceStore) keepTidy(ctx context.Context) error {
	for {
		if err := pauseFor(ctx, tidyEvery/2+rand.N(tidyEvery)); err != nil {
			return err
		}
		_ = s.tidy(ctx) // what stays is removed the next time
	}
}

func (s *evidenceStore) tidy(ctx context.Context) error {
	s.forgetGone()
	limit := fmt.Sprintf("%s%016x", expiryPrefix, s.now().Add(-tidyGrace).Unix())
	var gone []string
	full := fmt.Errorf("enough for one batch")
	for {
		gone = gone[:0]
		err := s.store.Scan(ctx, expiryPrefix, func(key string, _ store.Value) error {
			if key >= limit || len(gone) == tidyBatch {
				return full
			}
			gone = append(gone, key)
			return nil
		})
		if err != nil && err != full { //nolint:errorlint // its own value
			return err
		}
		if len(gone) == 0 {
			return nil
		}
		txn := store.Txn{Delete: append([]string(nil), gone...)}
		for _, key := range gone {
			txn.Delete = append(txn.Delete, evidenceKey(key[strings.LastIndexByte(key, '/')+1:]))
		}
		if _, err := s.store.Commit(ctx, txn); err != nil {
			return err
		}
	}
}
