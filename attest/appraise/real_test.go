// SPDX-License-Identifier: Apache-2.0

package appraise_test

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/azure"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tdx"
	"github.com/c8s-dev/c8s/policy"
)

// captured reads a file of evidence captured on real machines.
func captured(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("C8S_EVIDENCE")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "../../../shared/evidence")
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Skipf("no captured evidence: %v: set C8S_EVIDENCE to its folder", err)
	}
	return b
}

func capturedSNP(t testing.TB, p snp.Product, signer snp.SigningKey, report, leaf string) *attest.Evidence {
	t.Helper()
	cert := captured(t, "snp/"+leaf)
	if block, _ := pem.Decode(cert); block != nil {
		cert = block.Bytes
	}
	certs, err := snp.Complete([][]byte{cert}, p, signer)
	if err != nil {
		t.Fatal(err)
	}
	return &attest.Evidence{TEE: attest.TEESEVSNP, Product: string(p), Report: captured(t, "snp/"+report), Certs: certs}
}

func capturedAzure(t testing.TB, name string) *attest.Evidence {
	t.Helper()
	ev, err := azure.ImportJSON(captured(t, "azure/"+name))
	if err != nil {
		t.Fatal(err)
	}
	if ev.TEE == attest.TEESEVSNP {
		if ev.Certs, err = snp.Complete(ev.Certs, snp.Milan, snp.KeyVCEK); err != nil {
			t.Fatal(err)
		}
	}
	return ev
}

// What real machines said is accepted by the policy proposed from it, and by
// no policy that differs in what counts.
func TestRealEvidenceIsAcceptedUnderItsOwnReferenceValues(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	const intel = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
	const milan, genoa = "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd", "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"
	for name, c := range map[string]struct {
		ev   *attest.Evidence
		now  time.Time
		root string
	}{
		"milan 2":        {capturedSNP(t, snp.Milan, snp.KeyVCEK, "milan_v2_report.bin", "milan_v2_vcek.der"), now, milan},
		"milan 3":        {capturedSNP(t, snp.Milan, snp.KeyVCEK, "milan_attestation_report.bin", "milan_vcek.pem"), now, milan},
		"genoa 3":        {capturedSNP(t, snp.Genoa, snp.KeyVCEK, "genoa_attestation_report.bin", "genoa_vcek.pem"), now, genoa},
		"milan VLEK":     {capturedSNP(t, snp.Milan, snp.KeyVLEK, "milan_vlek_report.bin", "milan_vlek.der"), time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC), milan},
		"TDX bare metal": {&attest.Evidence{TEE: attest.TEETDX, Report: captured(t, "tdx/quote_v4_baremetal.dat"), EventLog: tdx.TrimEventLog(captured(t, "tdx/ccel_baremetal.dat"))}, now, intel},
		"TDX debug":      {&attest.Evidence{TEE: attest.TEETDX, Report: captured(t, "tdx/quote_v4_debug_td.dat")}, now, intel},
		"TDX 5":          {&attest.Evidence{TEE: attest.TEETDX, Report: captured(t, "tdx/quote_v5.dat")}, now, intel},
		"Azure SNP":      {capturedAzure(t, "snp_milan.json"), now, milan},
		"Azure TDX":      {capturedAzure(t, "tdx.json"), now, intel},
	} {
		t.Run(name, func(t *testing.T) {
			req := appraise.Request{Role: policy.RoleNode, Unbound: true, Now: c.now}
			substrate, v := appraise.Propose(c.ev, req)
			if !v.OK {
				t.Fatalf("not genuine:\n%s", v)
			}
			substrate.Roles = []policy.Role{policy.RoleNode}
			if string(substrate.Roots[0]) != "sha256:"+c.root {
				t.Errorf("root %s", substrate.Roots[0])
			}
			req.Policy = appraisalPolicy(t, substrate)
			if v := appraise.Appraise(c.ev, req); !v.OK || v.Simulated {
				t.Errorf("refused:\n%s", v)
			}
			strict := substrate
			strict.Measurements = []string{"00" + substrate.Measurements[0][2:]}
			req.Policy = appraisalPolicy(t, strict)
			if v := appraise.Appraise(c.ev, req); v.OK || v.Code != "measurement" {
				t.Errorf("another measurement: %s", v.Code)
			}
			req.Policy, req.Unbound, req.ReportData = appraisalPolicy(t, substrate), false, wanted()
			if v := appraise.Appraise(c.ev, req); v.OK || v.Code != appraise.CodeReportData {
				t.Errorf("bound to somebody else: %s", v.Code)
			}
		})
	}
}

