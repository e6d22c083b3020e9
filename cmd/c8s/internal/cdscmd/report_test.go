// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/snp"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

func TestAReportIsAsGoodAsItsWorstLayer(t *testing.T) {
	for _, c := range []struct {
		layers  []State
		verdict State
		code    int
	}{
		{[]State{Proven, Proven}, Proven, exit.OK},
		{[]State{Proven, Missing, Proven}, Missing, exit.Partial},
		{[]State{Missing, Refuted, Missing}, Refuted, exit.Refused},
		{[]State{Proven, ""}, Refuted, exit.Refused},
		{nil, Refuted, exit.Refused},
	} {
		r := &Report{}
		for _, s := range c.layers {
			r.add("layer", s, "", "")
		}
		r.conclude()
		if r.Verdict != c.verdict || exit.Code(r.err()) != c.code {
			t.Errorf("%v: %s, exit %d; want %s, %d", c.layers, r.Verdict, exit.Code(r.err()), c.verdict, c.code)
		}
	}
}

// Anybody can make a root that carries no mark of a simulator.
func TestOnlyAVendorsRootProvesHardware(t *testing.T) {
	for root, want := range map[policy.Digest]State{snp.VendorRoots()[0].Digest: Proven, policy.DigestOf([]byte("mine")): Missing, "": Missing} {
		j := &judge{r: &Report{}}
		v := &attest.Verdict{Checks: []attest.Check{{ID: string(appraise.CheckReportData), Status: attest.Pass}}}
		v.Root = root
		j.hardware(v)
		if j.r.Layers[0].Name != "hardware" || j.r.Layers[0].State != want || j.r.Layers[1].State != Proven {
			t.Errorf("root %s: %+v", root, j.r.Layers)
		}
	}
}

func TestEvidenceForAnotherKeyIsRefuted(t *testing.T) {
	j := &judge{r: &Report{}}
	j.hardware(&attest.Verdict{Checks: []attest.Check{{ID: string(appraise.CheckReportData), Status: attest.Fail, Actual: "another"}}})
	if j.r.Layers[1].Name != "session-key" || j.r.Layers[1].State != Refuted {
		t.Errorf("%+v", j.r.Layers)
	}
}
