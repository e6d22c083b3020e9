// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/cdstest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// configOf is that of a client of w that knows another manifest.
func configOf(t *testing.T, w *cdstest.CDS, known *policy.Signed) client.Config {
	t.Helper()
	return client.Config{
		Addrs: []string{w.Addr}, Operators: w.Operators, Manifest: known, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
}

func inForce(t *testing.T, c *client.Client) (*client.InForce, error) {
	t.Helper()
	d, err := c.Documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	return d.InForce(t.Context())
}

func publish(t *testing.T, c *cdstest.CDS, f *policytest.Fixture) {
	t.Helper()
	if _, err := c.Client().PublishManifest(t.Context(), f.Envelope); err != nil {
		t.Fatal(err)
	}
}

// The operators changed while the client was away: those it knows did not sign
// what is in force, but those whom they named did.
func TestInForceFollowsManifestsThatWereMissed(t *testing.T) {
	w := cdstest.New(t)
	others, keys := policytest.Operators(t, 1, 1)
	second := w.Next(t, func(m *policy.Manifest) { m.Operators = others })
	handed := &policytest.Fixture{Signed: second.Signed, Operators: others, Keys: keys}
	third := handed.Next(t, func(*policy.Manifest) {})
	publish(t, w, second)
	publish(t, w, third)
	list := third.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, "db"))
	if _, err := w.Client().PublishDenyList(t.Context(), list.Envelope); err != nil {
		t.Fatal(err)
	}
	c := w.Client()
	now, err := inForce(t, c)
	if err != nil {
		t.Fatal(err)
	}
	if now.Manifest.Digest != third.Digest || now.ManifestProof.Version != 3 || now.DenyList.Digest != list.Digest || now.DenyListProof.Version != 1 || now.Pending != nil {
		t.Errorf("in force: %+v", now)
	}
	if c.Manifest().Digest != third.Digest || c.DenyList().Digest != list.Digest {
		t.Error("the client did not take over what it verified")
	}
	if now, err = inForce(t, c); err != nil || now.Manifest.Digest != third.Digest {
		t.Errorf("again: %v", err)
	}
}

func TestInForceNeverGoesBack(t *testing.T) {
	w := cdstest.New(t)
	second := w.Next(t, func(*policy.Manifest) {})
	c, err := client.New(configOf(t, w, second.Signed))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inForce(t, c); policy.CodeOf(err) != policy.CodeManifestRolledBack {
		t.Errorf("a CDS that is behind: %v, want %s", err, policy.CodeManifestRolledBack)
	}
	publish(t, w, w.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false }))
	if _, err := inForce(t, c); policy.CodeOf(err) != policy.CodeManifestForked {
		t.Errorf("a CDS with another history: %v, want %s", err, policy.CodeManifestForked)
	}
}

// A CDS that was made anew starts from a later manifest and has none before.
func TestInForceTakesALaterManifestOfACDSThatWasMadeAnew(t *testing.T) {
	w := cdstest.New(t)
	first := w.Client()
	later := w.Next(t, func(*policy.Manifest) {}).Next(t, func(*policy.Manifest) {})
	old := w.Fixture
	w.Stop()
	w.Store, w.Fixture = storetest.NewMemory(), later
	w.Start(w.Attester("cds"))
	again, err := client.New(configOf(t, w, old.Signed))
	if err != nil {
		t.Fatal(err)
	}
	if now, err := inForce(t, again); err != nil || now.Manifest.Digest != later.Digest {
		t.Errorf("in force: %v, %v", now, err)
	}
	if first.Manifest().Digest != old.Digest {
		t.Error("a client changed without being asked")
	}
	d, err := w.Client().Documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if found, err := d.Manifests(t.Context()); err != nil || len(found) != 1 {
		t.Errorf("%d manifests, %v; want the one that it was started with", len(found), err)
	}
}
