// SPDX-License-Identifier: Apache-2.0

package manifestcmd_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// online is a desk, a CDS, and the flags that name it.
func online(t *testing.T) (*desktest.Desk, *cdstest.CDS, string) {
	t.Helper()
	d, c := newDesk(t), cdstest.New(t)
	c.TrustIn(d.Dir)
	return d, c, " --cds " + c.Addr + " --operators @operators.json --manifest @manifest.signed.json"
}

type publication struct {
	Version            uint64
	Digest             policy.Digest
	Published, InForce bool
	NotBefore, Since   *time.Time
	LogIndex           *int64
	Affected           []policy.Impact
	Changes            []policy.Change
	Warnings           []string
}

func published(t *testing.T, r desktest.Result) (p publication) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.Out), &p); err != nil {
		t.Fatalf("%v: %q, %q", err, r.Out, r.ErrOut)
	}
	return p
}

func TestPublishShowsWhatStopsAndPutsInForce(t *testing.T) {
	d, c, cds := online(t)
	next := c.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false })
	d.Write("next.json", next.Envelope)

	r := d.Must("publish @next.json --dry-run -o json" + cds)
	if p := published(t, r); p.Published || p.InForce || len(p.Affected) != 1 || p.Affected[0].Path != "workloads[web].hostAccess" {
		t.Errorf("a dry run said %+v", p)
	}
	d.Refused(exit.Misuse, "publish @next.json"+cds, "--yes")
	if c.Server.Manifest().Digest != c.Digest {
		t.Fatal("it was published although nobody agreed")
	}

	r = d.Must("publish @next.json --yes -o json" + cds)
	p := published(t, r)
	if !p.Published || !p.InForce || p.Version != 2 || p.Digest != next.Digest || p.Since == nil || p.LogIndex == nil || *p.LogIndex < 2 {
		t.Errorf("published %+v", p)
	}
	for _, want := range []string{"replaces version 1", "narrows", "workloads[web].hostAccess", "stops"} {
		if !strings.Contains(r.ErrOut, want) {
			t.Errorf("the preview lacks %q:\n%s", want, r.ErrOut)
		}
	}
	if c.Server.Manifest().Digest != next.Digest {
		t.Error("it is not in force")
	}
	if r := d.Must("publish @next.json" + cds); !strings.Contains(r.Out, "already in force since") {
		t.Errorf("again: %q", r.Out)
	}
}

func TestPublishSaysUntilWhenAManifestIsLocked(t *testing.T) {
	d, c, cds := online(t)
	at := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	next := c.Next(t, func(m *policy.Manifest) { m.NotBefore = at.Format(time.RFC3339) })
	d.Write("next.json", next.Envelope)
	p := published(t, d.Must("publish @next.json --yes -o json"+cds))
	if !p.Published || p.InForce || p.NotBefore == nil || !p.NotBefore.Equal(at) || p.LogIndex == nil {
		t.Errorf("published %+v", p)
	}
	if r := d.Must("publish @next.json --yes" + cds); !strings.Contains(r.Out, "locked until "+at.Format(time.RFC3339)) {
		t.Errorf("again: %q", r.Out)
	}
	other := c.Next(t, func(m *policy.Manifest) { m.Version = 3 })
	d.Write("other.json", other.Envelope)
	if r := d.Must("publish @other.json --dry-run" + cds); !strings.Contains(r.ErrOut, "version 2 waits for "+at.Format(time.RFC3339)) {
		t.Errorf("the preview does not speak of the one that waits:\n%s", r.ErrOut)
	}
}

func TestPublishWarnsBeforeTheCDSIsLockedOut(t *testing.T) {
	d, c, cds := online(t)
	next := c.Next(t, func(m *policy.Manifest) {
		for i := range m.Substrates {
			m.Substrates[i].Measurements = []string{policytest.Hex(1, 48)}
		}
	})
	d.Write("next.json", next.Envelope)
	r := d.Must("publish @next.json --dry-run -o json" + cds)
	if p := published(t, r); len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "refuses the CDS") || !strings.Contains(r.ErrOut, "WARNING: this manifest refuses the CDS") {
		t.Errorf("warned %q", p.Warnings)
	}
}

