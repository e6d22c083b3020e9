// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/verify"

	"github.com/c8s-dev/c8s/attest"
)

// evidenceDir finds the captured evidence of real machines.
func evidenceDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("C8S_EVIDENCE")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "../../../shared/evidence")
	}
	dir = filepath.Join(dir, "snp")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no captured evidence: %v: set C8S_EVIDENCE to its folder", err)
	}
	return dir
}

func readCert(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(b); block != nil {
		return block.Bytes
	}
	return b
}

type realCase struct {
	name, report, leaf string
	product            Product
	signer             SigningKey
	now                time.Time
}

func realCases() []realCase {
	today := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	return []realCase{
		{"milan version 2", "milan_v2_report.bin", "milan_v2_vcek.der", Milan, KeyVCEK, today},
		{"milan version 3", "milan_attestation_report.bin", "milan_vcek.pem", Milan, KeyVCEK, today},
		{"genoa version 3", "genoa_attestation_report.bin", "genoa_vcek.pem", Genoa, KeyVCEK, today},
		{"milan by VLEK", "milan_vlek_report.bin", "milan_vlek.der", Milan, KeyVLEK, time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)},
	}
}

// certs completes the leaf with AMD's certificates.
func (c realCase) certs(t testing.TB) [][]byte {
	t.Helper()
	certs, err := Complete([][]byte{readCert(t, filepath.Join(evidenceDir(t), c.leaf))}, c.product, c.signer)
	if err != nil {
		t.Fatal(err)
	}
	return certs
}

func (c realCase) raw(t testing.TB) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(evidenceDir(t), c.report))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (c realCase) load(t testing.TB) (*Report, *Chain) {
	t.Helper()
	r, err := ParseReport(c.raw(t))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ParseChain(c.certs(t))
	if err != nil {
		t.Fatal(err)
	}
	return r, chain
}

// verifyAll makes the checks that need no manifest, as appraisal does.
func verifyAll(r *Report, c *Chain, hint Product, now time.Time) error {
	p, err := r.Product(string(hint))
	if err != nil {
		return err
	}
	if err := errors.Join(c.Verify(), c.CheckDates(now)); err != nil {
		return err
	}
	if err := errors.Join(c.CheckProduct(p), c.CheckTCB(r)); err != nil {
		return err
	}
	if c.Endorsement.ChipID != nil {
		if err := c.CheckChip(r); err != nil {
			return err
		}
	}
	return c.VerifySignature(r)
}

func TestRealEvidenceVerifies(t *testing.T) {
	for _, c := range realCases() {
		t.Run(c.name, func(t *testing.T) {
			r, chain := c.load(t)
			if err := verifyAll(r, chain, c.product, c.now); err != nil {
				t.Fatal(err)
			}
			if chain.Simulated() || chain.Endorsement.Signer != c.signer {
				t.Errorf("simulated %v, signed by a %s", chain.Simulated(), chain.Endorsement.Signer)
			}
		})
	}
}

func TestRealVLEKEvidence(t *testing.T) {
	c := realCases()[3]
	r, chain := c.load(t)
	e := chain.Endorsement
	if e.ChipID != nil || e.CSPID != "CN=cc-us-east-2.amazonaws.com" || r.VMPL != 1 {
		t.Errorf("%+v", e)
	}
	if err := chain.CheckChip(r); attest.FailureCode(err) != CodeNoEndorsedChip {
		t.Errorf("chip: %v", err)
	}
	for _, now := range []time.Time{time.Date(2024, 12, 10, 0, 0, 0, 0, time.UTC), time.Date(2025, 12, 11, 0, 0, 0, 0, time.UTC)} {
		if err := verifyAll(r, chain, Milan, now); attest.FailureCode(err) != CodeChainExpired {
			t.Errorf("at %s: %v", now, err)
		}
	}
	if !r.Provisional() {
		t.Error("current and committed TCB differ, and it does not say so")
	}
	_, ark, _ := VendorCerts(Milan, KeyVLEK)
	ask, _, _ := VendorCerts(Milan, KeyVCEK)
	underASK, err := ParseChain([][]byte{chain.Leaf.Raw, ask, ark})
	if err != nil {
		t.Fatal(err)
	}
	if err := underASK.Verify(); attest.FailureCode(err) != CodeChain {
		t.Errorf("under the ASK: %v", err)
	}
}

// TestGoSEVGuestAgreesAboutRealEvidence asks another verifier about the same
// bytes, under its own copy of AMD's roots.
func TestGoSEVGuestAgreesAboutRealEvidence(t *testing.T) {
	for _, c := range realCases()[:3] { // it has no ASVK
		t.Run(c.name, func(t *testing.T) {
			r, chain := c.load(t)
			if err := verify.RawSnpReport(r.raw[:], &verify.Options{DisableCertFetching: true, Now: c.now}); err == nil {
				t.Error("it accepts a report without certificates")
			}
			table := (&CertTable{VCEK: chain.Leaf.Raw, ASK: chain.Intermediate.Raw, ARK: chain.Root.Raw}).Marshal()
			attestation, err := abi.ReportCertsToProto(append(r.raw[:], table...))
			if err != nil {
				t.Fatal(err)
			}
			options := &verify.Options{DisableCertFetching: true, Now: c.now, Product: &sevsnp.SevProduct{Name: sevsnp.SevProduct_SEV_PRODUCT_MILAN}}
			if c.product == Genoa {
				options.Product.Name = sevsnp.SevProduct_SEV_PRODUCT_GENOA
			}
			if r.Version > 2 {
				options.Product = nil // the report says
			}
			if err := verify.SnpAttestation(attestation, options); err != nil {
				t.Error(err)
			}
		})
	}
}
