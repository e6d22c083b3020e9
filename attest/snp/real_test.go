// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"
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

// amdRoots returns AMD's ASK and ARK as another project embeds them.
func amdRoots(t testing.TB, product string) (ask, ark []byte) {
	t.Helper()
	roots, err := trust.GetDefaultRootCerts(product)
	if err != nil {
		t.Fatal(err)
	}
	return roots.ProductCerts.Ask.Raw, roots.ProductCerts.Ark.Raw
}

type realCase struct{ name, report, vcek, product string }

func realCases() []realCase {
	return []realCase{
		{"milan version 2", "milan_v2_report.bin", "milan_v2_vcek.der", "Milan"},
		{"milan version 3", "milan_attestation_report.bin", "milan_vcek.pem", "Milan"},
		{"genoa version 3", "genoa_attestation_report.bin", "genoa_vcek.pem", "Genoa"},
	}
}

func (c realCase) load(t testing.TB) (*Report, *Chain) {
	t.Helper()
	dir := evidenceDir(t)
	raw, err := os.ReadFile(filepath.Join(dir, c.report))
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseReport(raw)
	if err != nil {
		t.Fatal(err)
	}
	ask, ark := amdRoots(t, c.product)
	chain, err := ParseChain([][]byte{readCert(t, filepath.Join(dir, c.vcek)), ask, ark})
	if err != nil {
		t.Fatal(err)
	}
	return r, chain
}

func verifyAll(r *Report, c *Chain, product string, now time.Time) error {
	p, err := r.Product(product)
	if err != nil {
		return err
	}
	for _, check := range []func() error{
		c.Verify,
		func() error { return c.CheckDates(now) },
		func() error { return c.CheckProduct(p) },
		func() error { return c.CheckTCB(r) },
		func() error { return c.CheckChip(r) },
		func() error { return c.VerifySignature(r) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func realClock() time.Time { return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC) }

func TestRealEvidenceVerifies(t *testing.T) {
	for _, c := range realCases() {
		t.Run(c.name, func(t *testing.T) {
			r, chain := c.load(t)
			if err := verifyAll(r, chain, c.product, realClock()); err != nil {
				t.Fatal(err)
			}
			if chain.Simulated() {
				t.Error("real evidence counts as simulated")
			}
		})
	}
}

// TestGoSEVGuestAgreesAboutRealEvidence asks another verifier about the same
// bytes, under its own copy of AMD's roots.
func TestGoSEVGuestAgreesAboutRealEvidence(t *testing.T) {
	for _, c := range realCases() {
		t.Run(c.name, func(t *testing.T) {
			r, chain := c.load(t)
			if err := verify.RawSnpReport(r.raw[:], &verify.Options{DisableCertFetching: true, Now: realClock()}); err == nil {
				t.Error("it accepts a report without certificates")
			}
			table := MarshalCertTable(chain.VCEK.Raw, chain.ASK.Raw, chain.ARK.Raw)
			attestation, err := abi.ReportCertsToProto(append(r.raw[:], table...))
			if err != nil {
				t.Fatal(err)
			}
			options := &verify.Options{DisableCertFetching: true, Now: realClock(), Product: &sevsnp.SevProduct{Name: sevsnp.SevProduct_SEV_PRODUCT_MILAN}}
			if c.product == "Genoa" {
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
