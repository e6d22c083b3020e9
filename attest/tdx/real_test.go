// SPDX-License-Identifier: Apache-2.0

package tdx_test

import (
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/tdx"
)

// evidenceDir finds the captured evidence of real machines.
func evidenceDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("C8S_EVIDENCE")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "../../../shared/evidence")
	}
	dir = filepath.Join(dir, "tdx")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no captured evidence: %v: set C8S_EVIDENCE to its folder", err)
	}
	return dir
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(evidenceDir(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func quoteOf(t testing.TB, name string) *tdx.Quote {
	t.Helper()
	q, err := tdx.ParseQuote(readFile(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func chainOf(t testing.TB, q *tdx.Quote) *tdx.Chain {
	t.Helper()
	c, err := tdx.NewCache(1).Chain(q.PCKChain)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func derOf(t testing.TB, text []byte) (certs [][]byte) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certs = append(certs, block.Bytes)
	}
	return certs
}

// pcs returns Intel's collateral of March 2026.
func pcs(t testing.TB, fmspc string) []attest.Collateral {
	t.Helper()
	signers := derOf(t, readFile(t, "pcs_2026-03_tcb_signing_chain.pem"))
	return []attest.Collateral{
		{Kind: attest.IntelTCBInfo, Body: readFile(t, "pcs_2026-03_tcb_info_"+fmspc+".json"), Certs: signers},
		{Kind: attest.IntelQEIdentity, Body: readFile(t, "pcs_2026-03_td_qe_identity.json"), Certs: derOf(t, readFile(t, "pcs_2026-03_qe_identity_signing_chain.pem"))},
		{Kind: attest.IntelPCKCRL, Body: readFile(t, "pcs_2026-03_pck_crl_platform.der")},
		{Kind: attest.IntelRootCRL, Body: readFile(t, "pcs_2026-03_root_ca_crl.der")},
	}
}

// b0c06f returns the collateral that belongs to quote_v4_b0c06f.dat.
func b0c06f(t testing.TB) []attest.Collateral {
	t.Helper()
	var c struct {
		TCBInfo      string  `json:"tcb_info"`
		TCBSignature string  `json:"tcb_info_signature"`
		TCBChain     string  `json:"tcb_info_issuer_chain"`
		QEIdentity   string  `json:"qe_identity"`
		QESignature  string  `json:"qe_identity_signature"`
		QEChain      string  `json:"qe_identity_issuer_chain"`
		PCKCRL       hexText `json:"pck_crl"`
		RootCRL      hexText `json:"root_ca_crl"`
	}
	if err := json.Unmarshal(readFile(t, "quote_v4_b0c06f_collateral.json"), &c); err != nil {
		t.Fatal(err)
	}
	signed := func(name, part, signature string) []byte {
		return []byte(`{"` + name + `":` + part + `,"signature":"` + signature + `"}`)
	}
	return []attest.Collateral{
		{Kind: attest.IntelTCBInfo, Body: signed("tcbInfo", c.TCBInfo, c.TCBSignature), Certs: derOf(t, []byte(c.TCBChain))},
		{Kind: attest.IntelQEIdentity, Body: signed("enclaveIdentity", c.QEIdentity, c.QESignature), Certs: derOf(t, []byte(c.QEChain))},
		{Kind: attest.IntelPCKCRL, Body: c.PCKCRL},
		{Kind: attest.IntelRootCRL, Body: c.RootCRL},
	}
}

func TestRealQuotesVerify(t *testing.T) {
	for name, padding := range map[string]int{
		"quote_v4_baremetal.dat": 307, "quote_v4_debug_td.dat": 0, "quote_v5.dat": 0, "quote_v4_b0c06f.dat": 70,
	} {
		q := quoteOf(t, name)
		if q.Padding != padding {
			t.Errorf("%s: padding %d, want %d", name, q.Padding, padding)
		}
		c := chainOf(t, q)
		for what, err := range map[string]error{
			"QE": q.VerifyQE(c), "binding": q.CheckBinding(), "signature": q.VerifySignature(), "attributes": q.CheckAttributes(),
			"dates": c.CheckDates(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)),
		} {
			if err != nil {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		if q.Debug() != (name == "quote_v4_debug_td.dat") || c.Simulated() {
			t.Errorf("%s: debug %v, simulated %v", name, q.Debug(), c.Simulated())
		}
		t.Logf("%s: FMSPC %x PIID %x PPID %x root %s", name, c.PCK.FMSPC, c.PCK.PIID, c.PCK.PPID, c.Root.Subject)
	}
}

func TestRealCollateral(t *testing.T) {
	march, summer := time.Date(2026, 3, 20, 0, 0, 0, 0, time.UTC), time.Date(2025, 7, 1, 0, 0, 0, 0, time.UTC)
	today := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name  string
		quote string
		items []attest.Collateral
		now   time.Time
		want  tdx.TCBStatus
		code  string
	}{
		{"debug TD", "quote_v4_debug_td.dat", pcs(t, "50806f000000"), march, tdx.OutOfDate, ""},
		{"debug TD today", "quote_v4_debug_td.dat", pcs(t, "50806f000000"), today, "", tdx.CodeCollateralExpired},
		// its microcode is older than every level of Intel's
		{"version 5", "quote_v5.dat", pcs(t, "90c06f000000"), march, "", tdx.CodeTCBUnknown},
		{"other platform's TCB info", "quote_v5.dat", pcs(t, "50806f000000"), march, "", tdx.CodeCollateralMissing},
		{"b0c06f", "quote_v4_b0c06f.dat", b0c06f(t), summer, tdx.UpToDate, ""},
		{"b0c06f today", "quote_v4_b0c06f.dat", b0c06f(t), today, "", tdx.CodeCollateralExpired},
		{"none", "quote_v5.dat", nil, march, "", tdx.CodeCollateralMissing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := quoteOf(t, tt.quote)
			e, err := tdx.NewCache(2).Evaluate(q, chainOf(t, q), tt.items, tt.now)
			if attest.FailureCode(err) != tt.code {
				t.Fatalf("%v, want code %q", err, tt.code)
			}
			if err == nil && e.Status != tt.want {
				t.Errorf("%+v, want %s", e, tt.want)
			}
		})
	}
}

func TestRealEventLogs(t *testing.T) {
	q := quoteOf(t, "quote_v4_baremetal.dat")
	for name, code := range map[string]string{"ccel_baremetal.dat": "", "ccel_other_boot.dat": tdx.CodeEventLogReplay} {
		events, err := tdx.ParseEventLog(readFile(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := q.CheckEventLog(events); attest.FailureCode(err) != code {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Log(len(events), err)
		}
	}
}
