// SPDX-License-Identifier: Apache-2.0

package cdscmd_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdscmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func command() *cobra.Command {
	c := &cobra.Command{Use: "cds"}
	c.AddCommand(cdscmd.Commands()...)
	return c
}

func newDesk(t *testing.T, c *cdstest.CDS) *desktest.Desk {
	t.Helper()
	d := desktest.New(t, command)
	c.TrustIn(d.Dir)
	return d
}

// verify runs the command and returns the report.
func verify(t *testing.T, d *desktest.Desk, line string, code int) (states map[string]cdscmd.State, r cdscmd.Report) {
	t.Helper()
	got := d.Run("verify " + line + " -o json")
	if got.Code != code {
		t.Fatalf("%s: exit %d, want %d: %s\n%s", line, got.Code, code, got.ErrOut, got.Out)
	}
	if err := json.Unmarshal([]byte(got.Out), &r); err != nil {
		t.Fatalf("%v: %s", err, got.Out)
	}
	states = map[string]cdscmd.State{}
	for _, l := range r.Layers {
		states[l.Name] = l.State
	}
	return states, r
}

func missing(states map[string]cdscmd.State) string {
	var names []string
	for _, name := range []string{"connection", "hardware", "session-key", "operators", "reference-values", "collateral", "keys", "log", "manifest", "witnesses", "beacon", "ready"} {
		if states[name] != cdscmd.Proven {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}

// witnessed publishes a manifest that asks for a witness, and cosigns.
func witnessed(t *testing.T, c *cdstest.CDS) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w, err := policy.NewWitness("w.example", "w.example", public)
	if err != nil {
		t.Fatal(err)
	}
	next := c.Next(t, func(m *policy.Manifest) { m.Witnesses, m.WitnessQuorum = []policy.Witness{w}, 1 })
	if _, err := c.Client().PublishManifest(t.Context(), next.Envelope); err != nil {
		t.Fatal(err)
	}
	d, err := c.Client().Documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	signed, err := d.Get(t.Context(), "/log/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := d.Bundle().LogVerifier()
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := translog.NewCosigner("w.example", key)
	if err != nil {
		t.Fatal(err)
	}
	cosigned, err := translog.AddCosignature(signed, trust.LogOrigin(policytest.TrustDomain), verifier, cosigner, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client().Cosign(t.Context(), cosigned); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyIsHonestAboutWhatIsMissing(t *testing.T) {
	c := cdstest.New(t)
	d := newDesk(t, c)
	measurement := policytest.Hex(0xaa, 48)

	states, r := verify(t, d, c.Addr+" --operators @operators.json", exit.Partial)
	if got := missing(states); got != "hardware reference-values keys manifest witnesses" || r.Verdict != cdscmd.Missing {
		t.Errorf("with operators alone: %s missing: %s", r.Verdict, got)
	}
	states, _ = verify(t, d, c.Addr+" --operators @operators.json --measurement "+measurement, exit.Partial)
	if got := missing(states); got != "hardware reference-values keys manifest witnesses" {
		t.Errorf("with a measurement: missing %s", got)
	}
	states, r = verify(t, d, c.Addr+" --operators @operators.json --manifest @manifest.signed.json --measurement "+measurement, exit.Partial)
	if got := missing(states); got != "hardware witnesses" || r.Evidence == nil || !r.Evidence.OK {
		t.Errorf("with a manifest: missing %s", got)
	}
	witnessed(t, c)
	states, _ = verify(t, d, c.Addr+" --operators @operators.json --manifest @manifest.signed.json", exit.Partial)
	if got := missing(states); got != "hardware" {
		t.Errorf("with witnesses: missing %s", got)
	}
}

func TestVerifyIsReadByPeople(t *testing.T) {
	c := cdstest.New(t)
	d := newDesk(t, c)
	r := d.Run("verify " + c.Addr + " --operators @operators.json --manifest @manifest.signed.json --checks")
	for _, want := range []string{"SIMULATED", "proven   operators", "MISSING  witnesses", "signing-key", `substrate "sim-a"`} {
		if !strings.Contains(r.Out, want) {
			t.Errorf("the report lacks %q:\n%s", want, r.Out)
		}
	}
	if !strings.Contains(r.ErrOut, "does not prove: hardware, witnesses") {
		t.Errorf("concluded %q", r.ErrOut)
	}
	d.Refused(exit.Misuse, "verify "+c.Addr, "--operators is required")
	d.Refused(exit.Misuse, "verify "+c.Addr+" --operators @operators.json --measurement AA", "--measurement must be")
	d.Refused(exit.Misuse, "verify", "Usage:")
	c.Stop()
	d.Refused(exit.Refused, "verify "+c.Addr+" --operators @operators.json", "reaching the CDS")
}

func TestVerifyRefutes(t *testing.T) {
	for _, tt := range []struct {
		name, layer, more string
		edit              func(*sim.Options)
	}{
		{"a CDS of other operators", "operators", "", func(o *sim.Options) { o.HostData[0] ^= 1 }},
		{"another program", "reference-values", "--manifest @manifest.signed.json", func(o *sim.Options) { o.Measurement[0] ^= 1 }},
		{"another measurement", "reference-values", "--measurement " + policytest.Hex(0xaa, 48), func(o *sim.Options) { o.Measurement[0] ^= 1 }},
		{"a debuggable machine", "reference-values", "--manifest @manifest.signed.json", func(o *sim.Options) { o.Debug = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := cdstest.Prepare(t)
			c.Start(c.Attester("cds", tt.edit))
			states, r := verify(t, newDesk(t, c), c.Addr+" --operators @operators.json "+tt.more, exit.Refused)
			if states[tt.layer] != cdscmd.Refuted || r.Verdict != cdscmd.Refuted {
				t.Errorf("layers %v", states)
			}
			if _, asked := states["keys"]; asked {
				t.Error("it went on with a CDS that is refuted")
			}
		})
	}
}

func TestVerifyRefutesACDSWithAnotherHistory(t *testing.T) {
	c := cdstest.New(t)
	d := newDesk(t, c)
	next := c.Next(t, func(*policy.Manifest) {})
	d.Write("next.json", next.Envelope)
	states, _ := verify(t, d, c.Addr+" --operators @operators.json --manifest @next.json", exit.Refused)
	if states["manifest"] != cdscmd.Refuted || states["log"] != cdscmd.Proven {
		t.Errorf("a CDS that is behind: %v", states)
	}
}

func TestVerifyShowsACDSThatWaitsForItsSecret(t *testing.T) {
	c := cdstest.New(t)
	d := newDesk(t, c)
	c.Stop()
	c.Launch(cdstest.Forgetful{Attester: c.Attester("cds")})
	states, r := verify(t, d, c.Addr+" --operators @operators.json --manifest @manifest.signed.json", exit.Partial)
	if states["reference-values"] != cdscmd.Proven || states["keys"] != cdscmd.Missing || states["ready"] != cdscmd.Missing {
		t.Errorf("layers %+v", r.Layers)
	}
	if !strings.Contains(d.Run("verify "+c.Addr+" --operators @operators.json").Out, "not-ready") {
		t.Error("the code is not shown")
	}
}

// bare gives evidence without the vendor's collateral.
type bare struct{ attest.Attester }

func (b bare) Attest(ctx context.Context, data [64]byte) (*attest.Evidence, error) {
	ev, err := b.Attester.Attest(ctx, data)
	if err == nil {
		ev.Collateral = nil
	}
	return ev, err
}

func TestVerifySaysWhenRevocationWasNotChecked(t *testing.T) {
	for use, want := range map[string]string{
		policy.CollateralUnchecked: "hardware collateral witnesses",
		policy.CollateralRequired:  "hardware reference-values collateral keys manifest witnesses",
	} {
		c := cdstest.Prepare(t, policytest.With(func(m *policy.Manifest) {
			for i := range m.Substrates {
				m.Substrates[i].Collateral.Use = use
				if use == policy.CollateralUnchecked {
					m.Substrates[i].Collateral.MaxAgeDays = 0
				}
			}
		}))
		c.Start(bare{c.Attester("cds")})
		states, _ := verify(t, newDesk(t, c), c.Addr+" --operators @operators.json --manifest @manifest.signed.json", exit.Partial)
		if got := missing(states); got != want {
			t.Errorf("%s: missing %s, want %s", use, got, want)
		}
	}
}
