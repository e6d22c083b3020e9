// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"fmt"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// Manifest is the envelope of a manifest.
type Manifest struct{ Envelope []byte }

// Judge makes the checks of the CDS, which answers with a bare code: here the
// operator reads why.
func (m Manifest) Judge(now *client.InForce) (*Plan, error) {
	was := now.Manifest.Manifest
	next, err := policy.Open(m.Envelope, was.Operators)
	if err != nil {
		return nil, err
	}
	decision := policy.Succeeds(now.Manifest, next)
	if decision.Code == policy.CodeManifestUnchanged {
		decision.Allowed = true
	}
	if err := decision.Err(); err != nil {
		return nil, err
	}
	if now.DenyList != nil {
		if _, err := policy.OpenDenyList(now.DenyList.Envelope, next.Manifest.Operators); err != nil {
			return nil, fmt.Errorf("the operators that this manifest names did not sign deny list %d, which is in force: have them sign it and publish it first: %w", now.DenyList.List.Version, err)
		}
	}
	plan := &Plan{
		Document: "manifest", Version: next.Manifest.Version, Digest: next.Digest, Replaces: was.Version, Signers: next.Signers,
		Changes: append([]policy.Change{}, policy.Diff(was, next.Manifest)...), Affected: append([]policy.Impact{}, policy.Affected(was, next.Manifest, time.Now())...),
		Warnings: []string{}, nextCDS: next.Manifest,
	}
	for _, f := range policy.Lint(next.Manifest, time.Now()) {
		if f.Severity == policy.SeverityError {
			plan.Warnings = append(plan.Warnings, f.String())
		}
	}
	if now.Pending != nil && now.Pending.Digest != next.Digest {
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("version %d waits for %s, and will not follow this one", now.Pending.Manifest.Version, now.Pending.Manifest.NotBefore))
	}
	return plan, nil
}

// Send offers the manifest.
func (m Manifest) Send(ctx context.Context, c *client.Client) (*client.Published, error) {
	return c.PublishManifest(ctx, m.Envelope)
}

// Proof is there when this very manifest is in force.
func (m Manifest) Proof(now *client.InForce) *trust.Countersignature {
	if e, err := policy.ParseEnvelope(m.Envelope); err != nil || policy.DigestOf(e.Payload) != now.Manifest.Digest {
		return nil
	}
	return now.ManifestProof
}

// DenyList is the envelope of a deny list.
type DenyList struct{ Envelope []byte }

// Judge makes the checks of the CDS.
func (l DenyList) Judge(now *client.InForce) (*Plan, error) {
	m := now.Manifest.Manifest
	next, err := policy.OpenDenyList(l.Envelope, m.Operators)
	if err != nil {
		return nil, err
	}
	if next.List.TrustDomain != m.TrustDomain {
		return nil, policy.Decision{
			Code: policy.CodeTrustDomain, Rule: "trust domain of the deny list", Expected: m.TrustDomain, Actual: next.List.TrustDomain,
			Remedy: "this deny list belongs to another mesh",
		}
	}
	decision := policy.DenyListSucceeds(now.DenyList, next)
	switch {
	case decision.Code == policy.CodeDenyListUnchanged:
	case decision.Code == policy.CodeDenyListGap && now.DenyList == nil: // a CDS that was made anew has none
	default:
		if err := decision.Err(); err != nil {
			return nil, err
		}
	}
	plan := &Plan{
		Document: "denylist", Version: next.List.Version, Digest: next.Digest, Signers: next.Signers,
		Affected: []policy.Impact{}, Warnings: []string{},
	}
	var was *policy.DenyList
	if now.DenyList != nil {
		was, plan.Replaces = now.DenyList.List, now.DenyList.List.Version
	}
	plan.Changes = append([]policy.Change{}, policy.DiffDenyLists(was, next.List)...)
	plan.Affected = denied(was, next.List)
	return plan, nil
}

// denied is what the list newly stops.
func denied(was, next *policy.DenyList) []policy.Impact {
	before := map[policy.Denial]bool{}
	if was != nil {
		for _, e := range was.Entries {
			before[policy.Denial{Kind: e.Kind, Value: e.Value}] = true
		}
	}
	found := []policy.Impact{}
	for _, e := range next.Entries {
		if !before[policy.Denial{Kind: e.Kind, Value: e.Value}] {
			found = append(found, policy.Impact{
				Path: fmt.Sprintf("%s %s", e.Kind, e.Value), Outcome: policy.Stops,
				Why: "denied, also where it is connected now: " + e.Reason,
			})
		}
	}
	return found
}

// Send offers the deny list.
func (l DenyList) Send(ctx context.Context, c *client.Client) (*client.Published, error) {
	return c.PublishDenyList(ctx, l.Envelope)
}

// Proof is there when this very list is in force.
func (l DenyList) Proof(now *client.InForce) *trust.Countersignature {
	e, err := policy.ParseEnvelopeOf(l.Envelope, policy.MaxDenyListEnvelope)
	if err != nil || now.DenyList == nil || policy.DigestOf(e.Payload) != now.DenyList.Digest {
		return nil
	}
	return now.DenyListProof
}
