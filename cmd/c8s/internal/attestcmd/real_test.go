// SPDX-License-Identifier: Apache-2.0

package attestcmd_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/attestcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// captured returns the folder of evidence captured on real machines.
func captured(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("C8S_EVIDENCE")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "../../../../../shared/evidence")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no captured evidence: %v: set C8S_EVIDENCE to its folder", err)
	}
	return dir
}

// run runs the command as a user would, and returns what it printed and its
// exit code.
func run(t testing.TB, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	c := attestcmd.New()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&out)
	c.SilenceErrors, c.SilenceUsage = true, true
	err := c.Execute()
	if err != nil {
		out.WriteString(err.Error())
	}
	return out.String(), exit.Code(err)
}

type sample struct {
	name string
	args []string // evidence and the flags that belong to it
	edit func(*policy.Substrate)
	code string // of the verdict
	exit int
}

// samples are all files of evidence, with the verdicts that the folder's README
// states, at a clock of today unless it names another.
func samples(dir string) []sample {
	in := func(name string) string { return filepath.Join(dir, name) }
	const today, march, summer, vlek = "2026-11-23T00:00:00Z", "2026-03-20T00:00:00Z", "2025-07-01T00:00:00Z", "2025-06-01T00:00:00Z"
	pcs := func(fmspc string) []string {
		var args []string
		for _, f := range []string{"tcb_info_" + fmspc + ".json", "td_qe_identity.json", "pck_crl_platform.der", "root_ca_crl.der"} {
			args = append(args, "--collateral", in("tdx/pcs_2026-03_"+f))
		}
		return args
	}
	with := func(at, evidence string, more ...string) []string {
		return append([]string{in(evidence), "--time", at}, more...)
	}
	required := func(s *policy.Substrate) {
		s.Collateral = policy.CollateralRules{Use: policy.CollateralRequired, MaxAgeDays: 60}
	}
	return []sample{
		{"Milan 2", with(today, "snp/milan_v2_report.bin", "--cert", in("snp/milan_v2_vcek.der")), nil, attest.CodeAccepted, exit.OK},
		{"Milan 3", with(today, "snp/milan_attestation_report.bin", "--cert", in("snp/milan_vcek.pem"), "--cert", in("snp/milan_ask.pem")), nil, attest.CodeAccepted, exit.OK},
		{"Genoa 3", with(today, "snp/genoa_attestation_report.bin", "--cert", in("snp/genoa_vcek.pem"), "--cert", in("snp/genoa_ask.pem")), nil, attest.CodeAccepted, exit.OK},
		{"Milan 3 after its end", with("2033-03-01T00:00:00Z", "snp/milan_attestation_report.bin", "--cert", in("snp/milan_vcek.pem")), nil, "chain-expired", exit.Refused},
		{"Milan VLEK", with(vlek, "snp/milan_vlek_report.bin", "--cert", in("snp/milan_vlek.der")), nil, attest.CodeAccepted, exit.OK},
		{"Milan VLEK today", with(today, "snp/milan_vlek_report.bin", "--cert", in("snp/milan_vlek.der")), nil, "chain-expired", exit.Refused},
		{"altered VCEK", with(today, "snp/milan_attestation_report.bin", "--cert", in("snp/invalid_vcek_legacy.der")), nil, "chain", exit.Refused},
		{"altered newer VCEK", with(today, "snp/milan_attestation_report.bin", "--cert", in("snp/invalid_vcek_new.der")), nil, "chain", exit.Refused},
		{"Milan, revocation wanted", with(today, "snp/milan_v2_report.bin", "--cert", in("snp/milan_v2_vcek.der")), required, "collateral-missing", exit.Partial},

		{"TDX bare metal", with(today, "tdx/quote_v4_baremetal.dat", "--event-log", in("tdx/ccel_baremetal.dat")), nil, attest.CodeAccepted, exit.OK},
		{"TDX log of another boot", with(today, "tdx/quote_v4_baremetal.dat", "--event-log", in("tdx/ccel_other_boot.dat")), nil, "event-log-replay", exit.Refused},
		{"TDX debug", with(march, "tdx/quote_v4_debug_td.dat", pcs("50806f000000")...), func(s *policy.Substrate) { s.TDX.Guest.AllowDebug = false }, "guest-debug", exit.Refused},
		{"TDX out of date", with(march, "tdx/quote_v4_debug_td.dat", pcs("50806f000000")...), func(s *policy.Substrate) { s.TDX.Statuses = []string{"UpToDate"} }, "tcb-status", exit.Refused},
		{"TDX debug, stale collateral", with(today, "tdx/quote_v4_debug_td.dat", pcs("50806f000000")...), required, "collateral-expired", exit.Partial},
		{"TDX 5", with(today, "tdx/quote_v5.dat"), nil, attest.CodeAccepted, exit.OK},
		{"TDX 5, stale collateral", with(today, "tdx/quote_v5.dat", pcs("90c06f000000")...), required, "collateral-expired", exit.Partial},
		{"TDX up to date", with(summer, "tdx/quote_v4_b0c06f.dat", "--collateral", in("tdx/quote_v4_b0c06f_collateral.json")), required, attest.CodeAccepted, exit.OK},
		{"TDX up to date, stale today", with(today, "tdx/quote_v4_b0c06f.dat", "--collateral", in("tdx/quote_v4_b0c06f_collateral.json")), required, "collateral-expired", exit.Partial},

		{"Azure SNP", with(today, "azure/snp_milan.json"), nil, attest.CodeAccepted, exit.OK},
		{"Azure TDX", with(today, "azure/tdx.json"), nil, attest.CodeAccepted, exit.OK},
		{"Azure without a paravisor in the policy", with(today, "azure/snp_milan.json"), func(s *policy.Substrate) { s.Paravisor, s.Registers = policy.ParavisorNone, nil }, "paravisor", exit.Refused},
	}
}