func appraisalPolicy(t testing.TB, s policy.Substrate) *policy.AppraisalPolicy {
	t.Helper()
	text, err := policy.EncodeAppraisalPolicy(&policy.AppraisalPolicy{Schema: policy.AppraisalSchema, Substrates: []policy.Substrate{s}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.ParseAppraisalPolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRealNoncesAreCompared(t *testing.T) {
	for _, name := range []string{"snp_milan.json", "tdx.json"} {
		ev := capturedAzure(t, name)
		req := appraise.Request{Role: policy.RoleNode, Unbound: true, Now: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)}
		substrate, _ := appraise.Propose(ev, req)
		substrate.Roles = []policy.Role{policy.RoleNode}
		req.Policy = appraisalPolicy(t, substrate)
		for nonce, code := range map[string]string{"challenge": attest.CodeAccepted, "challengf": appraise.CodeReportData, "": appraise.CodeReportData} {
			req.Nonce = []byte(nonce)
			if v := appraise.Appraise(ev, req); v.Code != code {
				t.Errorf("%s, nonce %q: %s, want %s\n%s", name, nonce, v.Code, code, v)
			}
		}
	}
}

func TestRealEvidenceOfTheWrongKindIsRefused(t *testing.T) {
	tdxEvidence := func(quote, log string) *attest.Evidence {
		return &attest.Evidence{TEE: attest.TEETDX, Report: captured(t, "tdx/"+quote), EventLog: tdx.TrimEventLog(captured(t, "tdx/"+log))}
	}
	old := capturedSNP(t, snp.Milan, snp.KeyVLEK, "milan_vlek_report.bin", "milan_vlek.der")
	legacy := capturedSNP(t, snp.Milan, snp.KeyVCEK, "milan_attestation_report.bin", "invalid_vcek_legacy.der")
	altered := capturedSNP(t, snp.Milan, snp.KeyVCEK, "milan_attestation_report.bin", "invalid_vcek_new.der")
	for name, c := range map[string]struct {
		ev   *attest.Evidence
		code string
	}{
		"VLEK after its end":        {old, snp.CodeChainExpired},
		"altered VCEK":              {legacy, snp.CodeChain},
		"altered newer VCEK":        {altered, snp.CodeChain},
		"event log of another boot": {tdxEvidence("quote_v4_baremetal.dat", "ccel_other_boot.dat"), tdx.CodeEventLogReplay},
	} {
		_, v := appraise.Propose(c.ev, appraise.Request{Role: policy.RoleNode, Unbound: true, Now: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)})
		if v.OK || v.Code != c.code {
			t.Errorf("%s: %s, want %s\n%s", name, v.Code, c.code, v)
		}
	}
}

// Every signed byte counts, in every sample, through the whole appraisal.
func TestAnyChangedByteOfRealEvidenceIsRefused(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for name, ev := range map[string]*attest.Evidence{
		"milan 2": capturedSNP(t, snp.Milan, snp.KeyVCEK, "milan_v2_report.bin", "milan_v2_vcek.der"),
		"TDX":     {TEE: attest.TEETDX, Report: captured(t, "tdx/quote_v4_debug_td.dat")},
		"Azure":   capturedAzure(t, "tdx.json"),
	} {
		req := appraise.Request{Role: policy.RoleNode, Unbound: true, Now: now, Cache: appraise.NewCache(2)}
		substrate, v := appraise.Propose(ev, req)
		if !v.OK {
			t.Fatalf("%s: %s", name, v)
		}
		substrate.Roles = []policy.Role{policy.RoleNode}
		req.Policy = appraisalPolicy(t, substrate)
		signed := signedPart(t, ev)
		report := ev.Report
		for i := range signed {
			changed := *ev
			changed.Report = bytes.Clone(report)
			changed.Report[i] ^= 0x10
			if v := appraise.Appraise(&changed, req); v.OK {
				t.Errorf("%s: byte %#x (%s) changed, and accepted", name, i, hex.EncodeToString(report[i:i+1]))
			}
		}
	}
}

// signedPart is the number of bytes of the report that are not padding.
func signedPart(t testing.TB, ev *attest.Evidence) int {
	t.Helper()
	if ev.TEE == attest.TEESEVSNP {
		return len(ev.Report)
	}
	q, err := tdx.ParseQuote(ev.Report)
	if err != nil {
		t.Fatal(err)
	}
	return len(ev.Report) - q.Padding
}
