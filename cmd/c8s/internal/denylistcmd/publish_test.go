// SPDX-License-Identifier: Apache-2.0

package denylistcmd_test

import (
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/denylistcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestPublishPutsADenyListInForce(t *testing.T) {
	d, c := desktest.New(t, denylistcmd.New), cdstest.New(t)
	c.TrustIn(d.Dir)
	cds := " --cds " + c.Addr + " --operators @operators.json --manifest @manifest.signed.json"
	first := c.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, "db"))
	second := c.DenyList(t, first, policytest.Deny(policy.DenyWorkload, "web"))
	third := c.DenyList(t, second)
	d.Write("first.json", first.Envelope)
	d.Write("second.json", second.Envelope)
	d.Write("third.json", third.Envelope)
	d.Write("stranger.json", policytest.New(t).DenyList(t, nil).Envelope)
	d.Write("bare.json", first.Payload)

	d.Refused(exit.Refused, "publish @stranger.json --yes"+cds, "signature-threshold")
	d.Refused(exit.Refused, "publish @bare.json --yes"+cds, "without signatures")
	r := d.Must("publish @first.json --yes" + cds)
	if !strings.Contains(r.Out, "denylist 1 is in force since") || !strings.Contains(r.Out, string(first.Digest)) || !strings.Contains(r.ErrOut, "workload db") {
		t.Errorf("said %q, %q", r.Out, r.ErrOut)
	}
	d.Refused(exit.Refused, "publish @third.json --yes"+cds, "denylist-gap")
	d.Refused(exit.Misuse, "publish @second.json"+cds, "--yes")
	r = d.Must("publish @second.json --yes" + cds)
	for _, want := range []string{"replaces version 1", "widens   entries[workload db]", "stops  workload web"} {
		if !strings.Contains(r.ErrOut, want) {
			t.Errorf("the preview lacks %q:\n%s", want, r.ErrOut)
		}
	}
	if r := d.Must("publish @second.json" + cds); !strings.Contains(r.Out, "already in force") {
		t.Errorf("again: %q", r.Out)
	}
	d.Refused(exit.Refused, "publish @first.json --yes"+cds, "denylist-rolled-back")
}
