// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/sha512"
	"encoding/binary"
)

// transcriptTag separates these hashes from all others; the purpose follows.
const transcriptTag = "c8s/report/v1/"

// Transcript is everything that evidence commits to. A field that does not
// apply is empty, which differs from every other value. The values are hashes
// or random strings; the caller checks that they are what they should be.
type Transcript struct {
	Purpose    string // "enrol/node", "native/cds", …
	Nonce      []byte // from the verifier, single-use
	Exporter   []byte // of the TLS session the evidence travels in (RFC 8446 section 7.5)
	SPKIHash   []byte // SHA-256 of the DER of the attested public key
	HPKEHash   []byte // SHA-256 of the serialised HPKE public key
	ClaimsHash []byte // SHA-256 of claims made beside the evidence
	GPUHash    []byte // SHA-256 of the GPU evidence
	Beacon     []byte // freshness beacon, time and signature
}

// ReportData is the value for the report's REPORT_DATA: SHA-512 over the tag
// with the purpose and then each field in the order of the struct, every one
// preceded by its length in bytes as a big-endian uint64. The lengths make the
// concatenation unambiguous. docs/vectors/transcript.json has examples.
func (t Transcript) ReportData() [64]byte {
	h := sha512.New()
	var length [8]byte
	for _, field := range [][]byte{
		[]byte(transcriptTag + t.Purpose),
		t.Nonce, t.Exporter, t.SPKIHash, t.HPKEHash, t.ClaimsHash, t.GPUHash, t.Beacon,
	} {
		binary.BigEndian.PutUint64(length[:], uint64(len(field)))
		h.Write(length[:])
		h.Write(field)
	}
	return [64]byte(h.Sum(nil))
}
