// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"crypto/ecdsa"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// Every kind of denial refuses those it is about, and nobody else.
func TestEveryKindOfDenialRefusesEnrolment(t *testing.T) {
	w := newWorld(t)
	node, err := w.client().EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	chip, measurement := simtest.Options("node").ChipID, simtest.Options("node").Measurement
	denied := w.call(&node.TLS) // connected before anything is denied
	denied.nonce()
	key := w.call(nil)
	enrolNode := func(c *caller) error {
		n := c.nonce()
		_, err := c.api.Enrol(t.Context(), c.evidence(w.node(), n, c.exporter(n), c.spki))
		return err
	}
	enrolPod := func(c *caller) error {
		_, err := c.api.Enrol(t.Context(), c.signed(c.statement(node, c.nonce()), node.TLS.PrivateKey.(*ecdsa.PrivateKey)))
		return err
	}
	renew := func(c *caller) error {
		n := c.nonce()
		_, err := c.api.Renew(t.Context(), c.evidence(w.node(), n, c.exporter(n), c.spki))
		return err
	}
	var list *policy.SignedDenyList
	for _, tt := range []struct {
		kind           policy.DenyKind
		value          string
		code           string
		refused, taken map[string]func() error
	}{
		{policy.DenySerial, node.Peer.Serial, "denied-serial", map[string]func() error{
			"a pod of it":                       func() error { return enrolPod(denied) },
			"its renewal":                       func() error { return renew(denied) },
			"its machine, while it is shown":    func() error { return enrolNode(denied) },
			"a new connection that it is shown": func() error { return enrolPod(w.call(&node.TLS)) },
		}, map[string]func() error{"its machine, without it": func() error { return enrolNode(w.call(nil)) }}},
		{policy.DenyKey, string(policy.DigestOf(key.spki)), "denied-key", map[string]func() error{
			"a certificate for it": func() error { return enrolNode(key) },
		}, map[string]func() error{"another key": func() error { return enrolNode(w.call(nil)) }, "a pod": func() error { return enrolPod(denied) }}},
		{policy.DenyMachine, hex.EncodeToString(chip[:]), "denied-machine", map[string]func() error{
			"it": func() error { return enrolNode(w.call(nil)) }, "a pod on it": func() error { return enrolPod(denied) }, "its renewal": func() error { return renew(denied) },
		}, nil},
		{policy.DenyWorkload, policytest.Web, "denied-workload", map[string]func() error{
			"it": func() error { return enrolPod(denied) },
		}, map[string]func() error{"its node": func() error { return enrolNode(w.call(nil)) }}},
		{policy.DenyWorkload, policytest.DB, "denied-workload", nil, map[string]func() error{"another workload": func() error { return enrolPod(denied) }}},
	} {
		list = w.f.DenyList(t, list, policytest.Deny(tt.kind, tt.value))
		if _, err := w.client().PublishDenyList(t.Context(), list.Envelope); err != nil {
			t.Fatal(err)
		}
		for what, try := range tt.refused {
			t.Run(string(tt.kind)+": "+what, func(t *testing.T) { wantCode(t, try(), tt.code) })
		}
		for what, try := range tt.taken {
			if err := try(); err != nil {
				t.Errorf("%s is denied, and %s refused: %v", tt.kind, what, err)
			}
		}
	}
	// The last is the measurement: the CDS of this world has the same one, so
	// clients that hear of it leave.
	list = w.f.DenyList(t, list, policytest.Deny(policy.DenyMeasurement, hex.EncodeToString(measurement[:])))
	if _, err := w.client().PublishDenyList(t.Context(), list.Envelope); err != nil {
		t.Fatal(err)
	}
	wantCode(t, enrolNode(w.call(nil)), "denied-measurement")
	wantCode(t, enrolPod(denied), "denied-measurement")
	if !strings.Contains(w.log.String(), "lost in a test") {
		t.Error("the operators' reason is not in the log")
	}
}

func TestForkedAndOlderDenyListsAreRefused(t *testing.T) {
	w := newWorld(t)
	stranger := policytest.New(t)
	first := w.f.DenyList(t, nil)
	second := w.f.DenyList(t, first, policytest.Deny(policy.DenyWorkload, "a"))
	fork := w.f.DenyList(t, first, policytest.Deny(policy.DenyWorkload, "b"))
	fourth := w.f.DenyList(t, w.f.DenyList(t, second))
	publish := func(l *policy.SignedDenyList) error {
		_, err := w.client().PublishDenyList(t.Context(), l.Envelope)
		return err
	}
	for _, l := range []*policy.SignedDenyList{first, second} {
		if err := publish(l); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		list *policy.SignedDenyList
		code string
	}{
		"the same":         {second, "denylist-unchanged"},
		"an older one":     {first, "denylist-rolled-back"},
		"a fork":           {fork, "denylist-forked"},
		"one too far":      {fourth, "denylist-gap"},
		"others' own":      {stranger.DenyList(t, nil), "signature-threshold"},
		"not a list":       {&policy.SignedDenyList{Envelope: w.f.Envelope}, "envelope-payload-type"},
		"of another trust": {otherDomain(t, w), "trust-domain"},
	} {
		t.Run(name, func(t *testing.T) { refusedWith(t, publish(tt.list), tt.code) })
	}
}

// otherDomain is a list for another mesh by the very same operators.
func otherDomain(t *testing.T, w *world) *policy.SignedDenyList {
	t.Helper()
	m := *w.f.Manifest
	m.TrustDomain = "elsewhere.test"
	return (&policytest.Fixture{Signed: &policy.Signed{Manifest: &m}, Operators: w.f.Operators, Keys: w.f.Keys}).DenyList(t, nil)
}
