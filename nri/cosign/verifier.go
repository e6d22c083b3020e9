// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/c8s-dev/c8s/policy"
)

// Source is a place where signatures may lie.
type Source interface {
	// Signatures returns what is there for a manifest of repository. None is no
	// error.
	Signatures(ctx context.Context, repository string, manifest policy.Digest) ([]Signature, error)
}

// Image is a manifest, or an index of manifests, in a repository.
type Image struct {
	Repository string // as Repository spells it
	Manifest   policy.Digest
}

// How long signatures that count are remembered, and that there were none: a
// publisher may be about to sign. What is remembered is what was found, never a
// verdict: keys come and go with manifests.
const (
	rememberFound = 24 * time.Hour
	rememberNone  = 15 * time.Second
	maxRemembered = 4096 // images
)

// Verifier asks its sources in order and remembers what they had.
type Verifier struct {
	sources []Source
	now     func() time.Time
	flight  singleflight.Group

	mu   sync.Mutex
	kept map[Image]kept
}

type kept struct {
	signatures []Signature
	at         time.Time
}

// NewVerifier makes a Verifier. Sources that need no network come first.
func NewVerifier(now func() time.Time, sources ...Source) *Verifier {
	return &Verifier{sources: sources, now: now, kept: map[Image]kept{}}
}

// Known returns the claims by keys about img from what is remembered, without
// asking any source; ok is false when a source should be asked.
func (v *Verifier) Known(img Image, keys []Key) (claims []Claim, ok bool) {
	v.mu.Lock()
	k, ok := v.kept[img]
	v.mu.Unlock()
	if !ok {
		return nil, false
	}
	claims = verified(img, k.signatures, keys)
	life := rememberNone
	if len(claims) > 0 {
		life = rememberFound
	}
	return claims, v.now().Sub(k.at) < life
}

// Of returns the claims by keys about img. No claim is no error: nobody of them
// signed it.
func (v *Verifier) Of(ctx context.Context, img Image, keys []Key) ([]Claim, error) {
	if claims, ok := v.Known(img, keys); ok {
		return claims, nil
	}
	// One flight for all who ask now, which none of them can call off alone.
	result := v.flight.DoChan(img.Repository+"@"+string(img.Manifest), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		return v.fetch(ctx, img)
	})
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("looking for signatures of %s@%s: %w", img.Repository, img.Manifest, ctx.Err())
	case r := <-result:
		if r.Err != nil {
			return nil, fmt.Errorf("looking for signatures of %s@%s: %w", img.Repository, img.Manifest, r.Err)
		}
		return verified(img, r.Val.([]Signature), keys), nil
	}
}

// fetchTimeout bounds one search at all sources.
const fetchTimeout = 20 * time.Second

// fetch gathers what all sources have: the one the manifest asks for may be in
// any. A source that fails matters only if no other has anything.
func (v *Verifier) fetch(ctx context.Context, img Image) ([]Signature, error) {
	var list []Signature
	var errs []error
	for _, s := range v.sources {
		more, err := s.Signatures(ctx, img.Repository, img.Manifest)
		list, errs = append(list, more...), append(errs, err)
	}
	if err := errors.Join(errs...); len(list) == 0 && err != nil {
		return nil, err
	}
	v.remember(img, list)
	return list, nil
}

func (v *Verifier) remember(img Image, list []Signature) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for old := range v.kept {
		if len(v.kept) < maxRemembered {
			break
		}
		delete(v.kept, old)
	}
	v.kept[img] = kept{list, v.now()}
}

// verified keeps the claims about img itself. Which repository they must name is
// for policy to say.
func verified(img Image, list []Signature, keys []Key) []Claim {
	var claims []Claim
	for _, s := range list {
		c, err := Verify(s, keys)
		if err != nil || c.Manifest != img.Manifest {
			continue // others may sign the same image, and registries hold rubbish
		}
		claims = append(claims, c)
	}
	return claims
}
