// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// storage is a translog.Storage in memory.
type storage map[string][]byte

func (s storage) Get(_ context.Context, key string) ([]byte, error) {
	if data, ok := s[key]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("%s: %w", key, fs.ErrNotExist)
}

func (s storage) Scan(_ context.Context, prefix string, fn func(string, []byte) error) error {
	for _, key := range slices.Sorted(maps.Keys(s)) {
		if strings.HasPrefix(key, prefix) {
			if err := fn(key, s[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// certificate is the one issued with entry index: what the log is asked about.
func certificate(index int64) *x509.Certificate {
	issued := issuedAt(index)
	return &x509.Certificate{Raw: fmt.Appendf(nil, "certificate %d", index), NotBefore: issued.Add(-time.Minute), NotAfter: issued.Add(30 * time.Minute)}
}

// issuedAt is when: a hundred a second.
func issuedAt(index int64) time.Time { return at(1).Add(time.Duration(index/100) * time.Second) }

// largeLog is the log of a CDS that issued very many certificates.
func largeLog(t testing.TB, size int64) *source {
	t.Helper()
	stored, tree := storage{}, translog.NewTree()
	var batch [][]byte
	appendBatch := func() {
		next, delta, err := tree.Append(batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, prefix := range delta.DeletePrefix {
			maps.DeleteFunc(stored, func(key string, _ []byte) bool { return strings.HasPrefix(key, prefix) })
		}
		for _, f := range delta.Put {
			stored[f.Key] = f.Data
		}
		tree, batch = next, nil
	}
	for i := range size {
		e := translog.Entry{
			Type: translog.TypeIssuance, Time: issuedAt(i), Certificate: policy.DigestOf(certificate(i).Raw), Issuer: sum("ica"), Evidence: sum("evidence"),
			Manifest: sum("m1"), Role: policy.RoleNode, NotAfter: certificate(i).NotAfter,
		}
		if first := goodLog(); i < 3 {
			e = first[i]
		}
		raw, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if batch = append(batch, raw); len(batch) == 200 {
			appendBatch()
		}
	}
	appendBatch()
	return serve(t, tree, stored)
}

// serve signs the tree.
func serve(t testing.TB, tree *translog.Tree, stored storage) *source {
	t.Helper()
	const origin = "c8s.test/c8s/log"
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	signer, err := translog.NewSigner(origin, key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := translog.Sign(translog.Checkpoint{Origin: origin, Size: tree.Size(), Root: tree.Root()}, signer)
	if err != nil {
		t.Fatal(err)
	}
	s := &source{key: translog.VerifierKey(origin, key.Public().(ed25519.PublicKey)), fetch: func(ctx context.Context, path string) ([]byte, error) {
		if path == "checkpoint" {
			return signed, nil
		}
		return tree.File(ctx, stored, path)
	}}
	if err := s.trusted(); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestALargeLogIsVerifiedAndSearched(t *testing.T) {
	const size = 70_000
	s := largeLog(t, size)
	var said strings.Builder
	a, err := s.audit(t.Context(), &said)
	if err != nil {
		t.Fatal(err)
	}
	if a.Breaches != 0 || a.Entries != size || a.Types[translog.TypeIssuance] != size-3 || !strings.Contains(said.String(), "entry 65536 of 70000") {
		t.Errorf("audited %+v, and said %q", a, said.String())
	}
	latest, _, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []int64{3, 255, 256, 12_345, 65_536, size - 1} {
		p, err := s.proofOf(t.Context(), certificate(index), io.Discard)
		if err != nil {
			t.Fatalf("%d: %v", index, err)
		}
		if p.Index != index {
			t.Errorf("certificate %d is found at %d", index, p.Index)
		}
		if _, err := p.check(s.verifier, []*x509.Certificate{certificate(index)}, nil); err != nil {
			t.Errorf("the proof of %d: %v", index, err)
		}
	}
	if first, err := s.since(t.Context(), *latest, issuedAt(10_000)); err != nil || first != 10_000 {
		t.Errorf("the first entry of its second is %d, %v; want 10000", first, err)
	}
	if _, _, err := s.find(t.Context(), *latest, &x509.Certificate{Raw: []byte("x"), NotBefore: issuedAt(size / 2)}, io.Discard); !errors.Is(err, translog.ErrNotFound) {
		t.Errorf("a certificate of nobody: %v", err)
	}
}

// The search by dates only saves time: an entry that lies about its time is
// found too.
func TestACertificateIsFoundWhereItsDatesDoNotSay(t *testing.T) {
	s := largeLog(t, 1000)
	latest, _, err := s.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cert := certificate(100)
	cert.NotBefore = issuedAt(900)
	if index, _, err := s.find(t.Context(), *latest, cert, io.Discard); err != nil || index != 100 {
		t.Errorf("found at %d, %v; want 100", index, err)
	}
}

func BenchmarkVerify(b *testing.B) {
	const size = 1 << 16
	s := largeLog(b, size)
	for b.Loop() {
		if _, err := s.audit(b.Context(), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/size, "ns/entry")
}

func BenchmarkProve(b *testing.B) {
	s := largeLog(b, 1<<16)
	for b.Loop() {
		if _, err := s.proofOf(b.Context(), certificate(40_000), io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
