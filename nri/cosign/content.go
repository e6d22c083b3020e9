// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"fmt"

	"github.com/c8s-dev/c8s/policy"
)

// Contents reads a node's image store.
type Contents interface {
	// Target returns what the image of that name points at; ok is false when
	// there is no such image.
	Target(ctx context.Context, name string) (digest policy.Digest, ok bool, err error)
	// Blob returns at most limit bytes of content, checked against its digest.
	Blob(ctx context.Context, digest policy.Digest, limit int) ([]byte, error)
}

// Local finds signatures in the node's own image store, where nodes without a
// way to the registry get them: imported beside the image, under the signature
// tag of its repository.
type Local struct{ Contents Contents }

// Signatures implements Source.
func (l *Local) Signatures(ctx context.Context, repository string, manifest policy.Digest) ([]Signature, error) {
	target, ok, err := l.Contents.Target(ctx, repository+":"+TagOf(manifest))
	if err != nil {
		return nil, fmt.Errorf("looking for signatures on the node: %w", err)
	}
	if !ok {
		return nil, nil
	}
	raw, err := l.Contents.Blob(ctx, target, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("reading signatures on the node: %w", err)
	}
	entries, err := signatures(raw)
	if err != nil {
		return nil, err
	}
	var list []Signature
	for _, e := range entries {
		blob, err := l.Contents.Blob(ctx, e.Blob, maxPayload)
		if err != nil {
			return list, fmt.Errorf("reading a signature on the node: %w", err)
		}
		list = append(list, Signature{Payload: blob, Signature: e.Signature, Bundle: e.Bundle})
	}
	return list, nil
}
