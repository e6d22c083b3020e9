// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestLiveCertificatesOfAMachineAreBounded(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := newEvidenceStore(func() time.Time { return now }, storetest.NewMemory(), Limits{LivePerMachine: 3})
	ends := now.Add(time.Hour)
	var last func()
	for range 3 {
		release, err := s.claim("busy", ends)
		if err != nil {
			t.Fatal(err)
		}
		last = release
	}
	if _, err := s.claim("busy", ends); codeOf(err) != codeTooManyLive {
		t.Errorf("a fourth: %v, want %s", err, codeTooManyLive)
	}
	if _, err := s.claim("quiet", ends); err != nil {
		t.Errorf("another machine: %v", err)
	}
	last()
	if _, err := s.claim("busy", ends); err != nil {
		t.Errorf("in the place of one that was not issued: %v", err)
	}
	now = ends
	if _, err := s.claim("busy", ends.Add(time.Hour)); err != nil {
		t.Errorf("after the others ended: %v", err)
	}
	if n := len(s.live["busy"]); n != 1 {
		t.Errorf("%d are counted, want the last alone", n)
	}
}

func TestEvidenceIsKeptAsLongAsItsCertificateAndSharedByReplicas(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	shared := storetest.NewMemory()
	replica := func() *evidenceStore { return newEvidenceStore(func() time.Time { return now }, shared, Limits{}) }
	one := replica()
	transcript := attest.Transcript{Purpose: api.PurposeNode, Nonce: []byte("n")}
	ev, err := simtest.Attester(t, "node").Attest(t.Context(), transcript.ReportData())
	if err != nil {
		t.Fatal(err)
	}
	doc, err := api.NewEvidenceDocument(ev, transcript)
	if err != nil {
		t.Fatal(err)
	}
	files, err := one.files(ev.Hash(), doc, now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shared.Commit(t.Context(), store.Txn{Put: files}); err != nil {
		t.Fatal(err)
	}
	f := policytest.New(t)
	known := func(hash [sha256.Size]byte) error {
		_, err := replica().judge(t.Context(), hash, f.Signed, func(_ *attest.Evidence, data [64]byte) *attest.Verdict {
			if data != transcript.ReportData() {
				t.Error("another transcript came back")
			}
			return &attest.Verdict{}
		})
		return err
	}
	if err := known(ev.Hash()); err != nil {
		t.Errorf("another replica: %v", err)
	}
	if err := one.tidy(t.Context()); err != nil || known(ev.Hash()) != nil {
		t.Errorf("evidence of a live certificate was removed (%v)", err)
	}
	now = now.Add(2 * time.Hour)
	if err := one.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := known(ev.Hash()); codeOf(err) != codeEvidenceUnknown {
		t.Errorf("after its certificate ended: %v, want %s", err, codeEvidenceUnknown)
	}
	if n := count(t, shared); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

func count(t *testing.T, s store.Store) (n int) {
	t.Helper()
	if err := s.Scan(t.Context(), "", func(string, store.Value) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}
