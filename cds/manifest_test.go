// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func refusedWith(t *testing.T, err error, code string) {
	t.Helper()
	var refused *client.RefusedError
	if !errors.As(err, &refused) || refused.Code != code {
		t.Errorf("got %v, want a refusal with %s", err, code)
	}
}

func publish(t *testing.T, c *client.Client, envelope []byte) error {
	t.Helper()
	_, err := c.PublishManifest(t.Context(), envelope)
	return err
}

func TestPublishTakesOnlyTheSignedSuccessor(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	second := w.f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = true })
	fork := w.f.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	stranger := policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Version, m.Previous = 2, w.f.Digest }))
	refusedWith(t, publish(t, c, []byte("no envelope")), "json-syntax")
	refusedWith(t, publish(t, c, stranger.Envelope), "signature-threshold")
	if _, err := c.PublishManifest(t.Context(), second.Envelope); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, publish(t, c, w.f.Envelope), "manifest-rolled-back")
	refusedWith(t, publish(t, c, fork.Envelope), "manifest-forked")
	refusedWith(t, publish(t, c, second.Envelope), "manifest-unchanged")
}

func TestWatchEndsWithItsContext(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.client().Watch(ctx, func(client.News) {}) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: %v", err)
	}
}

func TestRestartKeepsTheManifestAndNeverGoesBack(t *testing.T) {
	w := newWorld(t)
	second := w.f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = true })
	if _, err := w.client().PublishManifest(t.Context(), second.Envelope); err != nil {
		t.Fatal(err)
	}
	w.stop()
	// Started with the old file: the kept manifest wins.
	w.start(simtest.Attester(t, "cds", measuredFor(w.f.Operators)))
	signed, err := policy.Open(w.document("/v1/manifest"), w.f.Operators)
	if err != nil || signed.Digest != second.Digest {
		t.Errorf("after the restart version %v is served (%v), want 2", signed, err)
	}
}

func TestClientRefusesAnotherCDS(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		edit       func(*world) func(*sim.Options)
	}{
		{"with another measurement", "measurement", func(w *world) func(*sim.Options) {
			return func(o *sim.Options) { measuredFor(w.f.Operators)(o); o.Measurement[3] ^= 1 }
		}},
		{"launched for other operators", "host-data", func(*world) func(*sim.Options) {
			return func(o *sim.Options) { o.HostData[0] ^= 1 }
		}},
		{"in debug mode", "guest-debug", func(w *world) func(*sim.Options) {
			return func(o *sim.Options) { measuredFor(w.f.Operators)(o); o.Debug = true }
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.stop()
			w.store = storetest.NewMemory() // another program cannot unseal the old one
			w.start(simtest.Attester(t, "cds", tt.edit(w)))
			_, err := w.client().EnrolNode(t.Context(), w.node())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a refusal that names %s", err, tt.want)
			}
		})
	}
}

// A manifest may accept any HOST_DATA; the machine's own trust anchor does not.
func TestClientRefusesACDSThatObeysOtherOperators(t *testing.T) {
	w := newWorld(t)
	others, _ := policytest.Operators(t, 1, 1)
	anyHost := w.f.Next(t, func(m *policy.Manifest) {
		for i := range m.Substrates {
			m.Substrates[i].HostData = []string{policy.Any}
		}
	})
	w.f = &policytest.Fixture{Signed: anyHost.Signed, Operators: w.f.Operators, Keys: w.f.Keys}
	w.stop()
	w.store = storetest.NewMemory()
	w.start(simtest.Attester(t, "cds", measuredFor(others)))
	_, err := w.client().EnrolNode(t.Context(), w.node())
	refusedWith(t, err, client.CodeOperatorsNotBound)
}

func TestClientKeepsTheNewestManifestAcrossRestarts(t *testing.T) {
	f := policytest.New(t)
	second := f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = true })
	fork := f.Next(t, func(m *policy.Manifest) { m.Workloads[1].HostAccess = true })
	dir := filepath.Join(t.TempDir(), "state")
	open := func(given *policytest.Fixture) (*client.Client, error) {
		return client.New(client.Config{
			Addrs: []string{"10.0.0.1:1"}, Operators: f.Operators, Manifest: given.Signed, StateDir: dir, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		})
	}
	for _, step := range []struct {
		name  string
		given *policytest.Fixture
		want  policy.Digest
	}{
		{"first start", f, f.Digest},
		{"newer file", second, second.Digest},
		{"older file again", f, second.Digest},
	} {
		got, err := open(step.given)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got.Manifest().Digest != step.want {
			t.Errorf("%s: version %d in force", step.name, got.Manifest().Manifest.Version)
		}
	}
	if _, err := open(fork); policy.CodeOf(err) != policy.CodeManifestForked {
		t.Errorf("another manifest of the same version: %v, want %s", err, policy.CodeManifestForked)
	}
}

func TestNoKeyOrDetailLeavesTheService(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	node, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	p := webPod()
	p.Images = []policy.Digest{policytest.Digest("unlisted")}
	_, err = c.EnrolPod(t.Context(), node, p)
	refusedWith(t, err, "image-unlisted")
	if strings.Contains(err.Error(), string(p.Images[0])) {
		t.Errorf("the refusal tells the caller its reasons: %v", err)
	}
	if !strings.Contains(w.log.String(), string(p.Images[0])) {
		t.Error("the log does not say which image was refused")
	}
	if strings.Contains(w.log.String(), "PRIVATE KEY") {
		t.Error("a private key is in the log")
	}
}

func TestClientConfigurationIsChecked(t *testing.T) {
	f := policytest.New(t)
	for name, cfg := range map[string]client.Config{
		"nothing":    {},
		"no port":    {Addrs: []string{"10.0.0.1"}, Manifest: f.Signed, Now: time.Now, Log: slog.New(slog.DiscardHandler)},
		"no address": {Manifest: f.Signed, Now: time.Now, Log: slog.New(slog.DiscardHandler)},
	} {
		if _, err := client.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
