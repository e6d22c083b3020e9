// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// maxChain bounds how many manifests are followed one after the other.
const maxChain = 4096

// Getter reads a public document of a CDS by its path (docs/cds.md lists them),
// from wherever it is served: nothing is believed for the place it came from.
// The error for one that is not there wraps fs.ErrNotExist.
type Getter func(ctx context.Context, path string) ([]byte, error)

// Chain walks back from the newest envelope of a manifest to the first version,
// or one that is far enough, and returns what it found with the oldest first.
// Only the chain of digests is checked, no signature. Where the CDS has no
// further document, what was found comes with an error that wraps
// fs.ErrNotExist.
func (get Getter) Chain(ctx context.Context, newest []byte, enough func(*policy.Manifest) bool) ([][]byte, error) {
	var found [][]byte
	for envelope, want := newest, policy.Digest(""); ; {
		e, err := policy.ParseEnvelope(envelope)
		if err != nil {
			return nil, err
		}
		digest := policy.DigestOf(e.Payload)
		if want != "" && digest != want {
			return nil, fmt.Errorf("the CDS gave %s for the document %s", digest, want)
		}
		m, err := policy.Parse(e.Payload)
		if err != nil {
			return nil, err
		}
		found = append(found, envelope)
		if m.Previous == "" || enough(m) {
			break
		}
		if len(found) == maxChain {
			return nil, fmt.Errorf("more than %d manifests from version %d on: start from a newer one", maxChain, m.Version)
		}
		want = m.Previous
		if envelope, err = get(ctx, "/v1/document/"+string(want)); err != nil {
			slices.Reverse(found)
			return found, err
		}
	}
	slices.Reverse(found)
	return found, nil
}

// Follow opens each envelope under the operators of the manifest before it, from
// now on, and returns the last. missing says that there may be versions between
// now and the first envelope that nobody has any more.
func Follow(now *policy.Signed, chain [][]byte, missing bool) (*policy.Signed, error) {
	for _, envelope := range chain {
		next, err := policy.Open(envelope, now.Manifest.Operators)
		if err != nil {
			return nil, err
		}
		decision := policy.Succeeds(now, next)
		if unchanged := decision.Code == policy.CodeManifestUnchanged; unchanged || missing && decision.Code == policy.CodeManifestGap {
			decision.Allowed = true
		}
		if err := decision.Err(); err != nil {
			return nil, err
		}
		now, missing = next, false
	}
	return now, nil
}

// Countersignature returns the word of the CDS with the bundle about when a
// document was put in force, and where the log has it.
func (get Getter) Countersignature(ctx context.Context, b *trust.Bundle, subject trust.Subject) (*trust.Countersignature, error) {
	raw, err := get(ctx, "/v1/countersignature/"+string(subject.Digest))
	if err != nil {
		return nil, err
	}
	key, err := b.CountersignKey()
	if err != nil {
		return nil, err
	}
	proof, err := trust.VerifyCountersignature(raw, key, subject)
	if err != nil {
		return nil, &RefusedError{Code: CodeCountersignature, Detail: err.Error()}
	}
	return proof, nil
}

// DenyList returns the deny list in force, which the operators of m signed and
// the CDS countersigned; nil where there never was one. That it is not older than
// one seen before is the caller's to check.
func (get Getter) DenyList(ctx context.Context, b *trust.Bundle, m *policy.Manifest) (*policy.SignedDenyList, *trust.Countersignature, error) {
	raw, err := get(ctx, "/v1/denylist")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	list, err := policy.OpenDenyList(raw, m.Operators)
	if err != nil {
		return nil, nil, fmt.Errorf("verifying the deny list in force: %w", err)
	}
	proof, err := get.Countersignature(ctx, b, trust.DenyListSubject(list))
	return list, proof, err
}

// Log fetches files of the log. What it returns is not yet verified.
func (get Getter) Log() translog.Fetcher {
	return func(ctx context.Context, path string) ([]byte, error) { return get(ctx, "/log/"+path) }
}

// Auditor reads the log with the bundle's key.
func (get Getter) Auditor(b *trust.Bundle) (*translog.Auditor, error) {
	verifier, err := b.LogVerifier()
	if err != nil {
		return nil, err
	}
	return translog.NewAuditor(trust.LogOrigin(b.TrustDomain), verifier, get.Log()), nil
}

// OwnLog checks that the log, of which latest is a checkpoint, begins with the
// bundle: that it is this CDS's.
func OwnLog(ctx context.Context, a *translog.Auditor, latest translog.Checkpoint, b *trust.Bundle) error {
	first := errors.New("it is empty")
	err := a.Entries(ctx, latest, 0, min(1, latest.Size), func(_ int64, raw []byte) error {
		var e *translog.Entry
		if e, first = translog.ParseEntry(raw); first == nil && (e.Type != translog.TypeBundle || e.Digest != b.Digest()) {
			first = fmt.Errorf("its first entry is about %s %s, not about these keys", e.Type, e.Digest)
		}
		return nil
	})
	return errors.Join(err, first)
}
