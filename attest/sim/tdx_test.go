// SPDX-License-Identifier: Apache-2.0

package sim_test

import (
	"bytes"
	"context"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-configfs-tsm/configfs/configfsi"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/tdx"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/policy"
)

var _ configfsi.Client = (*sim.TD)(nil)

func newTD(t testing.TB, edits ...func(*sim.TDXOptions)) *sim.TD {
	t.Helper()
	o := sim.TDXOptions{
		MRTD: [48]byte{1}, MRConfigID: [48]byte{2}, PIID: [16]byte{3}, FMSPC: [6]byte{0x90, 0xc0, 0x6f}, Events: []string{"firmware", "kernel", "initrd", "command line"},
	}
	for _, edit := range edits {
		edit(&o)
	}
	td, err := sim.NewTDX(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	return td
}

func wantedData() [64]byte { return attest.Transcript{Purpose: "test"}.ReportData() }

// judge appraises a trust domain's evidence under the policy that accepts
// exactly it, after edits of both.
func judge(t testing.TB, td *sim.TD, collateral func(*sim.TDXCollateral), substrate func(*policy.Substrate)) *attest.Verdict {
	t.Helper()
	ev, err := tsm.New(td).WithEventLog(func() ([]byte, error) { return td.EventLog(), nil }).Attest(context.Background(), wantedData())
	if err != nil {
		t.Fatal(err)
	}
	if ev.Collateral, err = td.Collateral(collateral); err != nil {
		t.Fatal(err)
	}
	s := td.Substrate("td", policy.RoleNode)
	substrate(&s)
	text, err := policy.EncodeAppraisalPolicy(&policy.AppraisalPolicy{Schema: policy.AppraisalSchema, Substrates: []policy.Substrate{s}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.ParseAppraisalPolicy(text)
	if err != nil {
		t.Fatal(err)
	}
	return appraise.Appraise(ev, appraise.Request{Policy: p, Role: policy.RoleNode, ReportData: wantedData(), Now: time.Now()})
}

func asIs(*sim.TDXCollateral)     {}
func unchanged(*policy.Substrate) {}

func TestASimulatedTrustDomainPassesEveryCheckAndIsMarked(t *testing.T) {
	for _, version := range []uint16{4, 5} {
		v := judge(t, newTD(t, func(o *sim.TDXOptions) { o.Version = version }), asIs, unchanged)
		if !v.OK || !v.Simulated || v.TDXTCB.Status != "UpToDate" || !v.Collateral {
			t.Errorf("version %d:\n%s", version, v)
		}
	}
}

func TestSimulatedTrustDomainsAreRefusedEachForItsReason(t *testing.T) {
	for name, c := range map[string]struct {
		machine    func(*sim.TDXOptions)
		collateral func(*sim.TDXCollateral)
		substrate  func(*policy.Substrate)
		code       string
	}{
		"real machines only":      {substrate: func(s *policy.Substrate) { s.Simulated = false }, code: "simulated"},
		"another root":            {substrate: func(s *policy.Substrate) { s.Roots = []policy.Digest{policy.DigestOf([]byte("intel"))} }, code: "root"},
		"debuggable":              {machine: func(o *sim.TDXOptions) { o.Debug = true }, substrate: func(s *policy.Substrate) { s.TDX.Guest.AllowDebug = false }, code: "guest-debug"},
		"platform out of date":    {collateral: func(c *sim.TDXCollateral) { c.Platform = tdx.OutOfDate }, code: "tcb-status"},
		"module out of date":      {collateral: func(c *sim.TDXCollateral) { c.Module = tdx.OutOfDate }, code: "tcb-status"},
		"enclave out of date":     {collateral: func(c *sim.TDXCollateral) { c.QE = tdx.OutOfDate }, code: "tcb-status"},
		"revoked level":           {collateral: func(c *sim.TDXCollateral) { c.QE = tdx.Revoked }, code: "tcb-status"},
		"open advisory":           {collateral: func(c *sim.TDXCollateral) { c.Advisories = []string{"INTEL-SA-01036"} }, code: "tcb-advisories"},
		"old evaluation":          {collateral: func(c *sim.TDXCollateral) { c.EvaluationNumber-- }, code: "tcb-evaluation"},
		"another platform's":      {collateral: func(c *sim.TDXCollateral) { c.FMSPC[5] ^= 1 }, code: "collateral-missing"},
		"ended":                   {collateral: func(c *sim.TDXCollateral) { c.NextUpdate = time.Now().Add(-time.Minute) }, code: "collateral-expired"},
		"of the future":           {collateral: func(c *sim.TDXCollateral) { c.Issued = time.Now().Add(time.Hour) }, code: "collateral-expired"},
		"too old for the policy":  {collateral: func(c *sim.TDXCollateral) { c.Issued = time.Now().AddDate(0, 0, -31) }, code: "collateral-age"},
		"revoked platform":        {collateral: func(c *sim.TDXCollateral) { c.RevokedPCK = []*big.Int{big.NewInt(4)} }, code: "revoked"},
		"revoked PCK CA":          {collateral: func(c *sim.TDXCollateral) { c.RevokedCA = []*big.Int{big.NewInt(2)} }, code: "revoked"},
		"revoked root":            {collateral: func(c *sim.TDXCollateral) { c.RevokedCA = []*big.Int{big.NewInt(1)} }, code: "revoked"},
		"revoked signer":          {collateral: func(c *sim.TDXCollateral) { c.RevokedCA = []*big.Int{big.NewInt(3)} }, code: "collateral-signature"},
		"unknown status":          {collateral: func(c *sim.TDXCollateral) { c.Platform = "Great" }, code: "collateral-format"},
		"revoked while unchecked": {collateral: func(c *sim.TDXCollateral) { c.RevokedPCK = []*big.Int{big.NewInt(4)} }, substrate: func(s *policy.Substrate) { s.Collateral.Use = policy.CollateralUnchecked }, code: "revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.machine == nil {
				c.machine = func(*sim.TDXOptions) {}
			}
			if c.collateral == nil {
				c.collateral = asIs
			}
			if c.substrate == nil {
				c.substrate = unchanged
			}
			if v := judge(t, newTD(t, c.machine), c.collateral, c.substrate); v.OK || v.Code != c.code {
				t.Errorf("got %q, want %q\n%s", v.Code, c.code, v)
			}
		})
	}
}

func TestTrustDomainsShareAVendorAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	var roots [][]byte
	for range 2 {
		td, err := sim.NewTDX(dir, sim.TDXOptions{})
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, td.Root())
	}
	if !bytes.Equal(roots[0], roots[1]) {
		t.Error("two roots")
	}
	path := filepath.Join(dir, "simulated-tdx.pem")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sim.NewTDX(dir, sim.TDXOptions{}); err == nil {
		t.Error("started from a damaged file")
	}
}
