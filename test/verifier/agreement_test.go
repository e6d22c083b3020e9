// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// opinions are what this program and package appraise think of evidence.
func opinions(t *testing.T, ev *attest.Evidence, tr attest.Transcript, s policy.Substrate, now time.Time) (ours, theirs error) {
	t.Helper()
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Substrates = []policy.Substrate{s} }))
	theirs = appraise.Appraise(ev, appraise.Request{Policy: f.Manifest, Role: policy.RoleNode, ReportData: tr.ReportData(), Now: now}).Err()
	m := &manifest{}
	if err := strictJSON(f.Payload, m); err != nil {
		t.Fatal(err)
	}
	record, err := attest.MarshalCMW(ev)
	if err != nil {
		t.Fatal(err)
	}
	e, err := parseEvidence(record)
	if err != nil {
		t.Fatal(err)
	}
	if hash := policy.DigestFrom(ev.Hash()); e.hash != string(hash) {
		t.Errorf("hash %s, want %s", e.hash, hash)
	}
	if ours = e.verify(transcript(tr), now); ours == nil {
		_, ours = m.accepts("node", e.facts, e.guest, now)
	}
	return ours, theirs
}

// Two programs that share nothing but the documentation come to the same
// verdict, for every rule of a substrate.
func TestBothAgreeOnMachinesAndRules(t *testing.T) {
	past, future := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	lower := policy.TCB{BootLoader: 4, SNP: 23, Microcode: 219}
	zeros := policytest.Hex(1, 48)
	for name, tt := range map[string]struct {
		good    bool
		machine func(*sim.Options)
		rule    func(*policy.Substrate)
	}{
		"as it is":                {true, nil, nil},
		"report version 2":        {true, func(o *sim.Options) { o.ReportVersion = 2 }, nil},
		"report version 5":        {true, func(o *sim.Options) { o.ReportVersion = 5 }, nil},
		"Genoa":                   {true, func(o *sim.Options) { o.Product = snp.Genoa }, nil},
		"Turin":                   {true, func(o *sim.Options) { o.Product = snp.Turin; o.TCB.FMC = 1 }, func(s *policy.Substrate) { s.Machines[0] = s.Machines[0][:16] }},
		"VLEK":                    {true, func(o *sim.Options) { o.VLEK = "cloud" }, nil},
		"VLEK, but a VCEK wanted": {false, func(o *sim.Options) { o.VLEK = "cloud" }, func(s *policy.Substrate) { s.SNP.SigningKey = "vcek"; s.Machines = []string{"any"} }},
		"debug":                   {false, func(o *sim.Options) { o.Debug = true }, func(s *policy.Substrate) { s.SNP.Guest.AllowDebug = false }},
		"migration":               {false, func(o *sim.Options) { o.Migration = true }, func(s *policy.Substrate) { s.SNP.Guest.AllowMigration = false }},
		"SMT":                     {false, func(o *sim.Options) { o.SMT = true }, func(s *policy.Substrate) { s.SNP.Guest.AllowSMT = false }},
		"provisional":             {false, func(o *sim.Options) { o.Committed = &lower }, func(s *policy.Substrate) { s.SNP.AllowProvisional = false }},
		"provisional, allowed":    {true, func(o *sim.Options) { o.Committed = &lower }, nil},
		"committed below floor":   {false, func(o *sim.Options) { o.Committed = &lower }, func(s *policy.Substrate) { s.SNP.MinTCB.SNP = 24 }},
		"patch level":             {false, nil, func(s *policy.Substrate) { s.SNP.MinTCB.Microcode++ }},
		"launch patch level":      {false, nil, func(s *policy.Substrate) { s.SNP.MinLaunchTCB.BootLoader++ }},
		"guest SVN":               {false, nil, func(s *policy.Substrate) { s.SNP.MinGuestSVN = 1 }},
		"ID key":                  {false, nil, func(s *policy.Substrate) { s.SNP.IDKeys = []string{zeros} }},
		"author key":              {false, nil, func(s *policy.Substrate) { s.SNP.AuthorKeys = []string{zeros} }},
		"any keys":                {true, nil, func(s *policy.Substrate) { s.SNP.IDKeys, s.SNP.AuthorKeys = []string{"any"}, []string{"any"} }},
		"TSME":                    {false, nil, func(s *policy.Substrate) { s.SNP.RequirePlatform = []string{"tsme"} }},
		"ECC":                     {true, nil, func(s *policy.Substrate) { s.SNP.RequirePlatform = []string{"ecc", "alias-check"} }},
		"ABI":                     {false, nil, func(s *policy.Substrate) { s.SNP.Guest.MinABI.Major = 9 }},
		"VMPL":                    {false, nil, func(s *policy.Substrate) { s.SNP.Guest.VMPL = 1 }},
		"single socket":           {false, nil, func(s *policy.Substrate) { s.SNP.Guest.RequireSingleSocket = true }},
		"measurement":             {false, nil, func(s *policy.Substrate) { s.Measurements = []string{zeros} }},
		"machine":                 {false, nil, func(s *policy.Substrate) { s.Machines = []string{policytest.Hex(1, 64)} }},
		"any machine":             {true, nil, func(s *policy.Substrate) { s.Machines, s.HostData = []string{"any"}, []string{"any"} }},
		"host data":               {false, nil, func(s *policy.Substrate) { s.HostData = []string{policytest.Hex(1, 32)} }},
		"root":                    {false, nil, func(s *policy.Substrate) { s.Roots = []policy.Digest{policytest.Digest("x")} }},
		"product":                 {false, nil, func(s *policy.Substrate) { s.Product = "Genoa" }},
		"real machines only":      {false, nil, func(s *policy.Substrate) { s.Simulated = false }},
		"paravisor":               {false, nil, func(s *policy.Substrate) { s.Paravisor = "azure"; s.Registers = map[string][]string{"pcr0": {"any"}} }},
		"role":                    {false, nil, func(s *policy.Substrate) { s.Roles = []policy.Role{policy.RoleCDS} }},
		"expired":                 {false, nil, func(s *policy.Substrate) { s.Expires = map[string]string{s.Measurements[0]: past} }},
		"expires":                 {true, nil, func(s *policy.Substrate) { s.Expires = map[string]string{s.Measurements[0]: future} }},
		"collateral of yesterday": {false, nil, func(s *policy.Substrate) { s.Collateral.MaxAgeDays = 1 }},
		"collateral unchecked":    {true, nil, func(s *policy.Substrate) { s.Collateral = policy.CollateralRules{Use: "unchecked"} }},
	} {
		t.Run(name, func(t *testing.T) {
			var edits []func(*sim.Options)
			if tt.machine != nil {
				edits = append(edits, tt.machine)
			}
			tee := simtest.New(t, "agreement", edits...)
			s := tee.Substrate("s", policy.RoleNode)
			if tt.rule != nil {
				tt.rule(&s)
			}
			tr := attest.Transcript{Purpose: "test", Nonce: []byte(name)}
			ev, err := simtest.Attester(t, "agreement", edits...).Attest(t.Context(), tr.ReportData())
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := opinions(t, ev, tr, s, time.Now())
			if (ours == nil) != tt.good || (theirs == nil) != tt.good {
				t.Errorf("want accepted %v; ours: %v; theirs: %v", tt.good, ours, theirs)
			}
		})
	}
}

