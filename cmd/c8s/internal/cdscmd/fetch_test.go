// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"encoding/base64"
	"testing"

	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/recovery"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// A CDS could serve another document than the one it logged, or one that is for
// others than the operators wanted.
func TestAReplacedRecoveryDocumentIsRefused(t *testing.T) {
	var to []recovery.Recipient
	named := &policy.Recovery{Threshold: 2}
	for _, name := range []string{"alice", "bob", "carol"} {
		_, public, err := recovery.NewRecoveryKey()
		if err != nil {
			t.Fatal(err)
		}
		to = append(to, recovery.Recipient{Name: name, Public: public})
		named.Keys = append(named.Keys, policy.RecoveryKey{Name: name, PublicKey: base64.StdEncoding.EncodeToString(public[:])})
	}
	split := func(threshold int, domain string, to ...recovery.Recipient) *recovery.Document {
		d, err := recovery.Split(keys.Seed{1}, threshold, to, domain)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	entryOf := func(d *recovery.Document) *translog.Entry {
		return &translog.Entry{Type: translog.TypeRecovery, Digest: d.Digest(), Threshold: d.Threshold, Shares: len(d.Shares)}
	}
	manifest := &policy.Manifest{TrustDomain: policytest.TrustDomain, Version: 1, Recovery: named}
	good := split(2, policytest.TrustDomain, to...)
	if err := sameDocument(good, entryOf(good), manifest); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, d := range map[string]*recovery.Document{
		"another threshold":    split(1, policytest.TrustDomain, to...),
		"another trust domain": split(2, "other.test", to...),
		"fewer holders":        split(2, policytest.TrustDomain, to[:2]...),
		"another's key":        split(2, policytest.TrustDomain, to[0], to[1], recovery.Recipient{Name: "carol", Public: [32]byte{9}}),
		"another's name":       split(2, policytest.TrustDomain, to[0], to[1], recovery.Recipient{Name: "mallory", Public: to[2].Public}),
	} {
		if sameDocument(d, entryOf(d), manifest) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	again := split(2, policytest.TrustDomain, to...)
	if sameDocument(again, entryOf(good), manifest) == nil {
		t.Error("a document that is not the log's was accepted")
	}
	if sameDocument(good, entryOf(good), &policy.Manifest{TrustDomain: policytest.TrustDomain, Version: 2}) == nil {
		t.Error("a document for nobody was accepted")
	}
}
