// SPDX-License-Identifier: Apache-2.0

// Package azure reads what Microsoft's paravisor puts between the guest and the
// hardware. Its invariant: every link of the chain is checked on received bytes:
// the hardware's REPORT_DATA is the hash of the runtime claims, these name the
// key of the virtual TPM, that key signed the quote, and the quote covers
// exactly the registers that are shown.
//
// Sources: Microsoft, "Azure confidential VM guest attestation design" and the
// layout of the HCL report; TCG TPM 2.0 Library part 2, TPMS_ATTEST. The package
// judges nothing by policy.
package azure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/snp"
)

// The stable codes of this package's refusals.
const (
	CodeHCL       = "hcl-format"
	CodeRuntime   = "runtime-claims"
	CodeBinding   = "runtime-binding"
	CodeQuote     = "tpm-quote"
	CodeSignature = "tpm-signature"
	CodePCRs      = "tpm-pcrs"
	CodeImport    = "import-format"
)

// The HCL report: header, hardware report, runtime header, runtime claims.
const (
	hclHeaderSize     = 32
	hclReportSize     = snp.ReportSize // of both TEEs' field; TDX uses the first 1,024 bytes
	tdReportSize      = 1024
	runtimeHeaderSize = 20
	reportTypeSNP     = 2
	reportTypeTDX     = 4
	hashSHA256        = 1
	maxHCL            = 16 << 10 // bytes; the TPM index has 2,600
)

// HCL is a parsed HCL report. Nothing in it has been checked.
type HCL struct {
	TEE     string // attest.TEESEVSNP or attest.TEETDX
	Report  []byte // SNP: ATTESTATION_REPORT; TDX: TDREPORT, which only this machine can check
	Runtime []byte // the runtime claims, JSON
}

// ParseHCL reads the HCL report as the TPM's index 0x01400001 holds it: zeros
// may follow the claims.
func ParseHCL(b []byte) (*HCL, error) {
	const runtimeAt = hclHeaderSize + hclReportSize
	if len(b) < runtimeAt+runtimeHeaderSize || len(b) > maxHCL {
		return nil, hclError(fmt.Sprintf("%d to %d bytes", runtimeAt+runtimeHeaderSize, maxHCL), fmt.Sprintf("%d bytes", len(b)))
	}
	if !bytes.HasPrefix(b, []byte("HCLA")) {
		return nil, hclError(`the signature "HCLA"`, fmt.Sprintf("%q", b[:4]))
	}
	le, h := binary.LittleEndian, b[runtimeAt:][:runtimeHeaderSize]
	kind, hash, size := le.Uint32(h[8:]), le.Uint32(h[12:]), le.Uint32(h[16:])
	rest := b[runtimeAt+runtimeHeaderSize:]
	if hash != hashSHA256 {
		return nil, hclError("hash type 1 (SHA-256)", fmt.Sprint(hash))
	}
	if size == 0 || size > attest.MaxRuntime || uint64(size) > uint64(len(rest)) {
		return nil, hclError(fmt.Sprintf("runtime claims of 1 to %d bytes inside the report", attest.MaxRuntime), fmt.Sprintf("%d of %d bytes", size, len(rest)))
	}
	if len(bytes.Trim(rest[size:], "\x00")) != 0 {
		return nil, hclError("nothing but zeros after the claims", "something else")
	}
	out := &HCL{Runtime: bytes.Clone(rest[:size])}
	switch kind {
	case reportTypeSNP:
		out.TEE, out.Report = attest.TEESEVSNP, bytes.Clone(b[hclHeaderSize:runtimeAt])
	case reportTypeTDX:
		out.TEE, out.Report = attest.TEETDX, bytes.Clone(b[hclHeaderSize:][:tdReportSize])
	default:
		return nil, hclError("report type 2 (SEV-SNP) or 4 (TDX)", fmt.Sprint(kind))
	}
	return out, nil
}

func hclError(expected, actual string) error {
	return attest.NewFailure(CodeHCL, expected, actual, "")
}

// CheckBinding checks that the hardware vouches for the runtime claims: the
// first half of REPORT_DATA is their SHA-256, the second is zero.
func CheckBinding(runtime []byte, reportData [64]byte) error {
	var want [64]byte
	sum := sha256.Sum256(runtime)
	copy(want[:], sum[:])
	if want != reportData {
		return attest.NewFailure(CodeBinding, hex.EncodeToString(want[:]), hex.EncodeToString(reportData[:]), "the runtime claims are of another machine or boot: ask for new evidence")
	}
	return nil
}

// QualifyingData is what a TPM's quote is asked to cover for report data: its
// SHA-256, since TPMs take no more than 50 bytes.
func QualifyingData(reportData [64]byte) [sha256.Size]byte { return sha256.Sum256(reportData[:]) }
