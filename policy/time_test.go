// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

const nextYear = "2027-01-01T00:00:00Z"

func at(t testing.TB, text string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTimesHaveOneSpelling(t *testing.T) {
	for _, text := range []string{
		"2027-01-01", "2027-01-01T00:00:00", "2027-01-01T00:00:00+00:00", "2027-01-01T00:00:00.0Z", "2027-01-01T00:00:00z",
		"2027-02-30T00:00:00Z", "2027-01-01T24:00:00Z", "2027-01-01T00:00:60Z", "27-01-01T00:00:00Z", "2027-1-1T0:0:0Z", " " + nextYear, "never",
	} {
		_, err := policy.Parse(edited(t, func(doc map[string]any) { doc["notBefore"] = text }))
		wantProblem(t, err, policy.CodeTimeInvalid, "$.notBefore")
		value := policytest.Hex(0xaa, 48)
		_, err = policy.Parse(edited(t, func(doc map[string]any) { substrate(doc)["expires"] = map[string]any{value: text} }))
		wantProblem(t, err, policy.CodeTimeInvalid, `$.substrates[0].expires["`+value+`"]`)
	}
	_, err := policy.Parse(edited(t, func(doc map[string]any) { doc["notBefore"] = nil }))
	wantProblem(t, err, policy.CodeNull, "$.notBefore")
}

func TestManifestsMayWait(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.NotBefore = nextYear }))
	if got, ok := f.Manifest.NotBeforeTime(); !ok || !got.Equal(at(t, nextYear)) {
		t.Errorf("not before = %v, %v", got, ok)
	}
	for name, text := range map[string][]byte{
		"absent": sample(t), "empty": edited(t, func(doc map[string]any) { doc["notBefore"] = "" }),
	} {
		m, err := policy.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := m.NotBeforeTime(); ok {
			t.Errorf("%s: not before %v", name, got)
		}
		if again, err := policy.Encode(m); err != nil || strings.Contains(string(again), "notBefore") {
			t.Errorf("%s: Encode writes it (%v)", name, err)
		}
	}
}

