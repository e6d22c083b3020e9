// SPDX-License-Identifier: Apache-2.0

package policytest

import (
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

// DenyList signs the deny list that follows prev, or the first one where prev
// is nil, with the fixture's keys. It holds exactly these entries: those of
// prev are not kept.
func (f *Fixture) DenyList(t testing.TB, prev *policy.SignedDenyList, entries ...policy.Denial) *policy.SignedDenyList {
	t.Helper()
	l := &policy.DenyList{Schema: policy.DenyListSchema, TrustDomain: f.Manifest.TrustDomain, Version: 1, Entries: entries}
	if prev != nil {
		l.Version, l.Previous = prev.List.Version+1, prev.Digest
	}
	payload, err := policy.EncodeDenyList(l)
	if err != nil {
		t.Fatalf("encoding the deny list: %v", err)
	}
	envelope, err := policy.SignDenyList(payload, f.Keys...)
	if err != nil {
		t.Fatalf("signing the deny list: %v", err)
	}
	signed, err := policy.OpenDenyList(envelope, f.Operators)
	if err != nil {
		t.Fatalf("opening the deny list: %v", err)
	}
	return signed
}

// Deny returns a denial for the tests' reason.
func Deny(kind policy.DenyKind, value string) policy.Denial {
	return policy.Denial{Kind: kind, Value: value, Reason: "lost in a test"}
}