// The policy is what a user gets from the genuine evidence, after edits.
func draft(t testing.TB, s sample) string {
	t.Helper()
	args := append([]string{"show", "-o", "policy"}, genuine(s.args)...)
	text, code := run(t, args...)
	if code != exit.OK {
		t.Fatalf("drafting a policy: %d: %s", code, text)
	}
	p, err := policy.ParseAppraisalPolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if s.edit != nil {
		s.edit(&p.Substrates[0])
	}
	b, err := policy.EncodeAppraisalPolicy(p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// genuine turns the arguments of a bad sample into those of the good one.
func genuine(args []string) []string {
	good := make([]string, 0, len(args))
	for _, a := range args {
		a = strings.NewReplacer("invalid_vcek_legacy.der", "milan_vcek.pem", "invalid_vcek_new.der", "milan_vcek.pem", "ccel_other_boot", "ccel_baremetal").Replace(a)
		good = append(good, a)
	}
	for i, a := range good {
		if a == "--time" && strings.Contains(args[0], "vlek") {
			good[i+1] = "2025-06-01T00:00:00Z"
		} else if a == "--time" && strings.HasPrefix(good[i+1], "2033") {
			good[i+1] = "2026-11-23T00:00:00Z"
		}
	}
	return good
}

func TestAllCapturedEvidenceGivesItsVerdict(t *testing.T) {
	for _, s := range samples(captured(t)) {
		t.Run(s.name, func(t *testing.T) {
			args := append([]string{"verify", "--policy", draft(t, s), "--unbound", "-o", "json"}, s.args...)
			text, code := run(t, args...)
			var v attest.Verdict
			if err := json.NewDecoder(strings.NewReader(text)).Decode(&v); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if v.Code != s.code || code != s.exit || v.OK != (s.code == attest.CodeAccepted) || v.Simulated {
				t.Errorf("code %q and exit %d, want %q and %d\n%s", v.Code, code, s.code, s.exit, &v)
			}
		})
	}
}
