// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-sev-guest/abi"
)

func policyFacts(r *Report) map[string]bool {
	return map[string]bool{
		"SMT": r.SMT(), "migration": r.Migration(), "debug": r.Debug(), "single socket": r.SingleSocket(), "CXL": r.CXLAllowed(),
		"XTS": r.RequiresAES256XTS(), "RAPL": r.RequiresRAPLDisabled(), "hiding": r.RequiresCiphertextHiding(), "swap": r.RequiresPageSwapDisabled(),
	}
}

func platformFacts(r *Report) map[string]bool {
	return map[string]bool{
		"SMT": r.SMTEnabled(), "TSME": r.TSMEEnabled(), "ECC": r.ECCEnabled(), "RAPL": r.RAPLDisabled(),
		"hiding": r.CiphertextHiding(), "alias": r.AliasCheckComplete(), "TIO": r.TIOEnabled(),
	}
}

// TestEachBitHasOneMeaning compares every bit with another implementation's
// reading of 56860.
func TestEachBitHasOneMeaning(t *testing.T) {
	for bit := 16; bit <= 25; bit++ {
		if bit == 17 {
			continue
		}
		r := &Report{Policy: policyReserved | 1<<bit | 0x0102}
		p, err := abi.ParseSnpPolicy(r.Policy)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{
			"SMT": p.SMT, "migration": p.MigrateMA, "debug": p.Debug, "single socket": p.SingleSocket, "CXL": p.CXLAllowed,
			"XTS": p.MemAES256XTS, "RAPL": p.RAPLDis, "hiding": p.CipherTextHidingDRAM, "swap": p.PageSwapDisable,
		}
		got := policyFacts(r)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("policy bit %d: %s", bit, diff)
		}
		major, minor := r.MinimumABI()
		if set := countTrue(got); set != 1 || major != p.ABIMajor || minor != p.ABIMinor || major != 1 {
			t.Errorf("policy bit %d: %d facts, ABI %d.%d", bit, set, major, minor)
		}
	}
	for _, bit := range []int{0, 1, 2, 3, 4, 5, 7} {
		r := &Report{PlatformInfo: 1 << bit}
		p, err := abi.ParseSnpPlatformInfo(r.PlatformInfo)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{
			"SMT": p.SMTEnabled, "TSME": p.TSMEEnabled, "ECC": p.ECCEnabled, "RAPL": p.RAPLDisabled,
			"hiding": p.CiphertextHidingDRAMEnabled, "alias": p.AliasCheckComplete, "TIO": p.TIOEnabled,
		}
		if diff := cmp.Diff(want, platformFacts(r)); diff != "" || countTrue(want) != 1 {
			t.Errorf("platform bit %d: %s", bit, diff)
		}
	}
}

func countTrue(m map[string]bool) (n int) {
	for v := range maps.Values(m) {
		if v {
			n++
		}
	}
	return n
}

func TestFirmwareThatWasNotCommittedIsProvisional(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Report)
		want bool
	}{
		"committed":     {func(*Report) {}, false},
		"another TCB":   {func(r *Report) { r.Current[7]++ }, true},
		"another build": {func(r *Report) { r.CurrentVersion.Build++ }, true},
		"another major": {func(r *Report) { r.CommittedVersion.Major++ }, true},
	} {
		r := &Report{}
		c.edit(r)
		if r.Provisional() != c.want {
			t.Errorf("%s: %v", name, r.Provisional())
		}
	}
}

func TestIDBlockFacts(t *testing.T) {
	r, err := ParseReport(compose(t, &Report{Version: 3, Policy: policyReserved, IDKey: [48]byte{1}, AuthorKey: [48]byte{2}, AuthorKeyUsed: true}, testKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	if !r.IDBlock() || !r.AuthorKeyUsed || r.MaskChipKey || (&Report{}).IDBlock() {
		t.Errorf("%+v", r)
	}
}
