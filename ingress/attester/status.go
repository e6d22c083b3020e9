// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"cmp"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/policy"
)

// Status is what an attester can say of itself.
type Status struct {
	Proofs   []ProofStatus  `json:"proofs"`           // of the TLS keys, by key
	Made     time.Time      `json:"made,omitzero"`    // the last round that succeeded
	Manifest proof.Followed `json:"manifest"`         // as the proofs state
	DenyList proof.Followed `json:"denyList"`         // likewise
	Bundle   policy.Digest  `json:"bundle,omitempty"` // of the CDS's keys

	// These are set while the proof cannot be renewed.
	Failing time.Time `json:"failing,omitzero"` // since when
	Code    string    `json:"code,omitempty"`
	Error   string    `json:"error,omitempty"` // for operators, not for strangers

	Rounds       uint64 `json:"rounds"`       // that succeeded
	Nonces       uint64 `json:"nonces"`       // answered
	NoncesDenied uint64 `json:"noncesDenied"` // told to come again
	Fetches      uint64 `json:"fetches"`      // documents asked of the CDS
	CacheBytes   int    `json:"cacheBytes"`
}

// ProofStatus is the proof of one TLS key.
type ProofStatus struct {
	Key       policy.Digest `json:"key"` // of the SubjectPublicKeyInfo
	Beacon    time.Time     `json:"beacon"`
	Until     time.Time     `json:"until"` // when clients refuse it by default
	LogIndex  int64         `json:"logIndex"`
	Simulated bool          `json:"simulated"`
	Bytes     int           `json:"bytes"`
}

// Status is a snapshot.
func (a *Attester) Status() Status {
	s := a.shown.Load()
	out := Status{Proofs: []ProofStatus{}, Made: s.made, Nonces: a.nonces.answered.Load(), NoncesDenied: a.nonces.limited.Load(), Fetches: a.cache.fetch.Load()}
	for key, p := range s.keys {
		out.Proofs = append(out.Proofs, ProofStatus{
			Key: policy.DigestFrom(key), Beacon: p.proven.Beacon.Time, Until: p.proven.Until, LogIndex: p.proven.Index,
			Simulated: p.proven.Verdict.Simulated, Bytes: len(p.body),
		})
		out.Manifest, out.DenyList = p.proven.Statement.Manifest, p.proven.Statement.DenyList
	}
	slices.SortFunc(out.Proofs, func(x, y ProofStatus) int { return cmp.Compare(x.Key, y.Key) })
	if s.bundle != nil {
		out.Bundle = s.bundle.Digest()
	}
	a.mu.Lock()
	out.Rounds, out.Failing = a.fate.made, a.fate.since
	if a.fate.err != nil {
		out.Code, out.Error = codeOf(a.fate.err), a.fate.err.Error()
	}
	a.mu.Unlock()
	a.cache.mu.Lock()
	out.CacheBytes = a.cache.bytes
	a.cache.mu.Unlock()
	return out
}
