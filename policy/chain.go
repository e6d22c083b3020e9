// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"fmt"
)

// Succeeds decides whether next may replace prev: newer, chained to prev's
// exact payload, of the same trust domain, and signed by enough of the
// operators that prev names. Version numbers may jump; the chain may not.
func Succeeds(prev, next *Signed) Decision {
	if prev == nil || next == nil || prev.Manifest.Digest() == "" || next.Manifest.Digest() == "" {
		return Decision{Code: CodeUndecided, Rule: "succession", Expected: "two opened manifests", Actual: "less", Remedy: "open them with policy.Open"}
	}
	p, n := prev.Manifest, next.Manifest
	rule := fmt.Sprintf("succession of version %d", p.Version)
	switch {
	case n.TrustDomain != p.TrustDomain:
		return Decision{Code: CodeTrustDomain, Rule: rule, Expected: p.TrustDomain, Actual: n.TrustDomain, Remedy: "a trust domain keeps its name for life"}
	case n.Version < p.Version:
		return Decision{
			Code: CodeManifestRolledBack, Rule: rule, Expected: fmt.Sprintf("a version above %d", p.Version), Actual: fmt.Sprint(n.Version),
			Remedy: "to undo a change, publish the old content under a new version",
		}
	case n.Version == p.Version && n.Digest() == p.Digest():
		return Decision{Code: CodeManifestUnchanged, Rule: rule, Expected: fmt.Sprintf("a version above %d", p.Version), Actual: "the same manifest"}
	case n.Previous != p.Digest():
		return notChained(rule, p, n)
	}
	return signedBy(p.Operators, next, rule)
}

func notChained(rule string, p, n *Manifest) Decision {
	d := Decision{
		Code: CodeManifestForked, Rule: rule, Expected: "previous = " + string(p.Digest()),
		Actual: fmt.Sprintf("version %d with previous = %q", n.Version, n.Previous),
		Remedy: "somebody signed two successors of one manifest: find out who before signing a third",
	}
	if n.Version > p.Version+1 {
		d.Code, d.Remedy = CodeManifestGap, "apply the manifests in between first, in order"
	}
	return d
}

// signedBy checks the envelope again: next was opened under the operators its
// reader trusts, which need not be those that prev names.
func signedBy(operators Operators, next *Signed, rule string) Decision {
	e, err := ParseEnvelope(next.Envelope)
	if err != nil {
		return Decision{Code: CodeOf(err), Rule: rule, Expected: "the envelope of the next manifest", Actual: err.Error()}
	}
	if d := manifestFormat().matches(e); !d.Allowed {
		d.Rule = rule
		return d
	}
	if !bytes.Equal(e.Payload, next.Payload) || DigestOf(next.Payload) != next.Manifest.Digest() {
		return Decision{Code: CodePayloadMismatch, Rule: rule, Expected: "the envelope's own payload", Actual: "another one"}
	}
	if _, _, d := e.verify(operators); !d.Allowed {
		d.Code, d.Rule = CodeManifestUnauthorised, rule
		return d
	}
	return allow(rule)
}
