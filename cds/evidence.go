// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"crypto/sha256"
	"strings"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/policy"
)

// evidenceBacking is how long evidence backs pods: as long as the node's certificate.
const evidenceBacking = ca.MaxLife

// maxPerMachine bounds the evidence kept of one machine. A node holds one
// certificate and renews it at half its life; who attests more often than that
// loses the oldest. Behind a VLEK all machines of a provider have one name.
const (
	maxPerMachine  = 8
	maxPerProvider = 2048
)

// evidenceStore keeps the evidence of enrolled nodes, so that it can be
// judged again for every pod under the manifest then in force.
type evidenceStore struct {
	now func() time.Time

	mu  sync.Mutex
	all map[[sha256.Size]byte]*storedEvidence
	of  map[string][][sha256.Size]byte // by machine, oldest first
}

type storedEvidence struct {
	evidence   *attest.Evidence
	reportData [64]byte
	expires    time.Time

	mu       sync.Mutex
	manifest policy.Digest // under which verdict was reached
	verdict  *attest.Verdict
}

func newEvidenceStore(now func() time.Time) *evidenceStore {
	return &evidenceStore{now: now, all: map[[sha256.Size]byte]*storedEvidence{}, of: map[string][][sha256.Size]byte{}}
}

// keep stores a machine's evidence for life and returns its hash.
func (s *evidenceStore) keep(machine string, ev *attest.Evidence, reportData [64]byte, life time.Duration) [sha256.Size]byte {
	hash, now := ev.Hash(), s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[hash] = &storedEvidence{evidence: ev, reportData: reportData, expires: now.Add(life)}
	held := append(s.of[machine], hash)
	limit := maxPerMachine
	if strings.HasPrefix(machine, policy.MachineProvider) {
		limit = maxPerProvider
	}
	for len(held) > limit || s.expired(held[0], now) {
		delete(s.all, held[0])
		held = held[1:]
	}
	s.of[machine] = held
	return hash
}

func (s *evidenceStore) expired(hash [sha256.Size]byte, now time.Time) bool {
	e := s.all[hash]
	return e == nil || !now.Before(e.expires)
}

// judge returns the verdict on stored evidence under a manifest. It is
// reached once per manifest: evidence and manifest do not change, and the
// evidence is forgotten before its certificates can matter.
func (s *evidenceStore) judge(hash [sha256.Size]byte, signed *policy.Signed, appraise func(*attest.Evidence, [64]byte) *attest.Verdict) (*attest.Verdict, error) {
	s.mu.Lock()
	e := s.all[hash]
	s.mu.Unlock()
	if e == nil || !s.now().Before(e.expires) {
		return nil, refuse(codeEvidenceUnknown, "no evidence with this hash is held; the node must enrol again")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.verdict == nil || e.manifest != signed.Digest {
		e.verdict, e.manifest = appraise(e.evidence, e.reportData), signed.Digest
	}
	return e.verdict, nil
}
