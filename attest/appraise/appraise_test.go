// SPDX-License-Identifier: Apache-2.0

package appraise_test

import (
	"context"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func wanted() [64]byte { return attest.Transcript{Purpose: "test"}.ReportData() }

func evidence(t testing.TB, tee *sim.TEE) *attest.Evidence {
	t.Helper()
	ev, err := tsm.New(tee).Attest(context.Background(), wanted())
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func manifest(t testing.TB, edits ...func(*policy.Manifest)) *policy.Manifest {
	t.Helper()
	opts := make([]policytest.Option, len(edits))
	for i, e := range edits {
		opts[i] = policytest.With(e)
	}
	return policytest.New(t, opts...).Manifest
}

func request(m *policy.Manifest) appraise.Request {
	return appraise.Request{Policy: m, Role: policy.RoleNode, ReportData: wanted(), Now: time.Now()}
}

// allChecks is every check of a complete appraisal of an SEV-SNP report, in order.
func allChecks() []string {
	ids := []string{
		"request", "evidence-tee", "report", "report-product", "certificates", "chain", "chain-dates", "signing-key",
		"endorsement-product", "endorsement-tcb", "endorsement-chip", "signature",
		"paravisor-runtime", "paravisor-quote", "paravisor-registers", "report-data", "collateral-evidence",
	}
	for _, rule := range policy.SubstrateRules(policy.TEESEVSNP) {
		ids = append(ids, string(rule))
	}
	return append(ids, "tcb-committed")
}

func checkIDs(v *attest.Verdict) []string {
	var ids []string
	for _, c := range v.Checks {
		ids = append(ids, c.ID)
	}
	return ids
}

func TestGoodEvidenceIsAcceptedAfterEveryCheck(t *testing.T) {
	for _, product := range []snp.Product{snp.Milan, snp.Genoa} {
		for _, version := range []uint32{2, 3, 4, 5} {
			tee := simtest.New(t, "a", func(o *sim.Options) { o.Product, o.ReportVersion = product, version })
			v := appraise.Appraise(evidence(t, tee), request(manifest(t, simtest.Accept(tee))))
			if err := v.Err(); err != nil {
				t.Fatalf("%s version %d: %v\n%s", product, version, err, v)
			}
			if !v.Simulated || v.Substrate != "sim-a" || v.Code != attest.CodeAccepted || v.Product != string(product) {
				t.Errorf("verdict: %+v", v)
			}
			if got := checkIDs(v); !slices.Equal(got, allChecks()) {
				t.Errorf("checks: %q", got)
			}
			for _, c := range v.Checks {
				if c.Expected == "" || c.Actual == "" || c.Source == "" || c.Status == attest.Fail {
					t.Errorf("check is not complete: %+v", c)
				}
			}
		}
	}
}

func substrate(edit func(*policy.Substrate)) func(*policy.Manifest) {
	return func(m *policy.Manifest) { edit(&m.Substrates[0]) }
}

func TestEachDisagreementHasItsOwnCode(t *testing.T) {
	other := func(n int) string { return policytest.Hex(0x11, n) }
	for name, c := range map[string]struct {
		machine  func(*sim.Options)      // the machine that attests
		manifest func(*policy.Substrate) // how the manifest differs from accepting the usual machine
		request  func(*appraise.Request)
		code     string
	}{
		"another measurement": {manifest: func(s *policy.Substrate) { s.Measurements = []string{other(48)} }, code: "measurement"},
		"another root":        {manifest: func(s *policy.Substrate) { s.Roots = []policy.Digest{policytest.Digest("amd")} }, code: "root"},
		"another product":     {manifest: func(s *policy.Substrate) { s.Product = "Genoa" }, code: "product"},
		"a VLEK is wanted":    {manifest: func(s *policy.Substrate) { s.SNP.SigningKey = policy.SigningKeyVLEK }, code: "signing-key-kind"},
		"real machines only":  {manifest: func(s *policy.Substrate) { s.Simulated = false }, code: "simulated"},
		"other host data":     {manifest: func(s *policy.Substrate) { s.HostData = []string{other(32)} }, code: "host-data"},
		"other machine":       {manifest: func(s *policy.Substrate) { s.Machines = []string{other(64)} }, code: "machine-unpinned"},
		"other VMPL":          {manifest: func(s *policy.Substrate) { s.SNP.Guest.VMPL = 1 }, code: "guest-vmpl"},
		"TCB below the floor": {machine: func(o *sim.Options) { o.TCB.Microcode-- }, code: "tcb-floor"},
		"committed TCB below the floor": {machine: func(o *sim.Options) {
			low := o.TCB
			low.SNP--
			o.Committed = &low
		}, code: "tcb-floor"},
		"debuggable guest":    {machine: func(o *sim.Options) { o.Debug = true }, code: "guest-debug"},
		"migratable guest":    {machine: func(o *sim.Options) { o.Migration = true }, code: "guest-migration"},
		"guest with siblings": {machine: func(o *sim.Options) { o.SMT = true }, code: "guest-smt"},
		"no chip id":          {machine: func(o *sim.Options) { o.ChipID = [64]byte{} }, code: snp.CodeEndorsedChip},
		"role not allowed":    {request: func(r *appraise.Request) { r.Role = policy.RoleIngress }, code: "role"},
		"other report data":   {request: func(r *appraise.Request) { r.ReportData[0] ^= 1 }, code: appraise.CodeReportData},
		"after the chain":     {request: func(r *appraise.Request) { r.Now = r.Now.AddDate(8, 0, 0) }, code: snp.CodeChainExpired},
		"before the chain":    {request: func(r *appraise.Request) { r.Now = r.Now.AddDate(-1, 0, 0) }, code: snp.CodeChainExpired},
		"no report data":      {request: func(r *appraise.Request) { r.ReportData = [64]byte{} }, code: appraise.CodeRequest},
		"no manifest":         {request: func(r *appraise.Request) { r.Policy = nil }, code: appraise.CodeRequest},
		"manifest by hand":    {request: func(r *appraise.Request) { r.Policy = &policy.Manifest{} }, code: "undecided"},
		"no role":             {request: func(r *appraise.Request) { r.Role = "" }, code: appraise.CodeRequest},
		"no time":             {request: func(r *appraise.Request) { r.Now = time.Time{} }, code: appraise.CodeRequest},
	} {
		t.Run(name, func(t *testing.T) {
			edits := []func(*policy.Manifest){simtest.Accept(simtest.New(t, "a"))}
			if c.manifest != nil {
				edits = append(edits, substrate(c.manifest))
			}
			machine := func(o *sim.Options) {}
			if c.machine != nil {
				machine = c.machine
			}
			req := request(manifest(t, edits...))
			if c.request != nil {
				c.request(&req)
			}
			v := appraise.Appraise(evidence(t, simtest.New(t, "a", machine)), req)
			if v.OK || v.Code != c.code {
				t.Errorf("got %q, want %q\n%s", v.Code, c.code, v)
			}
			for _, id := range allChecks() {
				if !slices.Contains(checkIDs(v), id) {
					t.Errorf("check %s is missing", id)
				}
			}
		})
	}
}

func TestBadEvidenceFailsAndStillListsEveryCheck(t *testing.T) {
	tee := simtest.New(t, "a")
	m := manifest(t, simtest.Accept(tee))
	foreign := evidence(t, simtest.New(t, "b"))
	for name, c := range map[string]struct {
		edit func(*attest.Evidence) *attest.Evidence
		code string
	}{
		"none":                {func(*attest.Evidence) *attest.Evidence { return nil }, appraise.CodeRequest},
		"another TEE":         {func(e *attest.Evidence) *attest.Evidence { e.TEE = "sgx"; return e }, appraise.CodeTEE},
		"another product":     {func(e *attest.Evidence) *attest.Evidence { e.Product = "Genoa"; return e }, snp.CodeProductMismatch},
		"report cut":          {func(e *attest.Evidence) *attest.Evidence { e.Report = e.Report[:99]; return e }, snp.CodeReportFormat},
		"measurement changed": {func(e *attest.Evidence) *attest.Evidence { e.Report[0x90] ^= 1; return e }, snp.CodeSignature},
		"VLEK":                {func(e *attest.Evidence) *attest.Evidence { e.Report[0x48] |= 1 << 2; return e }, snp.CodeSigningKey},
		"no certificates":     {func(e *attest.Evidence) *attest.Evidence { e.Certs = nil; return e }, snp.CodeCertificates},
		"root missing":        {func(e *attest.Evidence) *attest.Evidence { e.Certs = e.Certs[:2]; return e }, snp.CodeCertificates},
		"garbage certificate": {func(e *attest.Evidence) *attest.Evidence { e.Certs[0] = []byte{0x30}; return e }, snp.CodeCertificate},
		"order changed":       {func(e *attest.Evidence) *attest.Evidence { slices.Reverse(e.Certs); return e }, snp.CodeEndorsement},
		"VCEK of another":     {func(e *attest.Evidence) *attest.Evidence { e.Certs[0] = foreign.Certs[0]; return e }, snp.CodeEndorsedChip},
	} {
		t.Run(name, func(t *testing.T) {
			v := appraise.Appraise(c.edit(evidence(t, tee)), request(m))
			if v.OK || v.Code != c.code {
				t.Errorf("got %q, want %q\n%s", v.Code, c.code, v)
			}
			for _, id := range allChecks() {
				if !slices.Contains(checkIDs(v), id) {
					t.Errorf("check %s is missing", id)
				}
			}
		})
	}
}

func FuzzAppraise(f *testing.F) {
	tee := simtest.New(f, "a")
	req := request(manifest(f, simtest.Accept(tee)))
	good := evidence(f, tee)
	cmw, err := attest.MarshalCMW(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cmw)
	for _, at := range []int{100, 500, 1000, 1300, 2500, 4000, len(cmw) - 700} {
		changed := slices.Clone(cmw)
		changed[at%len(changed)] ^= 4
		f.Add(changed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ev, err := attest.ParseCMW(b)
		if err != nil {
			return
		}
		v := appraise.Appraise(ev, req)
		if len(v.Checks) < len(allChecks()) {
			t.Errorf("only %d checks", len(v.Checks))
		}
		// Fuzzing runs in several processes, whose machines differ in the VCEK.
		if want := simtest.Options("a"); v.OK && (v.Measurement != hex.EncodeToString(want.Measurement[:]) || v.Machine != hex.EncodeToString(want.ChipID[:])) {
			t.Error("accepted a report that was never signed")
		}
	})
}

// BenchmarkAppraise is the whole of it: all checks, revocation and policy. Warm
// remembers the chain and the revocation list's signature.
func BenchmarkAppraise(b *testing.B) {
	tee := simtest.New(b, "a")
	ev := evidence(b, tee)
	for name, cache := range map[string]*appraise.Cache{"cold": nil, "warm": appraise.NewCache(4)} {
		b.Run(name, func(b *testing.B) {
			req := request(manifest(b, simtest.Accept(tee)))
			req.Cache = cache
			b.ReportAllocs()
			for b.Loop() {
				if v := appraise.Appraise(ev, req); !v.OK {
					b.Fatal(v.Code)
				}
			}
		})
	}
}