// A good signature is not enough: the key must be that of this chip, patch
// level and kind.
func TestTheVendorVouchesForThisVeryReport(t *testing.T) {
	ev, err := simtest.Attester(t, "agreement").Attest(t.Context(), [64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	chain := func(product string, at time.Time) (*vendorChain, error) {
		return openVendorChain(ev.Certs, product, at)
	}
	c, err := chain("Milan", time.Now())
	if err != nil || c.checkEndorsement(ev.Report, "Milan") != nil {
		t.Fatalf("as it is: %v, %v", err, c.checkEndorsement(ev.Report, "Milan"))
	}
	for name, at := range map[string]int{"chip": offChipID, "patch level": offReported, "signing key": offKeyInfo} {
		r := bytes.Clone(ev.Report)
		r[at] ^= 4
		if c.checkEndorsement(r, "Milan") == nil {
			t.Errorf("another %s is accepted", name)
		}
	}
	if c.checkEndorsement(ev.Report, "Genoa") == nil {
		t.Error("another product is accepted")
	}
	for name, try := range map[string]func() (*vendorChain, error){
		"another product's names": func() (*vendorChain, error) { return chain("Genoa", time.Now()) },
		"a chain of the future":   func() (*vendorChain, error) { return chain("Milan", time.Now().AddDate(-2, 0, 0)) },
		"an expired chain":        func() (*vendorChain, error) { return chain("Milan", time.Now().AddDate(30, 0, 0)) },
	} {
		if _, err := try(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestReportsOfOtherVersionsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		version, algorithm byte
		good               bool
	}{{2, 1, true}, {5, 1, true}, {1, 1, false}, {6, 1, false}, {3, 2, false}} {
		r := make(report, reportSize)
		r[0], r[offAlgorithm], r[offCPUID] = tt.version, tt.algorithm, 0x19
		if product, err := r.product("Milan"); (err == nil) != tt.good {
			t.Errorf("%+v: %q, %v", tt, product, err)
		}
	}
}

// And for every way in which evidence may be spoiled.
func TestBothAgreeOnSpoiledEvidence(t *testing.T) {
	s := simtest.New(t, "agreement").Substrate("s", policy.RoleNode)
	tr := attest.Transcript{Purpose: "test"}
	get := func(machine string) *attest.Evidence {
		ev, err := simtest.Attester(t, machine).Attest(t.Context(), tr.ReportData())
		if err != nil {
			t.Fatal(err)
		}
		return ev
	}
	good, other := get("agreement"), get("another")
	spoiled := map[string]func(*attest.Evidence){
		"another chip's certificate": func(e *attest.Evidence) { e.Certs[0] = other.Certs[0] },
		"two certificates":           func(e *attest.Evidence) { e.Certs = e.Certs[:2] },
		"certificates in disorder":   func(e *attest.Evidence) { slices.Reverse(e.Certs) },
		"an intermediate as leaf":    func(e *attest.Evidence) { e.Certs[0] = e.Certs[1] },
		"a root as intermediate":     func(e *attest.Evidence) { e.Certs[1] = e.Certs[2] },
		"a report cut short":         func(e *attest.Evidence) { e.Report = e.Report[:len(e.Report)-1] },
		"another product's name":     func(e *attest.Evidence) { e.Report[offCPUID+1] = 0x10 },
		"no collateral":              func(e *attest.Evidence) { e.Collateral = nil },
		"spoiled collateral":         func(e *attest.Evidence) { e.Collateral[0].Body[len(e.Collateral[0].Body)-1] ^= 1 },
	}
	for _, at := range []int{0, offPolicy, offReportData, offMeasurement, offHostData, offReported, offChipID, offSignature, offSignature + 60, offSignature + sizeField, reportSize - 1} {
		spoiled[fmt.Sprintf("a bit at %#x", at)] = func(e *attest.Evidence) { e.Report[at] ^= 1 }
	}
	for name, spoil := range spoiled {
		ev := &attest.Evidence{TEE: good.TEE, Product: good.Product, Report: bytes.Clone(good.Report), Certs: slices.Clone(good.Certs)}
		for _, c := range good.Collateral {
			c.Body = bytes.Clone(c.Body)
			ev.Collateral = append(ev.Collateral, c)
		}
		spoil(ev)
		if ours, theirs := opinions(t, ev, tr, s, time.Now()); ours == nil || theirs == nil {
			t.Errorf("%s: ours: %v; theirs: %v", name, ours, theirs)
		}
	}
	for name, now := range map[string]time.Time{"too early": time.Now().AddDate(-2, 0, 0), "too late": time.Now().AddDate(30, 0, 0)} {
		if ours, theirs := opinions(t, good, tr, s, now); ours == nil || theirs == nil {
			t.Errorf("%s: ours: %v; theirs: %v", name, ours, theirs)
		}
	}
	if ours, theirs := opinions(t, good, attest.Transcript{Purpose: "another"}, s, time.Now()); ours == nil || theirs == nil {
		t.Errorf("another transcript: ours: %v; theirs: %v", ours, theirs)
	}
}
