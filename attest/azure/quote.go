// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/c8s-dev/c8s/attest"
)

// A TPM's quote (TPM 2.0 part 2, sections 10.12.8, 10.12.1 and 10.6.1).
const (
	tpmMagic       = 0xff544347 // TPM_GENERATED_VALUE
	tpmAttestQuote = 0x8018     // TPM_ST_ATTEST_QUOTE
	tpmSHA256      = 0x000b     // TPM_ALG_SHA256
	tpmClockSize   = 17         // TPMS_CLOCK_INFO
	numPCR         = 24
	maxName        = 68 // bytes of a TPM2B_NAME and of TPM2B_DATA: a digest and its algorithm, at most
)

// Quote is what a TPM says about its registers. Its signature is
// Runtime.VerifyQuote's question.
type Quote struct {
	ExtraData []byte // the qualifying data
	Selected  []int  // the quoted registers of the SHA-256 bank, ascending, at least one
	digest    [sha256.Size]byte
}

// ParseQuote reads a TPMS_ATTEST. A quote over no registers, or over several
// banks, is refused.
func ParseQuote(b []byte) (*Quote, error) {
	if len(b) > attest.MaxQuote {
		return nil, quoteError(fmt.Sprintf("at most %d bytes", attest.MaxQuote), fmt.Sprintf("%d bytes", len(b)))
	}
	r := &reader{rest: b}
	q := &Quote{}
	if magic, kind := r.number(4), r.number(2); r.err == nil && (magic != tpmMagic || kind != tpmAttestQuote) {
		r.refuse("a quote made inside a TPM", fmt.Sprintf("magic %#x, type %#x", magic, kind))
	}
	r.sized(maxName, "the signer's name")
	q.ExtraData = r.sized(maxName, "qualifying data")
	r.take(tpmClockSize, "clock information")
	r.take(8, "a firmware version")
	if banks := r.number(4); r.err == nil && banks != 1 {
		r.refuse("a quote over one bank of registers", fmt.Sprintf("%d banks", banks))
	}
	if alg := r.number(2); r.err == nil && alg != tpmSHA256 {
		r.refuse("the SHA-256 bank", fmt.Sprintf("algorithm %#x", alg))
	}
	if size := r.number(1); r.err == nil && size != numPCR/8 {
		r.refuse(fmt.Sprintf("a selection of %d bytes", numPCR/8), fmt.Sprint(size))
	}
	for i, bits := range r.take(numPCR/8, "a selection") {
		for bit := range 8 {
			if bits&(1<<bit) != 0 {
				q.Selected = append(q.Selected, 8*i+bit)
			}
		}
	}
	copy(q.digest[:], r.sized(sha256.Size, "a digest of registers"))
	if r.err == nil && len(q.Selected) == 0 {
		r.refuse("a quote over at least one register", "none")
	}
	if r.err == nil && len(r.rest) != 0 {
		r.refuse("nothing after the quote", fmt.Sprintf("%d bytes", len(r.rest)))
	}
	if r.err != nil {
		return nil, r.err
	}
	return q, nil
}

// CheckPCRs checks that the registers shown, from PCR 0 on and empty where not
// quoted, are exactly those of the quote, with the values it covers.
func (q *Quote) CheckPCRs(pcrs [][]byte) error {
	if len(pcrs) > numPCR {
		return pcrError(fmt.Sprintf("at most %d registers", numPCR), fmt.Sprint(len(pcrs)))
	}
	var shown []int
	h := sha256.New()
	for i, value := range pcrs {
		if len(value) == 0 {
			continue
		}
		if len(value) != sha256.Size {
			return pcrError(fmt.Sprintf("PCR %d of %d bytes", i, sha256.Size), fmt.Sprint(len(value)))
		}
		shown = append(shown, i)
		h.Write(value)
	}
	if !slices.Equal(shown, q.Selected) {
		return pcrError(fmt.Sprintf("the quoted registers %v", q.Selected), fmt.Sprint(shown))
	}
	if got := h.Sum(nil); !bytes.Equal(got, q.digest[:]) {
		return pcrError("registers with the quoted digest "+hex.EncodeToString(q.digest[:]), hex.EncodeToString(got))
	}
	return nil
}

func quoteError(expected, actual string) error {
	return attest.NewFailure(CodeQuote, expected, actual, "")
}

func pcrError(expected, actual string) error {
	return attest.NewFailure(CodePCRs, expected, actual, "give the registers as the TPM quoted them")
}

// reader takes big-endian fields off the front and keeps the first error.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) refuse(expected, actual string) {
	if r.err == nil {
		r.err = quoteError(expected, actual)
	}
}

func (r *reader) take(n int, what string) []byte {
	if r.err != nil || len(r.rest) < n {
		r.refuse(fmt.Sprintf("%s of %d bytes", what, n), fmt.Sprintf("%d bytes", len(r.rest)))
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) number(size int) uint64 {
	var wide [8]byte
	copy(wide[8-size:], r.take(size, "a number"))
	return binary.BigEndian.Uint64(wide[:])
}

func (r *reader) sized(limit int, what string) []byte {
	n := int(r.number(2)) //nolint:gosec // 16 bits
	if n > limit {
		r.refuse(fmt.Sprintf("%s of at most %d bytes", what, limit), fmt.Sprint(n))
		return nil
	}
	return bytes.Clone(r.take(n, what))
}
