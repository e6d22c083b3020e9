// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// ask reads a public document.
func (r *running) ask(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

// proven reads the document about a certificate, and verifies it.
func (r *running) proven(t *testing.T, certificate policy.Digest) *api.Issuance {
	t.Helper()
	w := r.ask("/v1/issuance/" + string(certificate))
	if w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "public, max-age=300" {
		t.Fatalf("%d %s, %v", w.Code, w.Body, w.Header())
	}
	i, err := api.ParseIssuance(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := r.c.bundle.LogVerifier()
	if err != nil {
		t.Fatal(err)
	}
	cp, err := translog.OpenCheckpoint([]byte(i.Checkpoint), r.c.checkpoints.origin, verifier)
	if err != nil {
		t.Fatal(err)
	}
	proof := make([]translog.Hash, len(i.Proof))
	for n, h := range i.Proof {
		proof[n] = translog.Hash(h)
	}
	if err := translog.VerifyInclusion(i.Entry, i.Index, *cp, proof); err != nil {
		t.Fatal(err)
	}
	entry, err := translog.ParseEntry(i.Entry)
	if err != nil || entry.Certificate != certificate {
		t.Fatalf("the entry is %s (%v)", i.Entry, err)
	}
	return i
}

func TestACertificateIsFoundInTheLogWhileItLives(t *testing.T) {
	l, shared := newLone(t), storetest.NewMemory()
	r := l.mustRun(shared)
	r.c.evidence.limits.LivePerMachine = 1 << 20
	resp, err := r.issueOne(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := policy.DigestOf(resp.GetChain()[0])
	if got := r.proven(t, first); got.Index != resp.GetReceipt().GetIndex() || string(got.Entry) != string(resp.GetReceipt().GetEntry()) {
		t.Errorf("the document says %d %s, the receipt %v", got.Index, got.Entry, resp.GetReceipt())
	}
	// The log goes on: the entry stays where it is, with another proof.
	for range 300 {
		if _, err := r.issueOne(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	later := r.proven(t, first)
	if later.Index != resp.GetReceipt().GetIndex() || later.Checkpoint == string(resp.GetReceipt().GetCheckpoint()) {
		t.Errorf("after more issuances: %+v", later)
	}
	r.stop()
	r = l.mustRun(shared.Reopen())
	r.proven(t, first)
	// Issuing certificates and entries of another kind have no such document.
	for name, digest := range map[string]string{
		"unknown": string(policy.DigestOf(nil)), "issuer": string(policy.DigestOf(resp.GetChain()[1])), "no digest": "sha256:0",
		"upper case": strings.ToUpper(string(first)), "hexadecimal alone": strings.TrimPrefix(string(first), "sha256:"),
	} {
		if w := r.ask("/v1/issuance/" + digest); w.Code != http.StatusNotFound || w.Header().Get("Cache-Control") != "" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	r.stop()
	l.ahead = 2 * time.Hour
	r = l.mustRun(shared.Reopen())
	if w := r.ask("/v1/issuance/" + string(first)); w.Code != http.StatusNotFound {
		t.Errorf("after its end: %d %s", w.Code, w.Body)
	}
}

// The index alone proves nothing: who could write it sends nobody astray.
func TestAnIndexOfAnotherEntryIsNotFollowed(t *testing.T) {
	l := newLone(t)
	r := l.mustRun(storetest.NewMemory())
	resp, err := r.issueOne(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	digest := policy.DigestOf([]byte("another"))
	for _, index := range []int64{0, resp.GetReceipt().GetIndex(), resp.GetReceipt().GetIndex() + 1, 1 << 62, -1} {
		if _, err := r.c.sealed.Commit(t.Context(), store.Txn{Put: []store.Item{issuanceItem(digest, time.Now().Add(time.Hour), index)}}); err != nil {
			t.Fatal(err)
		}
		if w := r.ask("/v1/issuance/" + string(digest)); w.Code != http.StatusNotFound {
			t.Errorf("index %d: %d %s", index, w.Code, w.Body)
		}
	}
}

func TestIssuancesAreRemovedAfterTheirCertificates(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	shared := storetest.NewMemory()
	s := &issuances{now: func() time.Time { return now }, store: shared}
	var digests []policy.Digest
	for n := range 64 { // one to one and a half ends in each minute
		digest := policy.DigestOf([]byte{byte(n)})
		digests = append(digests, digest)
		item := issuanceItem(digest, now.Add(ca.MaxLife*time.Duration(n)/63), int64(n))
		if _, err := shared.Commit(t.Context(), store.Txn{Put: []store.Item{item}}); err != nil {
			t.Fatal(err)
		}
	}
	known := func() (n int) {
		for i, digest := range digests {
			index, err := s.find(t.Context(), digest)
			switch {
			case err == nil && index == int64(i):
				n++
			case !errors.Is(err, fs.ErrNotExist):
				t.Fatalf("finding %d: %d, %v", i, index, err)
			}
		}
		return n
	}
	var left []int
	for range 8 {
		before := known()
		if err := s.tidy(t.Context()); err != nil {
			t.Fatal(err)
		}
		if after := known(); after != before || count(t, shared) < after {
			t.Errorf("at %s %d were found before and %d after, %d are kept", now, before, after, count(t, shared))
		}
		left = append(left, count(t, shared))
		now = now.Add(20 * time.Minute)
	}
	if left[0] != len(digests) || left[len(left)-1] != 0 || !slices.IsSortedFunc(left, func(a, b int) int { return b - a }) {
		t.Errorf("kept are %v", left)
	}
}

func TestWhatIsNoIssuanceStopsTheTidying(t *testing.T) {
	shared := storetest.NewMemory()
	if _, err := shared.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: issuancePrefix + "x/y"}}}); err != nil {
		t.Fatal(err)
	}
	s := &issuances{now: time.Now, store: shared}
	if err := s.tidy(t.Context()); err == nil || count(t, shared) != 1 {
		t.Errorf("tidied: %v", err)
	}
}

func TestAStoreThatIsAwayIsNoAbsence(t *testing.T) {
	faulty := storetest.NewFaulty(storetest.NewMemory())
	r := newLone(t).mustRun(faulty)
	resp, err := r.issueOne(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	faulty.Crash(1, storetest.Any, storetest.Before)
	if w := r.ask("/v1/issuance/" + string(policy.DigestOf(resp.GetChain()[0]))); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func BenchmarkIssuanceDocument(b *testing.B) {
	r := newLone(b).mustRun(storetest.NewMemory())
	r.c.evidence.limits.LivePerMachine = 1 << 20
	resp, err := r.issueOne(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for range 1000 {
		if _, err := r.issueOne(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	digest := policy.DigestOf(resp.GetChain()[0])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.c.issuances.document(context.Background(), digest); err != nil {
			b.Fatal(err)
		}
	}
}
