// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// InForce is the operators' word as the CDS has it. Every part of it was
// verified: signatures, succession, countersignatures.
type InForce struct {
	Manifest      *policy.Signed
	ManifestProof *trust.Countersignature
	Pending       *policy.Signed         // nil: none waits for its time
	DenyList      *policy.SignedDenyList // nil: there never was one
	DenyListProof *trust.Countersignature
}

// InForce reads what is in force, and brings the client to it. Manifests that
// the client missed are followed one by one, so that operators may have changed
// in between.
func (d *Documents) InForce(ctx context.Context) (*InForce, error) {
	now := &InForce{}
	raw, err := d.Get(ctx, "/v1/manifest")
	if err != nil {
		return nil, err
	}
	if now.Manifest, err = d.follow(ctx, raw); err != nil {
		return nil, fmt.Errorf("verifying the manifest in force: %w", err)
	}
	if now.ManifestProof, err = d.Countersignature(ctx, trust.ManifestSubject(now.Manifest)); err != nil {
		return nil, err
	}
	if err := d.c.take(d.s.bundle, now.Manifest); err != nil {
		return nil, err
	}
	if err := d.pending(ctx, now); err != nil {
		return nil, err
	}
	return now, d.denyList(ctx, now)
}

// follow opens the manifest, every step from the client's own on checked as a
// node would have. A CDS that was made anew does not have the steps: then the
// operators of the client's own must have signed this one.
func (d *Documents) follow(ctx context.Context, newest []byte) (*policy.Signed, error) {
	now := d.c.Manifest()
	chain, err := d.getter().Chain(ctx, newest, func(m *policy.Manifest) bool {
		return m.Previous == now.Digest || m.Version <= now.Manifest.Version
	})
	if errors.Is(err, fs.ErrNotExist) {
		chain, err = [][]byte{newest}, nil
	}
	if err != nil {
		return nil, err
	}
	return Follow(now, chain, len(chain) == 1)
}

// Manifests returns the envelopes of the manifest in force and of those before
// it, oldest first and as far back as this CDS has them. Only the chain of
// digests was checked, no signature.
func (d *Documents) Manifests(ctx context.Context) ([][]byte, error) {
	newest, err := d.Get(ctx, "/v1/manifest")
	if err != nil {
		return nil, err
	}
	chain, err := d.getter().Chain(ctx, newest, func(*policy.Manifest) bool { return false })
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // made anew, from a later manifest
	}
	return chain, err
}

// Countersignature returns the CDS's word about when a document was put in
// force, and where the log has it.
func (d *Documents) Countersignature(ctx context.Context, subject trust.Subject) (*trust.Countersignature, error) {
	return d.getter().Countersignature(ctx, d.Bundle(), subject)
}

// take makes a verified manifest the client's own if it is newer.
func (c *Client) take(b *trust.Bundle, next *policy.Signed) error {
	c.adopting.Lock()
	defer c.adopting.Unlock()
	if next.Manifest.Version <= c.Manifest().Manifest.Version {
		return nil
	}
	return c.putInForce(b, next)
}

func (d *Documents) pending(ctx context.Context, now *InForce) error {
	raw, err := d.Get(ctx, "/v1/manifest/pending")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	next, err := policy.Open(raw, now.Manifest.Manifest.Operators)
	if err == nil {
		err = policy.Succeeds(now.Manifest, next).Err()
	}
	if err != nil {
		return fmt.Errorf("verifying the manifest that waits: %w", err)
	}
	now.Pending = next
	return nil
}

func (d *Documents) denyList(ctx context.Context, now *InForce) error {
	list, proof, err := d.getter().DenyList(ctx, d.Bundle(), now.Manifest.Manifest)
	if list == nil || err != nil {
		return err
	}
	if _, err := d.c.denyList.Adopt(list); err != nil {
		return fmt.Errorf("verifying the deny list in force: %w", err)
	}
	now.DenyList, now.DenyListProof = list, proof
	return nil
}

// Log fetches files of the log. What it returns is not yet verified.
func (d *Documents) Log() translog.Fetcher { return d.getter().Log() }

// Auditor reads the log, with the key that the CDS's evidence stands behind.
func (d *Documents) Auditor() (*translog.Auditor, error) { return d.getter().Auditor(d.Bundle()) }

func (d *Documents) getter() Getter { return d.Get }
