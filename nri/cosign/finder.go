// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/c8s-dev/c8s/policy"
)

// Finder tells by whom images were signed that the node has.
type Finder struct {
	verifier  *Verifier
	manifests func(ctx context.Context, config policy.Digest) ([]Image, error)
	trusted   atomic.Pointer[trusted]
}

// trusted is what a manifest says about signatures.
type trusted struct {
	keys   []Key
	listed map[policy.Digest]bool // by digest: whoever signed these does not matter
}

// NewFinder makes a Finder; manifests names the images on the node that have a
// config. It trusts nobody until it was given a manifest.
func NewFinder(v *Verifier, manifests func(ctx context.Context, config policy.Digest) ([]Image, error)) *Finder {
	f := &Finder{verifier: v, manifests: manifests}
	f.trusted.Store(&trusted{})
	return f
}

// Manifest puts the signers of another manifest in force.
func (f *Finder) Manifest(m *policy.Manifest) error {
	t := &trusted{listed: map[policy.Digest]bool{}}
	for _, s := range m.Signers {
		id, err := s.ID()
		if err != nil {
			return fmt.Errorf("reading the key of signer %q: %w", s.Name, err)
		}
		public, err := s.Public()
		if err != nil {
			return fmt.Errorf("reading the key of signer %q: %w", s.Name, err)
		}
		t.keys = append(t.keys, Key{ID: id, Public: public})
	}
	for _, w := range m.Workloads {
		for _, image := range w.Images {
			t.listed[image.Digest] = true
		}
	}
	f.trusted.Store(t)
	return nil
}

// Of returns the signatures by the manifest's signers of an image. An image that
// the manifest lists by its digest is not looked for.
func (f *Finder) Of(ctx context.Context, image policy.ImageFacts) ([]policy.SignatureFacts, error) {
	t := f.trusted.Load()
	if len(t.keys) == 0 || t.listed[image.Digest] {
		return nil, nil
	}
	images, err := f.manifests(ctx, image.Digest)
	if err != nil {
		return nil, fmt.Errorf("looking for the manifests of %s: %w", image.Digest, err)
	}
	var facts []policy.SignatureFacts
	var errs []error
	for _, img := range images {
		claims, err := f.verifier.Of(ctx, img, t.keys)
		errs = append(errs, err)
		for _, c := range claims {
			facts = append(facts, policy.SignatureFacts{Signer: c.Signer, Repository: c.Repository, ManifestDigest: c.Manifest})
		}
	}
	if len(facts) > 0 {
		return facts, nil
	}
	return nil, errors.Join(errs...)
}
