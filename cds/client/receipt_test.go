// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// service is a CDS as its clients know it: keys, and a log.
type service struct {
	t      testing.TB
	f      *policytest.Fixture
	keys   *keys.Keys
	bundle *trust.Bundle
	signer note.Signer
	files  map[string][]byte
	tree   *translog.Tree
}

func newService(t testing.TB, f *policytest.Fixture) *service {
	t.Helper()
	seed, err := keys.NewSeed(rand.Reader)
	s := &service{t: t, f: f, files: map[string][]byte{}, tree: translog.NewTree()}
	if err == nil {
		s.keys, err = keys.Derive(seed, policytest.TrustDomain)
	}
	var root []byte
	if err == nil {
		root, err = ca.NewRoot(policytest.TrustDomain, s.keys.Root, time.Now())
	}
	if err == nil {
		s.bundle, err = trust.NewBundle(policytest.TrustDomain, root, s.keys, f.Operators)
	}
	if err == nil {
		s.signer, err = translog.NewSigner(trust.LogOrigin(policytest.TrustDomain), s.keys.Log)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *service) Get(_ context.Context, key string) ([]byte, error) {
	if data, ok := s.files[key]; ok {
		return data, nil
	}
	return nil, fs.ErrNotExist
}

func (s *service) Scan(context.Context, string, func(string, []byte) error) error { return nil }

// log appends an entry and returns the receipt for it.
func (s *service) log(e translog.Entry) *api.Receipt {
	s.t.Helper()
	raw, err := e.Marshal()
	if err != nil {
		s.t.Fatal(err)
	}
	tree, delta, err := s.tree.Append([][]byte{raw})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range delta.Put {
		s.files[f.Key] = f.Data
	}
	s.tree = tree
	r := &api.Receipt{Entry: raw, Index: tree.Size() - 1, Checkpoint: s.checkpoint()}
	proof, err := tree.ProveRecord(s.t.Context(), s, r.GetIndex())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range proof {
		r.Proof = append(r.Proof, h[:])
	}
	return r
}

func (s *service) checkpoint() []byte {
	s.t.Helper()
	signed, err := translog.Sign(translog.Checkpoint{Origin: trust.LogOrigin(policytest.TrustDomain), Size: s.tree.Size(), Root: s.tree.Root()}, s.signer)
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

func issuance(chain []*x509.Certificate) translog.Entry {
	return translog.Entry{
		Type: translog.TypeIssuance, Time: time.Now(), NotAfter: time.Now(), Certificate: policy.DigestOf(chain[0].Raw), Issuer: policy.DigestOf(chain[1].Raw),
		Evidence: policytest.Digest("e"), Manifest: policytest.Digest("m"), Role: policy.RoleNode,
	}
}

// certificates are two; who signed them is checked elsewhere.
func certificates(t testing.TB) []*x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var chain []*x509.Certificate
	for i := range 2 {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1))}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, cert)
	}
	return chain
}

// newClient is one that talks to nobody.
func newClient(t testing.TB, f *policytest.Fixture, dir string) *Client {
	t.Helper()
	c, err := New(Config{Addrs: []string{"192.0.2.1:1"}, Operators: f.Operators, Manifest: f.Signed, StateDir: dir, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func codeIs(t *testing.T, what string, err error, code string) {
	t.Helper()
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Code != code {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

func TestOnlyAReceiptThatProvesTheCertificateIsAccepted(t *testing.T) {
	f := policytest.New(t)
	s, chain, others := newService(t, f), certificates(t), certificates(t)
	for i := range 5 {
		s.log(translog.Entry{Type: translog.TypeJoin, Time: time.Now(), Evidence: policytest.Digest(fmt.Sprint(i))})
	}
	stranger := newService(t, f)
	foreign := stranger.log(issuance(chain))
	for name, tamper := range map[string]func(r *api.Receipt) *api.Receipt{
		"none":                    func(*api.Receipt) *api.Receipt { return nil },
		"empty":                   func(*api.Receipt) *api.Receipt { return &api.Receipt{} },
		"another index":           func(r *api.Receipt) *api.Receipt { r.Index--; return r },
		"an index beyond the log": func(r *api.Receipt) *api.Receipt { r.Index++; return r },
		"a negative index":        func(r *api.Receipt) *api.Receipt { r.Index = -1; return r },
		"a changed entry":         func(r *api.Receipt) *api.Receipt { r.Entry[len(r.Entry)-3] ^= 1; return r },
		"the entry of another":    func(r *api.Receipt) *api.Receipt { return s.log(issuance(others)) },
		"an entry of another kind": func(r *api.Receipt) *api.Receipt {
			return s.log(translog.Entry{Type: translog.TypeIntermediate, Time: time.Now(), NotAfter: time.Now(), Certificate: policy.DigestOf(chain[0].Raw), Issuer: policy.DigestOf(chain[1].Raw), Evidence: policytest.Digest("e")})
		},
		"a changed proof":      func(r *api.Receipt) *api.Receipt { r.Proof[0][7] ^= 1; return r },
		"a shorter proof":      func(r *api.Receipt) *api.Receipt { r.Proof = r.Proof[1:]; return r },
		"a longer proof":       func(r *api.Receipt) *api.Receipt { r.Proof = append(r.Proof, r.Proof[0]); return r },
		"half a hash":          func(r *api.Receipt) *api.Receipt { r.Proof[0] = r.Proof[0][:16]; return r },
		"no checkpoint":        func(r *api.Receipt) *api.Receipt { r.Checkpoint = nil; return r },
		"a changed checkpoint": func(r *api.Receipt) *api.Receipt { r.Checkpoint[40] ^= 1; return r },
		"an older checkpoint": func(r *api.Receipt) *api.Receipt {
			old := s.checkpoint()
			late := s.log(issuance(chain))
			late.Checkpoint = old
			return late
		},
		"another log's": func(*api.Receipt) *api.Receipt { return foreign },
	} {
		t.Run(name, func(t *testing.T) {
			s.log(translog.Entry{Type: translog.TypeJoin, Time: time.Now(), Evidence: policytest.Digest(name)}) // no two neighbours are alike
			c := newClient(t, f, "")
			err := c.memory.verifyReceipt(s.bundle, tamper(s.log(issuance(chain))), chain)
			codeIs(t, name, err, CodeReceipt)
		})
	}
	if err := newClient(t, f, "").memory.verifyReceipt(s.bundle, s.log(issuance(chain)), chain); err != nil {
		t.Errorf("the true one: %v", err)
	}
}

func TestForkedLogIsFoundOutAlsoAfterARestart(t *testing.T) {
	f := policytest.New(t)
	s := newService(t, f)
	join := func(name string) translog.Entry {
		return translog.Entry{Type: translog.TypeJoin, Time: time.Now(), Evidence: policytest.Digest(name)}
	}
	s.log(join("common"))
	before := s.tree
	seen := s.log(join("mine")).GetCheckpoint()
	s.tree = before
	fork := s.log(join("theirs")).GetCheckpoint()
	for _, dir := range []string{"", t.TempDir()} {
		c := newClient(t, f, dir)
		if _, err := c.memory.remember(s.bundle, seen); err != nil {
			t.Fatal(err)
		}
		if dir != "" {
			c = newClient(t, f, dir)
		}
		_, err := c.memory.remember(s.bundle, fork)
		codeIs(t, "another root for the same size", err, CodeLogForked)
		if string(c.memory.checkpoint()) != string(seen) {
			t.Error("the proof of the fork was given up")
		}
	}
}
