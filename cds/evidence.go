// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/policy"
)

// evidenceBacking is how long evidence backs pods: as long as the node's certificate.
const evidenceBacking = ca.MaxLife

const maxEvidence = 16384

// evidenceStore keeps the evidence of enrolled nodes, so that it can be
// judged again for every pod under the manifest then in force.
type evidenceStore struct {
	now func() time.Time

	mu  sync.Mutex
	all map[[sha256.Size]byte]*storedEvidence
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
	return &evidenceStore{now: now, all: map[[sha256.Size]byte]*storedEvidence{}}
}

// keep stores evidence for life and returns its hash.
func (s *evidenceStore) keep(ev *attest.Evidence, reportData [64]byte, life time.Duration) [sha256.Size]byte {
	hash, now := ev.Hash(), s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= maxEvidence {
		for h, e := range s.all {
			if !now.Before(e.expires) {
				delete(s.all, h)
			}
		}
	}
	s.all[hash] = &storedEvidence{evidence: ev, reportData: reportData, expires: now.Add(life)}
	return hash
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
