// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/recovery"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// lone is a CDS without a network: its core over a store that can crash.
type lone struct {
	t      testing.TB
	f      *policytest.Fixture
	ahead  time.Duration // of its clock
	log    *strings.Builder
	logMu  sync.Mutex
	sealer bool
	tee    attest.Attester // made once: its certificate takes longer than all the rest
}

func newLone(t testing.TB) *lone {
	l := &lone{t: t, log: &strings.Builder{}, sealer: true}
	l.f = policytest.New(t, policytest.With(func(m *policy.Manifest) {
		tee := simtest.New(t, "cds", func(o *sim.Options) { o.HostData = m.Operators.Digest() })
		simtest.Accept(tee)(m)
		l.tee = tsm.New(tee)
	}))
	return l
}

func (l *lone) Write(p []byte) (int, error) {
	l.logMu.Lock()
	defer l.logMu.Unlock()
	return l.log.Write(p)
}

func (l *lone) forgetLog() {
	l.logMu.Lock()
	defer l.logMu.Unlock()
	l.log.Reset()
}

// unsealing hides that a TEE can seal.
type unsealing struct{ attest.Attester }

// running is one life of the process.
type running struct {
	*Server
	c    *core
	stop func()
}

// run starts the CDS and returns once it can issue, or ctx ends.
func (l *lone) run(ctx context.Context, s store.Store) (*running, error) {
	l.t.Helper()
	born, ahead := time.Now(), l.ahead
	att := l.tee
	if !l.sealer {
		att = unsealing{att}
	}
	srv, err := New(Config{
		Attester: att, Manifest: l.f.Signed, Operators: l.f.Operators, Store: s, Name: "one", Registry: prometheus.NewRegistry(),
		Wall: func() time.Time { return time.Now().Add(ahead) }, Mono: func() time.Duration { return time.Since(born) + ahead },
		Log: slog.New(slog.NewTextHandler(l, nil)),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- srv.live(life) }()
	stop := sync.OnceFunc(func() {
		cancel()
		<-done
	})
	l.t.Cleanup(stop)
	for srv.Ready() != nil {
		select {
		case <-ctx.Done():
			stop()
			return nil, ctx.Err()
		case err := <-done:
			done <- err
			return nil, err
		case <-time.After(time.Millisecond):
		}
	}
	return &running{Server: srv, c: srv.core.Load(), stop: stop}, nil
}

// mustRun starts the CDS on a store that does not fail.
func (l *lone) mustRun(s store.Store) *running {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	r, err := l.run(ctx, s)
	if err != nil {
		l.t.Fatalf("the CDS does not come up: %v\n%s", err, l.log)
	}
	return r
}

// issueOne issues a certificate to whoever: appraisal is tested elsewhere.
func (r *running) issueOne(ctx context.Context) (*api.EnrolResponse, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return r.issueFor(ctx, key)
}

// issueFor issues a certificate for a key.
func (r *running) issueFor(ctx context.Context, key *ecdsa.PrivateKey) (*api.EnrolResponse, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	transcript := attest.Transcript{Purpose: api.PurposeNode, Nonce: []byte(rand.Text())}
	ev, err := r.cfg.Attester.Attest(ctx, transcript.ReportData())
	if err != nil {
		return nil, err
	}
	doc, err := api.NewEvidenceDocument(ev, transcript)
	if err != nil {
		return nil, err
	}
	var resp *api.EnrolResponse
	err = r.c.policies.underPolicy(ctx, func(now *inForce) error {
		verdict := r.c.judge(ev, transcript.ReportData(), policy.RoleNode, now.manifest)
		if err := verdict.Err(); err != nil {
			return err
		}
		f := &finding{claims: claimsOf(verdict, ev.Hash()), evidence: ev, doc: doc}
		f.claims.Role = policy.RoleNode
		resp, err = r.c.issue(ctx, now, &request{csr: csr}, f, func() {})
		return err
	})
	return resp, err
}

// log reads all entries.
func (r *running) entries(t testing.TB) (all []*translog.Entry) {
	t.Helper()
	view := r.c.ledger.View()
	for n := int64(0); n*256 < view.Head.Size; n++ {
		path := fmt.Sprintf("tile/entries/%03d", n)
		if rest := view.Head.Size - n*256; rest < 256 {
			path += fmt.Sprintf(".p/%d", rest)
		}
		raw, err := view.Tree.File(t.Context(), r.c.ledger.Storage(), path)
		if err != nil {
			t.Fatal(err)
		}
		records, err := translog.ParseBundle(raw)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range records {
			e, err := translog.ParseEntry(record)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
	}
	return all
}

// whole requires that what the head names is there, and was logged exactly once.
func (r *running) whole(t testing.TB) {
	t.Helper()
	head, entries := r.c.ledger.View().Head, r.entries(t)
	logged := map[string]int{}
	for _, e := range entries {
		logged[string(e.Type)+" "+string(e.Digest)+string(e.Certificate)+string(e.Evidence)]++
	}
	for what, n := range logged {
		if n != 1 {
			t.Errorf("%s is logged %d times", what, n)
		}
	}
	for kind, digest := range map[translog.Type]policy.Digest{
		translog.TypeManifest: head.Manifest.Digest, translog.TypePending: head.Pending.Digest, translog.TypeDenylist: head.DenyList.Digest, translog.TypeRecovery: head.Recovery.Document,
	} {
		if digest != "" && logged[string(kind)+" "+string(digest)] == 0 {
			t.Errorf("the head names %s %s, which is not in the log", kind, digest)
		}
	}
	if entries[0].Type != translog.TypeBundle || entries[0].Digest != r.c.bundle.Digest() {
		t.Errorf("the first entry is %+v, want the bundle", entries[0])
	}
	if head.Recovery.Document != "" {
		if raw, err := r.c.recoveryDocument(t.Context()); err != nil {
			t.Errorf("the recovery document: %v", err)
		} else if _, err := recovery.Parse(raw); err != nil {
			t.Error(err)
		}
	}
	for _, e := range entries {
		if e.Type != translog.TypeIssuance {
			continue
		}
		if _, err := r.c.evidence.document(t.Context(), strings.TrimPrefix(string(e.Evidence), "sha256:")); err != nil {
			t.Errorf("evidence of an issuance: %v", err)
		}
	}
}
