// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// seen collects everything that leaves the TEEs.
type seen map[string]string

// busyLife has the replicas do all they do, and fail at some of it.
func busyLife(t *testing.T, g *group, s seen) {
	t.Helper()
	complain := func(what string, err error) {
		if err != nil {
			s["error: "+what] = fmt.Sprintf("%v %+v %#v", err, err, err)
		}
	}
	c := g.client(nil)
	node, err := c.EnrolNode(t.Context(), g.machine("node"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.EnrolPod(t.Context(), node, webPod())
	complain("pod", err)
	p := webPod()
	p.Images = []policy.Digest{policytest.Digest("unlisted")}
	_, err = c.EnrolPod(t.Context(), node, p)
	complain("unlisted image", err)
	_, err = c.EnrolNode(t.Context(), g.machine("node", func(o *sim.Options) { o.Debug = true }))
	complain("debuggable machine", err)
	next := g.f.Next(t, hostAccess(0))
	_, err = c.PublishManifest(t.Context(), next.Envelope)
	complain("manifest", err)
	_, err = c.PublishManifest(t.Context(), []byte("nonsense"))
	complain("nonsense", err)
	_, err = c.PublishDenyList(t.Context(), g.f.DenyList(t, nil, policytest.Deny(policy.DenyWorkload, "nobody")).Envelope)
	complain("deny list", err)
	_, err = c.Cosign(t.Context(), g.replicas[0].document("/log/checkpoint"))
	complain("cosign", err)
	for _, r := range g.replicas {
		for _, path := range []string{"/v1/manifest", "/v1/manifest/countersignature", "/v1/denylist", "/v1/denylist/countersignature", "/v1/endorsement", "/v1/beacon", "/v1/recovery", "/log/checkpoint", "/log/tile/entries/000.p/3", "/v1/evidence/" + hexOf(node.Peer.Claims.EvidenceHash)} {
			s[r.name+path] = string(r.document(path))
		}
		r.store.Fail(1, storetest.Write, storetest.Before)
		_, err := g.client(nil, r).EnrolNode(t.Context(), g.machine("node"))
		complain("store", err)
	}
}

func TestNoSecretIsSeenAnywhere(t *testing.T) {
	g := newGroup(t, 2, func(m *policy.Manifest) { m.Recovery = cds.RecoverySection(t, 3) })
	for _, r := range g.replicas {
		r.edit = func(c *cds.Config) {
			c.Log = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
		}
	}
	g.startAll()
	a := g.replicas[0]
	await(t, "recovery shares", func() error {
		if !contains(a.log, "recovery shares made") && !contains(g.replicas[1].log, "recovery shares made") {
			return errors.New("none")
		}
		return nil
	}, a.log)
	s, canaries := seen{}, map[string][]byte{}
	keep := func() {
		for _, r := range g.replicas {
			secrets, err := r.srv.Secrets(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for name, secret := range secrets {
				canaries[fmt.Sprintf("%s of %s (%x)", name, r.name, secret[:2])] = secret
			}
		}
	}
	keep()
	busyLife(t, g, s)
	a.kill()
	a.launch() // joins, where it bootstrapped before
	a.ready()
	keep()
	for _, r := range g.replicas {
		families, err := r.reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		s["metrics of "+r.name], s["log of "+r.name] = fmt.Sprint(families), r.log.String()
		s["server "+r.name] = fmt.Sprintf("%v %+v", r.srv.Manifest().Digest, r.srv.Ready())
	}
	var raw strings.Builder
	if err := g.store.Scan(t.Context(), "", func(key string, v store.Value) error {
		fmt.Fprintf(&raw, "%s %s\n", key, v.Data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s["store"] = raw.String()
	if len(canaries) < 12 || len(s) < 20 {
		t.Fatalf("%d canaries and %d places: the test shows nothing", len(canaries), len(s))
	}
	for name, canary := range canaries {
		for _, spelling := range spellings(canary) {
			for place, text := range s {
				if strings.Contains(text, spelling) {
					t.Errorf("the %s is in %s, as %q", name, place, spelling)
				}
			}
		}
	}
}

// spellings are the ways in which 8 bytes of a secret may be written.
func spellings(secret []byte) (all []string) {
	const window = 8
	for i := 0; i+window <= len(secret); i++ {
		part := secret[i : i+window]
		decimals := strings.Trim(fmt.Sprint(part), "[]")
		all = append(all, string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), decimals, strings.ReplaceAll(decimals, " ", ", "),
			base64.StdEncoding.EncodeToString(part)[:10], base64.URLEncoding.EncodeToString(part)[:10])
	}
	return all
}

func TestSpellingsFindASecret(t *testing.T) {
	secret := []byte("0123456789abcdefghijklmnopqrstuv")
	for _, text := range []string{
		string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret[3:]), fmt.Sprint(secret), fmt.Sprint([32]byte(secret)),
		base64.StdEncoding.EncodeToString(secret), base64.RawURLEncoding.EncodeToString(secret[1:]), fmt.Sprintf("%q", secret),
	} {
		if !slices.ContainsFunc(spellings(secret), func(s string) bool { return strings.Contains(text, s) }) {
			t.Errorf("not found in %s", text)
		}
	}
}
