// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// rushing asks as a client does: through the gate, and when it is turned away
// again after the time it was told, here a thousand times faster.
func (r *running) rushing(ctx context.Context, csr *x509.CertificateRequest, claims *finding, turnedAway *atomic.Int64) (*api.EnrolResponse, error) {
	for {
		err := r.gate.enter(ctx)
		var busy *refusal
		if errors.As(err, &busy) && busy.code == codeBusy && busy.retryAfter >= retryAtLeast {
			turnedAway.Add(1)
			if err := pauseFor(ctx, busy.retryAfter/1000); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		leave := oneTime(r.gate.leave)
		defer leave()
		var resp *api.EnrolResponse
		err = r.c.policies.underPolicy(ctx, func(now *inForce) error {
			f := *claims
			resp, err = r.c.issue(ctx, now, &request{csr: csr}, &f, leave)
			return err
		})
		return resp, err
	}
}

// Two thousand come at once. All of them get a certificate in the end, and each
// one only.
func TestRushIsServedInTurnAndNothingIsIssuedTwice(t *testing.T) {
	const n = 2000
	l := newLone(t)
	s := storetest.NewFaulty(storetest.NewMemory())
	r := l.mustRun(s)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	ev, err := l.tee.Attest(t.Context(), attest.Transcript{Purpose: api.PurposeNode}.ReportData())
	if err != nil {
		t.Fatal(err)
	}
	f := &finding{claims: claimsOf(r.c.judge(ev, attest.Transcript{Purpose: api.PurposeNode}.ReportData(), policy.RoleNode, l.f.Signed), ev.Hash())}
	f.claims.Role = policy.RoleNode
	for range cap(r.gate.working) { // nobody is served until all have come
		if err := r.gate.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var turnedAway atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	serials := map[string]bool{}
	for range n {
		wg.Go(func() {
			resp, err := r.rushing(t.Context(), csr, f, &turnedAway)
			if err != nil {
				t.Errorf("not served: %v", err)
				return
			}
			leaf, err := x509.ParseCertificate(resp.GetChain()[0])
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			serials[leaf.SerialNumber.String()] = true
		})
	}
	for turnedAway.Load() < n-maxWaiting {
		time.Sleep(time.Millisecond)
	}
	if waiting := r.gate.waiting.Load(); waiting > maxWaiting {
		t.Errorf("%d wait, at most %d may", waiting, maxWaiting)
	}
	for range cap(r.gate.working) {
		r.gate.leave()
	}
	wg.Wait()
	if len(serials) != n {
		t.Errorf("%d certificates for %d who asked", len(serials), n)
	}
	logged := 0
	for _, e := range r.entries(t) {
		if e.Type == translog.TypeIssuance {
			logged++
		}
	}
	if logged != n {
		t.Errorf("%d issuances are logged, want %d", logged, n)
	}
	if len(r.gate.working) != 0 || r.gate.waiting.Load() != 0 {
		t.Errorf("%d still work and %d wait", len(r.gate.working), r.gate.waiting.Load())
	}
}

func TestWhatIsRememberedOfEvidenceIsBounded(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	s := newEvidenceStore(func() time.Time { return now }, storetest.NewMemory(), Limits{LivePerMachine: 3})
	for i := range maxRemembered + 10 {
		s.remember([32]byte{byte(i), byte(i >> 8)}, nil, &api.EvidenceDocument{})
	}
	if len(s.all) > maxRemembered {
		t.Errorf("%d pieces of evidence are in memory, at most %d may be", len(s.all), maxRemembered)
	}
	for _, machine := range []string{"a", "b"} {
		if _, err := s.claim(machine, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(30 * time.Minute)
	if _, err := s.claim("b", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	now = now.Add(45 * time.Minute)
	if err := s.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, gone := s.live["a"]; gone || len(s.live) != 1 {
		t.Errorf("counted are %v, want b alone", s.live)
	}
	if _, err := s.document(t.Context(), "../head"); codeOf(err) != codeEvidenceUnknown {
		t.Errorf("a name that is no hash: %v", err)
	}
}