func TestOnlyListedValuesExpire(t *testing.T) {
	for name, value := range map[string]string{
		"other": policytest.Hex(0xab, 48), "empty": "", "word": policy.Any, "other word": policy.None, "role": "node", "product": policy.ProductMilan,
	} {
		_, err := policy.Parse(edited(t, func(doc map[string]any) { substrate(doc)["expires"] = map[string]any{value: nextYear} }))
		if policy.CodeOf(err) != policy.CodeReferenceUnknown {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, v := range map[string]any{"null": nil, "list": []any{}, "null time": map[string]any{policytest.Hex(0xaa, 48): nil}} {
		if _, err := policy.Parse(edited(t, func(doc map[string]any) { substrate(doc)["expires"] = v })); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Every list's values count until their moment and not at it, for fresh
// evidence and for certificates alike, and the refusal says since when.
func TestExpiredValuesAreNotListedAnyMore(t *testing.T) {
	snp := func() policy.Substrate {
		s := policytest.Substrate()
		s.Machines, s.HostData = []string{policytest.Hex(0xcc, 64)}, []string{policytest.Hex(7, 32)}
		s.SNP.IDKeys, s.SNP.AuthorKeys = []string{policytest.Hex(8, 48)}, []string{policytest.Hex(9, 48)}
		s.Paravisor, s.Registers = policy.ParavisorAzure, map[string][]string{"pcr4": {policytest.Hex(4, 32)}}
		return s
	}
	tdx := func() policy.Substrate {
		s := policytest.TDXSubstrate()
		s.HostData, s.TDX.Owners, s.TDX.OwnerConfigs = []string{policytest.Hex(0x30, 48)}, []string{policytest.Hex(0x31, 48)}, []string{policytest.Hex(0x32, 48)}
		s.TDX.ServiceTDs, s.TDX.XFAMs = []string{policytest.Hex(0x33, 48)}, []string{policytest.Hex(0xe7, 8)}
		s.Registers["rtmr3"], s.TDX.Events = []string{policy.Log}, []string{policytest.Hex(0x34, 48)}
		return s
	}
	facts := map[string]policy.SubstrateFacts{policy.TEESEVSNP: policytest.Facts(), policy.TEETDX: policytest.TDXFacts()}
	guests := map[string]policy.GuestFacts{policy.TEESEVSNP: policytest.Guest(), policy.TEETDX: policytest.TDXGuest()}
	f, g := facts[policy.TEESEVSNP], guests[policy.TEESEVSNP]
	f.HostData, f.Paravisor, f.Registers = policytest.Hex(7, 32), policy.ParavisorAzure, []policy.Register{{Name: "pcr4", Value: policytest.Hex(4, 32)}}
	g.IDKey, g.AuthorKey = policytest.Hex(8, 48), policytest.Hex(9, 48)
	facts[policy.TEESEVSNP], guests[policy.TEESEVSNP] = f, g
	f, g = facts[policy.TEETDX], guests[policy.TEETDX]
	f.HostData = policytest.Hex(0x30, 48)
	g.Owner, g.OwnerConfig, g.ServiceTD = policytest.Hex(0x31, 48), policytest.Hex(0x32, 48), policytest.Hex(0x33, 48)
	g.Events = []policy.Register{{Name: "rtmr3", Value: policytest.Hex(0x34, 48)}}
	facts[policy.TEETDX], guests[policy.TEETDX] = f, g

	for name, c := range map[string]struct {
		substrate func() policy.Substrate
		value     string
		rule      policy.Code
		atPeers   bool // certificates repeat the fact
	}{
		"root":              {snp, string(policytest.Digest("root")), policy.CodeRoot, true},
		"machine":           {snp, policytest.Hex(0xcc, 64), policy.CodeMachineUnpinned, true},
		"measurement":       {snp, policytest.Hex(0xaa, 48), policy.CodeMeasurement, true},
		"host data":         {snp, policytest.Hex(7, 32), policy.CodeHostData, true},
		"PCR":               {snp, policytest.Hex(4, 32), policy.CodeRegisters, true},
		"ID key":            {snp, policytest.Hex(8, 48), policy.CodeIDKey, false},
		"author key":        {snp, policytest.Hex(9, 48), policy.CodeAuthorKey, false},
		"RTMR":              {tdx, policytest.Hex(3, 48), policy.CodeRegisters, true},
		"TCB status":        {tdx, "SWHardeningNeeded", policy.CodeTCBStatus, true},
		"advisory":          {tdx, "INTEL-SA-00615", policy.CodeTCBAdvisories, true},
		"owner":             {tdx, policytest.Hex(0x31, 48), policy.CodeOwner, false},
		"owner's config":    {tdx, policytest.Hex(0x32, 48), policy.CodeOwnerConfig, false},
		"service TD":        {tdx, policytest.Hex(0x33, 48), policy.CodeServiceTD, false},
		"extended features": {tdx, policytest.Hex(0xe7, 8), policy.CodeXFAM, false},
		"event":             {tdx, policytest.Hex(0x34, 48), policy.CodeEvents, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := c.substrate()
			s.Expires = map[string]string{c.value: nextYear}
			f := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Substrates = []policy.Substrate{s} }))
			peer := policytest.Peer(f.Signed, policytest.Web)
			peer.SubstrateFacts = facts[s.TEE]
			end := at(t, nextYear)
			for _, now := range []time.Time{end.Add(-time.Nanosecond), end, end.Add(time.Hour)} {
				match := f.Manifest.AcceptSubstrate(policy.RoleNode, facts[s.TEE], guests[s.TEE], now)
				judged := []policy.Decision{match.Decision}
				if d := f.Manifest.AcceptPeer(peer, now); c.atPeers {
					judged = append(judged, d)
				} else {
					wantDecision(t, d, policy.CodeAllowed)
				}
				for _, d := range judged {
					if now.Before(end) {
						wantDecision(t, d, policy.CodeAllowed)
						continue
					}
					wantDecision(t, d, policy.CodeReferenceExpired)
					if !strings.Contains(d.Actual, nextYear) {
						t.Errorf("the refusal does not say since when: %v", d)
					}
				}
				for _, r := range match.Rules {
					if want := now.Before(end) || r.ID != string(c.rule); r.Allowed != want {
						t.Errorf("%s: rule %s allows: %v", now, r.ID, r.Allowed)
					}
				}
			}
		})
	}
}

func TestRefusalsNameOnlyWhatCounts(t *testing.T) {
	old, live := policytest.Hex(0xaa, 48), policytest.Hex(0xbb, 48)
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Substrates[0].Measurements, m.Substrates[0].Expires = []string{old, live}, map[string]string{old: nextYear}
	}))
	p := policytest.Peer(f.Signed, policytest.Web)
	p.Measurement = policytest.Hex(0xdd, 48)
	if d := f.Manifest.AcceptPeer(p, at(t, nextYear)); d.Code != policy.CodeMeasurement || d.Expected != live {
		t.Errorf("%+v", d)
	}
	p.Measurement = live
	wantDecision(t, f.Manifest.AcceptPeer(p, at(t, nextYear)), policy.CodeAllowed)
}

