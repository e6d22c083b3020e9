// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"context"
	"testing"

	"github.com/c8s-dev/c8s/nri/cosign"
	"github.com/c8s-dev/c8s/policy"
)

func signer(t *testing.T, p publisher) policy.Signer {
	t.Helper()
	key, err := policy.NewOperatorKey(p.name, p.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return policy.Signer(key)
}

func TestFinder(t *testing.T) {
	alice, bob := newPublisher(t, "alice", "ecdsa"), newPublisher(t, "bob", "ed25519")
	s := newShelf(t)
	s.attach(t, alice.simple(t, s.img.Repository, s.img.Manifest))
	config := policy.DigestOf([]byte("the config"))
	asked := 0
	f := cosign.NewFinder(cosign.NewVerifier(newClock().now, &cosign.Registry{}), func(_ context.Context, digest policy.Digest) ([]cosign.Image, error) {
		if asked++; digest != config {
			return nil, nil
		}
		return []cosign.Image{{Repository: s.img.Repository, Manifest: policy.DigestOf([]byte("of the same config, unsigned"))}, s.img}, nil
	})
	of := func(digest policy.Digest) []policy.SignatureFacts {
		t.Helper()
		facts, err := f.Of(t.Context(), policy.ImageFacts{Digest: digest})
		if err != nil {
			t.Fatal(err)
		}
		return facts
	}
	trust := func(m policy.Manifest) {
		t.Helper()
		if err := f.Manifest(&m); err != nil {
			t.Fatal(err)
		}
	}
	if got := of(config); len(got) != 0 || asked != 0 {
		t.Errorf("without a manifest: %+v, asked %d times", got, asked)
	}
	trust(policy.Manifest{Signers: []policy.Signer{signer(t, alice), signer(t, bob)}})
	id, err := signer(t, alice).ID()
	if err != nil {
		t.Fatal(err)
	}
	want := policy.SignatureFacts{Signer: id, Repository: s.img.Repository, ManifestDigest: s.img.Manifest}
	if got := of(config); len(got) != 1 || got[0] != want {
		t.Errorf("signed by alice: %+v, want %+v", got, want)
	}
	if got := of(policy.DigestOf([]byte("another"))); len(got) != 0 {
		t.Errorf("an image that nobody knows: %+v", got)
	}
	trust(policy.Manifest{Signers: []policy.Signer{signer(t, bob)}})
	if got := of(config); len(got) != 0 {
		t.Errorf("with alice's key gone: %+v", got)
	}
	asked = 0
	trust(policy.Manifest{Signers: []policy.Signer{signer(t, alice)}, Workloads: []policy.Workload{{Images: []policy.Image{{Digest: config}}}}})
	if got := of(config); len(got) != 0 || asked != 0 {
		t.Errorf("an image listed by digest: %+v, asked %d times", got, asked)
	}
	if err := f.Manifest(&policy.Manifest{Signers: []policy.Signer{{Name: "broken"}}}); err == nil {
		t.Error("a key that cannot be read was accepted")
	}
}
