// SPDX-License-Identifier: Apache-2.0

// Package attest keeps one promise: what a piece of evidence is taken to prove
// is written down check by check, with the expected and the actual value, and a
// check that could not be made counts as failed.
//
// It holds the types the sub-packages share: Evidence and its wire form, the
// Transcript that binds evidence to a key and a session, and the Verdict.
package attest

import (
	"context"
	"crypto/sha256"
)

// TEESEVSNP names AMD SEV-SNP, as the manifest spells it.
const TEESEVSNP = "sev-snp"

// Caps on evidence from the network. An SNP report has 1,184 bytes and AMD's
// certificates have up to 1.7 KB.
const (
	MaxReport  = 4 << 10 // bytes
	MaxCert    = 8 << 10 // bytes of one certificate's DER
	MaxCerts   = 4
	MaxProduct = 32       // bytes
	MaxCMW     = 40 << 10 // bytes of a whole CMW record
)

// Evidence is a TEE's signed report and the certificates that endorse the key
// it is signed with. Nothing in it is trusted before appraisal.
type Evidence struct {
	TEE     string   // TEESEVSNP
	Product string   // "Milan", "Genoa": only a hint, needed for version 2 reports, which do not say
	Report  []byte   // exactly as received
	Certs   [][]byte // DER: leaf (VCEK), intermediate (ASK), root (ARK)
}

// Hash identifies the evidence: the SHA-256 of its CMW record.
func (e *Evidence) Hash() [32]byte {
	return sha256.Sum256(encodeRecord(e))
}

// Attester asks a TEE for evidence over 64 bytes of report data, which come
// from Transcript.ReportData. Implementations may be slow (a real machine takes
// milliseconds and limits the rate) and must be safe for concurrent use.
type Attester interface {
	Attest(ctx context.Context, reportData [64]byte) (*Evidence, error)
}
