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

// The TEEs, as the manifest spells them.
const (
	TEESEVSNP = "sev-snp"
	TEETDX    = "tdx"
)

// Caps on evidence from the network. An SNP report has 1,184 bytes, a TDX quote
// with its chain about 5 KB and up to 3 KB of padding; AMD's certificates have
// up to 1.7 KB. The whole must fit a TLS certificate message.
const (
	MaxReport   = 16 << 10 // bytes
	MaxCert     = 8 << 10  // bytes of one certificate's DER
	MaxCerts    = 4
	MaxProduct  = 32        // bytes
	MaxEventLog = 96 << 10  // bytes
	MaxRuntime  = 8 << 10   // bytes of a paravisor's runtime claims
	MaxQuote    = 1 << 10   // bytes of a TPM's quote, and of its signature
	MaxCMW      = 224 << 10 // bytes of a whole CMW record
)

// Evidence is a TEE's signed report and the certificates that endorse the key
// it is signed with. Nothing in it is trusted before appraisal.
type Evidence struct {
	TEE        string       // TEESEVSNP or TEETDX
	Product    string       // "Milan", "Genoa": only a hint, needed for version 2 reports, which do not say
	Report     []byte       // SNP report or TDX quote, exactly as received
	Certs      [][]byte     // DER of SNP's chain: VCEK or VLEK, ASK or ASVK, ARK; a TDX quote carries its own
	EventLog   []byte       // TDX: the CC event log (CCEL) the RTMRs follow from, or empty
	VTPM       *VTPM        // where a paravisor stands between the guest and the hardware
	Collateral []Collateral // stapled
}

// VTPM is what a paravisor's virtual TPM says about the guest. The hardware
// report vouches for the paravisor and, by REPORT_DATA, for Runtime; Runtime
// names the key that signs Quote; Quote covers the PCRs and the report data of
// the Transcript.
type VTPM struct {
	Runtime   []byte   // Azure: the runtime claims, JSON, byte for byte
	Quote     []byte   // TPMS_ATTEST
	Signature []byte   // RSASSA over Quote, without a header
	PCRs      [][]byte // SHA-256 bank, from PCR 0 on; empty where a PCR is not quoted
}

// Hash identifies the evidence: the SHA-256 of its CMW record without stapled
// collateral, since fresher collateral does not make other evidence.
func (e *Evidence) Hash() [32]byte {
	bare := *e
	bare.Collateral = nil
	return sha256.Sum256(encodeRecord(&bare))
}

// Attester asks a TEE for evidence over 64 bytes of report data, which come
// from Transcript.ReportData. Implementations may be slow (a real machine takes
// milliseconds and limits the rate) and must be safe for concurrent use.
type Attester interface {
	Attest(ctx context.Context, reportData [64]byte) (*Evidence, error)
}
