// SPDX-License-Identifier: Apache-2.0

package attestcmd_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// collected makes simulated evidence and the policy drafted from it.
func collected(t *testing.T, more ...string) (evidence, policy string) {
	t.Helper()
	dir := t.TempDir()
	evidence, policy = filepath.Join(dir, "evidence"), filepath.Join(dir, "policy.json")
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = dir
	}
	args := append([]string{"collect", "--tee=sim", "--sim-dir", filepath.Join(cache, "c8s-simtest-2"), "--out", evidence}, more...)
	if out, code := run(t, args...); code != exit.OK {
		t.Fatalf("%d: %s", code, out)
	}
	text, code := run(t, "show", evidence, "-o", "policy")
	if code != exit.OK {
		t.Fatalf("%d: %s", code, text)
	}
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return evidence, policy
}

func TestCollectedEvidenceIsShownAndVerifiedInBothForms(t *testing.T) {
	data := strings.Repeat("ab", 64)
	for _, form := range []string{"cbor", "json"} {
		evidence, policy := collected(t, "-o", form, "--report-data", data)
		out, code := run(t, "verify", evidence, "--policy", policy, "--report-data", data, "-o", "json")
		var v attest.Verdict
		if err := json.Unmarshal([]byte(out), &v); err != nil || code != exit.OK || !v.OK || !v.Simulated {
			t.Errorf("%s: %d, %v: %s", form, code, err, out)
		}
		if out, code := run(t, "verify", evidence, "--policy", policy, "--report-data", strings.Repeat("ac", 64)); code != exit.Refused || !strings.Contains(out, "REFUSED (report-data)") {
			t.Errorf("%s: for somebody else: %d: %s", form, code, out)
		}
		if out, code := run(t, "show", evidence); code != exit.OK || !strings.Contains(out, "SIMULATED") || !strings.Contains(out, "measurement") {
			t.Errorf("%s: show: %d: %s", form, code, out)
		}
	}
}

func TestWrongUsageIsExplained(t *testing.T) {
	evidence, policy := collected(t)
	for want, args := range map[string][]string{
		"--policy is required":         {"verify", evidence, "--unbound"},
		"exactly one of --report-data": {"verify", evidence, "--policy", policy},
		"--report-data must be 128":    {"verify", evidence, "--policy", policy, "--report-data", "ab"},
		"--time must be like":          {"verify", evidence, "--policy", policy, "--unbound", "--time", "today"},
		"--event-log goes with TDX":    {"show", evidence, "--event-log", policy},
		"--out is required":            {"collect"},
		"--tee=sim needs --sim-dir":    {"collect", "--tee=sim", "--out", "-"},
		"there is no check":            {"explain", "magic"},
		"must be text, json or policy": {"show", evidence, "-o", "yaml"},
	} {
		if out, code := run(t, args...); code != exit.Misuse || !strings.Contains(out, want) {
			t.Errorf("%v: %d: %s, want %q", args, code, out, want)
		}
	}
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := run(t, "show", garbage); code != exit.Refused || !strings.Contains(out, "neither an SEV-SNP report") {
		t.Errorf("garbage: %d: %s", code, out)
	}
	if out, code := run(t, "verify", evidence, "--policy", garbage, "--unbound"); code != exit.Refused {
		t.Errorf("garbage for a policy: %d: %s", code, out)
	}
}

func TestEveryCheckOfAVerdictIsExplained(t *testing.T) {
	evidence, policy := collected(t)
	out, _ := run(t, "verify", evidence, "--policy", policy, "--unbound", "-o", "json")
	var v attest.Verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Checks {
		if out, code := run(t, "explain", c.ID); code != exit.OK || !strings.Contains(out, "protects from") {
			t.Errorf("%s: %d: %s", c.ID, code, out)
		}
	}
}