func TestPublishRefusesWithTheReason(t *testing.T) {
	d, c, cds := online(t)
	second := c.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false })
	fork := c.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	d.Write("second.json", second.Envelope)
	d.Write("fork.json", fork.Envelope)
	d.Write("stranger.json", policytest.New(t).Envelope)
	d.Write("bare.json", second.Payload)
	if _, err := c.Client().PublishManifest(t.Context(), second.Envelope); err != nil {
		t.Fatal(err)
	}
	d.Refused(exit.Refused, "publish @fork.json --yes"+cds, "manifest-forked")
	d.Refused(exit.Refused, "publish @manifest.signed.json --yes"+cds, "manifest-rolled-back")
	d.Refused(exit.Refused, "publish @stranger.json --yes"+cds, "signature-threshold")
	d.Refused(exit.Refused, "publish @bare.json --yes"+cds, "without signatures")
	d.Refused(exit.Misuse, "publish @second.json --operators @operators.json", "--cds is required")
	d.Refused(exit.Misuse, "publish @second.json --cds "+c.Addr, "--operators is required")
	d.Refused(exit.Misuse, "publish @second.json --cds "+c.Addr+" --operators @operators.json", "--manifest is required")
}

func TestPublishTalksToNoCDSOfOthers(t *testing.T) {
	d, c, _ := online(t)
	other := cdstest.New(t)
	next := c.Next(t, func(*policy.Manifest) {})
	d.Write("next.json", next.Envelope)
	d.Refused(exit.Refused, "publish @next.json --yes --operators @operators.json --manifest @manifest.signed.json --cds "+other.Addr, "host-data")
}

func TestPublishRefusesToOrphanTheDenyList(t *testing.T) {
	d, c, cds := online(t)
	if _, err := c.Client().PublishDenyList(t.Context(), c.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, "db")).Envelope); err != nil {
		t.Fatal(err)
	}
	others, _ := policytest.Operators(t, 1, 1)
	next := c.Next(t, func(m *policy.Manifest) { m.Operators = others })
	d.Write("next.json", next.Envelope)
	d.Refused(exit.Refused, "publish @next.json --yes"+cds, "did not sign deny list 1")
}

func TestHistoryFromACDSIsCountersignedAndLogged(t *testing.T) {
	d, c, cds := online(t)
	second := c.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false })
	third := second.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = true })
	for _, f := range []*policytest.Fixture{second, third} {
		if _, err := c.Client().PublishManifest(t.Context(), f.Envelope); err != nil {
			t.Fatal(err)
		}
	}
	var steps []struct {
		Version  uint64
		Digest   policy.Digest
		LogIndex *uint64
		Since    *time.Time
		File     string
		Changes  []policy.Change
	}
	if err := json.Unmarshal([]byte(d.Must("history -o json"+cds).Out), &steps); err != nil {
		t.Fatal(err)
	}
	if len(steps) != 3 || steps[0].Digest != c.Digest || steps[2].Digest != third.Digest || len(steps[1].Changes) == 0 || steps[0].File != "" {
		t.Fatalf("steps %+v", steps)
	}
	for i, s := range steps {
		if s.LogIndex == nil || s.Since == nil || i > 0 && *s.LogIndex <= *steps[i-1].LogIndex {
			t.Errorf("step %d: %+v", i, s)
		}
	}
	if r := d.Must("history" + cds); !strings.Contains(r.Out, "log entry 1, in force since") || r.ErrOut != "" {
		t.Errorf("said %q, %q", r.Out, r.ErrOut)
	}
	d.Refused(exit.Misuse, "history @manifest.signed.json"+cds, "Usage:")
	d.Refused(exit.Misuse, "history --cds "+c.Addr+" --manifest @manifest.signed.json", "--operators is required")
}

// The CDS was verified under a manifest that its history does not have.
func TestHistoryOfAnotherChainIsRefused(t *testing.T) {
	d, c, cds := online(t)
	other := policytest.Sign(t, forked(t, c.Fixture), c.Operators, c.Keys...)
	d.Write("manifest.signed.json", other.Envelope)
	d.Refused(exit.Refused, "history"+cds, "none of them is your version 1")
	next := c.Next(t, func(*policy.Manifest) {})
	d.Write("next.json", next.Envelope)
	d.Refused(exit.Refused, "publish @next.json --yes"+cds, "manifest-forked")
}

// forked is another first version by the same operators.
func forked(t *testing.T, f *policytest.Fixture) *policy.Manifest {
	t.Helper()
	m, err := policy.Parse(f.Payload)
	if err != nil {
		t.Fatal(err)
	}
	m.Workloads[1].HostAccess = true
	return m
}
