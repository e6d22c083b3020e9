// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/datapath/flow"
)

func TestFlowsNameTheRuleThatLetAConnectionOut(t *testing.T) {
	r := flow.Record{
		Verdict: flow.Allowed, Direction: flow.Egress, Rule: "external/pay", DstName: "api.example.com", SrcWorkload: "web",
		Src: netip.MustParseAddrPort("10.81.1.1:40000"), Dst: netip.MustParseAddrPort("192.0.2.1:443"),
	}
	var out strings.Builder
	if err := writeFlow(&out, r); err != nil {
		t.Fatal(err)
	}
	const want = "10.81.1.1:40000 (web) -> 192.0.2.1:443 [api.example.com] (external/pay)\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("%q does not end with %q", out.String(), want)
	}
	out.Reset()
	r.Verdict, r.Rule, r.DstName = flow.Refused, "workloads[web].external", ""
	if err := writeFlow(&out, r); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "external") {
		t.Errorf("a refusal was let out: %q", out.String())
	}
}