func TestQuestionsWithoutATimeAreRefused(t *testing.T) {
	f := policytest.New(t)
	wantDecision(t, f.Manifest.AcceptPeer(policytest.Peer(f.Signed, policytest.Web), time.Time{}), policy.CodeUndecided)
	var never time.Time
	wantDecision(t, f.Manifest.AcceptSubstrate(policy.RoleNode, policytest.Facts(), policytest.Guest(), never).Decision, policy.CodeUndecided)
}

func TestNextChangeIsTheNextExpiry(t *testing.T) {
	first, second := "2026-12-01T00:00:00Z", nextYear
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		more := policytest.TDXSubstrate()
		more.Expires = map[string]string{policytest.Hex(0xab, 48): first, "INTEL-SA-00615": second}
		m.Substrates[0].Expires = map[string]string{policytest.Hex(0xaa, 48): second}
		m.Substrates = append(m.Substrates, more)
	}))
	for after, want := range map[time.Time]string{
		{}: first, policytest.Now(): first, at(t, first).Add(-time.Nanosecond): first, at(t, first): second,
		at(t, first).Add(time.Millisecond): second, at(t, second).Add(-time.Second): second, at(t, second): "", at(t, second).Add(time.Hour): "",
	} {
		got, ok := f.Manifest.NextChange(after)
		if ok != (want != "") || ok && !got.Equal(at(t, want)) {
			t.Errorf("after %s: %s, %v; want %q", after, got, ok, want)
		}
	}
	if got, ok := policytest.New(t).Manifest.NextChange(time.Time{}); ok {
		t.Errorf("a manifest of no expiry changes at %s", got)
	}
	if _, ok := (&policy.Manifest{}).NextChange(time.Time{}); ok {
		t.Error("a manifest made by hand changes")
	}
}

func TestExpiringValuesCostNoAllocation(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Substrates[0].Expires = map[string]string{policytest.Hex(0xaa, 48): nextYear}
	}))
	p, now := policytest.Peer(f.Signed, policytest.Web), policytest.Now()
	if n := testing.AllocsPerRun(100, func() {
		if !f.Manifest.AcceptPeer(p, now).Allowed {
			t.Fatal("refused")
		}
		f.Manifest.NextChange(now)
	}); n != 0 {
		t.Errorf("AcceptPeer and NextChange allocate %v times", n)
	}
}

// A pod that is a virtual machine of its own is judged for the role workload;
// certificates of workloads may speak of either kind of machine.
func TestWorkloadsRunOnNodesOrAlone(t *testing.T) {
	pod := policytest.TDXSubstrate()
	pod.Name, pod.Roles = "pods", []policy.Role{policy.RoleWorkload}
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Substrates = append(m.Substrates, pod) }))
	now := policytest.Now()
	onNode := policytest.Peer(f.Signed, policytest.Web)
	alone := onNode
	alone.SubstrateFacts = policytest.TDXFacts()
	wantDecision(t, f.Manifest.AcceptPeer(onNode, now), policy.CodeAllowed)
	wantDecision(t, f.Manifest.AcceptPeer(alone, now), policy.CodeAllowed)
	node := alone
	node.Role, node.Workload, node.WorkloadDigest = policy.RoleNode, "", ""
	wantDecision(t, f.Manifest.AcceptPeer(node, now), policy.CodeTEE)
	wantDecision(t, f.Manifest.AcceptSubstrate(policy.RoleWorkload, policytest.TDXFacts(), policytest.TDXGuest(), now).Decision, policy.CodeAllowed)
	wantDecision(t, f.Manifest.AcceptSubstrate(policy.RoleWorkload, policytest.Facts(), policytest.Guest(), now).Decision, policy.CodeTEE)
	wantDecision(t, f.Manifest.AcceptSubstrate(policy.RoleNode, policytest.TDXFacts(), policytest.TDXGuest(), now).Decision, policy.CodeTEE)

	only := f.Next(t, func(m *policy.Manifest) { m.Substrates = m.Substrates[1:] })
	wantDecision(t, only.Manifest.AcceptPeer(alone, now), policy.CodeAllowed)
	wantDecision(t, only.Manifest.AcceptPeer(onNode, now), policy.CodeTEE)
}

func TestExpiriesSurviveEncoding(t *testing.T) {
	f := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.NotBefore, m.Substrates[0].Expires = nextYear, map[string]string{policytest.Hex(0xaa, 48): nextYear}
	}))
	var doc map[string]any
	if err := json.Unmarshal(f.Payload, &doc); err != nil {
		t.Fatal(err)
	}
	if doc["notBefore"] != nextYear || substrate(doc)["expires"].(map[string]any)[policytest.Hex(0xaa, 48)] != nextYear {
		t.Errorf("written as %s", f.Payload)
	}
	again, err := policy.Encode(f.Manifest)
	if err != nil || string(again) != string(f.Payload) {
		t.Errorf("encoding twice differs (%v)", err)
	}
}
