// SPDX-License-Identifier: Apache-2.0

package azure_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/azure"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tdx"
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("C8S_EVIDENCE")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "../../../shared/evidence")
	}
	b, err := os.ReadFile(filepath.Join(dir, "azure", name))
	if err != nil {
		t.Skipf("no captured evidence: %v: set C8S_EVIDENCE to its folder", err)
	}
	return b
}

func imported(t testing.TB, name string) *attest.Evidence {
	t.Helper()
	ev, err := azure.ImportJSON(sample(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func reportData(t testing.TB, ev *attest.Evidence) [64]byte {
	t.Helper()
	if ev.TEE == attest.TEETDX {
		q, err := tdx.ParseQuote(ev.Report)
		if err != nil {
			t.Fatal(err)
		}
		return q.ReportData
	}
	r, err := snp.ParseReport(ev.Report)
	if err != nil {
		t.Fatal(err)
	}
	return r.ReportData
}

// verify makes all checks of the paravisor's part.
func verify(v *attest.VTPM, bound [64]byte) error {
	if err := azure.CheckBinding(v.Runtime, bound); err != nil {
		return err
	}
	r, err := azure.ParseRuntime(v.Runtime)
	if err != nil {
		return err
	}
	q, err := azure.ParseQuote(v.Quote)
	if err != nil {
		return err
	}
	if err := r.VerifyQuote(v.Quote, v.Signature); err != nil {
		return err
	}
	return q.CheckPCRs(v.PCRs)
}

func TestRealEvidenceIsGoodInAllItsParts(t *testing.T) {
	for _, name := range []string{"snp_milan.json", "tdx.json"} {
		ev := imported(t, name)
		if err := verify(ev.VTPM, reportData(t, ev)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		q, err := azure.ParseQuote(ev.VTPM.Quote)
		if err != nil || string(q.ExtraData) != "challenge" || len(q.Selected) != 24 {
			t.Errorf("%s: %+v, %v", name, q, err)
		}
	}
}

func TestAnyChangedByteRefuses(t *testing.T) {
	for _, name := range []string{"snp_milan.json", "tdx.json"} {
		anyChangedByteRefuses(t, imported(t, name))
	}
}

func anyChangedByteRefuses(t *testing.T, ev *attest.Evidence) {
	t.Helper()
	bound := reportData(t, ev)
	parts := map[string][]byte{"runtime": ev.VTPM.Runtime, "quote": ev.VTPM.Quote, "signature": ev.VTPM.Signature}
	for i, pcr := range ev.VTPM.PCRs {
		parts["pcr"+string(rune('a'+i))] = pcr
	}
	for name, part := range parts {
		for i := range part {
			part[i] ^= 1
			if verify(ev.VTPM, bound) == nil {
				t.Errorf("%s: byte %d changed, and accepted", name, i)
			}
			part[i] ^= 1
		}
	}
}

// A quote over no registers is CVE-2022-0317 of another verifier.
func TestRegistersAreExactlyTheQuotedOnes(t *testing.T) {
	ev := imported(t, "tdx.json")
	q, err := azure.ParseQuote(ev.VTPM.Quote)
	if err != nil {
		t.Fatal(err)
	}
	none := bytes.Clone(ev.VTPM.Quote)
	at := bytes.LastIndex(none, []byte{3, 0xff, 0xff, 0xff})
	copy(none[at:], []byte{3, 0, 0, 0})
	if _, err := azure.ParseQuote(none); attest.FailureCode(err) != azure.CodeQuote {
		t.Errorf("a quote over no registers: %v", err)
	}
	pcrs := ev.VTPM.PCRs
	for name, shown := range map[string][][]byte{
		"none": nil, "one missing": pcrs[1:], "one empty": append([][]byte{nil}, pcrs[1:]...), "one more": append(append([][]byte{}, pcrs...), pcrs[0]),
		"swapped": append([][]byte{pcrs[1], pcrs[0]}, pcrs[2:]...), "short": append([][]byte{pcrs[0][:31]}, pcrs[1:]...),
	} {
		if err := q.CheckPCRs(shown); attest.FailureCode(err) != azure.CodePCRs {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzImportJSON(f *testing.F) {
	f.Add(sample(f, "snp_milan.json"))
	f.Add(sample(f, "tdx.json"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if ev, err := azure.ImportJSON(b); err == nil {
			_ = verify(ev.VTPM, [64]byte{})
		}
	})
}

func FuzzParseHCL(f *testing.F) {
	hcl := make([]byte, 32+1184+20+2)
	copy(hcl, "HCLA")
	copy(hcl[32+1184+8:], []byte{2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, '{', '}'})
	f.Add(hcl)
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = azure.ParseHCL(b) })
}

func FuzzParseRuntime(f *testing.F) {
	f.Add(imported(f, "snp_milan.json").VTPM.Runtime)
	f.Add(imported(f, "tdx.json").VTPM.Runtime)
	f.Fuzz(func(_ *testing.T, b []byte) {
		if r, err := azure.ParseRuntime(b); err == nil {
			_ = r.VerifyQuote(b, b)
		}
	})
}

func FuzzParseQuote(f *testing.F) {
	f.Add(imported(f, "snp_milan.json").VTPM.Quote)
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := azure.ParseQuote(b); err == nil && len(q.Selected) == 0 {
			t.Error("a quote over no registers")
		}
	})
}
