// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/handover"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// forger is the worst case: somebody who got hold of a CDS's seed and rewrites
// its documents. All signatures of the CDS are good.
type forger struct {
	t    testing.TB
	w    *world
	dir  string // a mirror
	keys *keys.Keys
	root *ca.Root
}

// seed takes the seed from the store, as the CDS itself does after a restart.
func (w *world) seed() keys.Seed {
	w.t.Helper()
	sealing, err := w.Attester("cds").(attest.Sealer).SealingKey(w.t.Context(), handover.SealingPurpose)
	if err != nil {
		w.t.Fatal(err)
	}
	var seed keys.Seed
	found := errors.New("the store has no sealed seed")
	err = w.Store.Scan(w.t.Context(), "boot/seed/", func(_ string, v store.Value) error {
		seed, found = handover.OpenSeed(sealing, w.Manifest.TrustDomain, w.Operators.Digest(), v.Data)
		return found
	})
	if err := errors.Join(err, found); err != nil {
		w.t.Fatal(err)
	}
	return seed
}

func (w *world) forger(dir string) *forger {
	w.t.Helper()
	f := &forger{t: w.t, w: w, dir: dir}
	f.keys = f.must(keys.Derive(w.seed(), w.Manifest.TrustDomain)).(*keys.Keys)
	f.root = f.must(ca.OpenRoot(f.bundle().Root, f.keys.Root)).(*ca.Root)
	return f
}

func (f *forger) must(v any, err error) any {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *forger) bundle() *trust.Bundle {
	e := f.must(trust.ParseEndorsement(read(f.t, filepath.Join(f.dir, "v1/endorsement")))).(*trust.Endorsement)
	return &e.Bundle
}

// endorse has a machine endorse the bundle, after an edit.
func (f *forger) endorse(by attest.Attester, edit func(*trust.Bundle)) {
	f.t.Helper()
	b := f.bundle()
	edit(b)
	e := f.must(trust.Endorse(f.t.Context(), by, b, time.Now())).(*trust.Endorsement)
	write(f.t, filepath.Join(f.dir, "v1/endorsement"), f.must(e.Encode()).([]byte))
}

type entries = []translog.Entry

// relog replaces the log by one of the edited entries, signed with its key.
func (f *forger) relog(edit func(entries) entries) {
	f.t.Helper()
	d := f.must(openDocuments(f.dir, "")).(*documents)
	b := f.must(parseEndorsement(read(f.t, filepath.Join(f.dir, "v1/endorsement")))).(*bundle)
	a := &audit{documents: d, bundle: b}
	f.must(a.readLog())
	var before entries
	for _, e := range a.log.entries {
		before = append(before, *f.must(translog.ParseEntry(e.record)).(*translog.Entry))
	}
	l := &transparencyLog{}
	for _, e := range edit(before) {
		if err := l.append(f.must(e.Marshal()).([]byte)); err != nil {
			f.t.Fatal(err)
		}
	}
	f.write(l)
}

func (f *forger) write(l *transparencyLog) {
	f.t.Helper()
	if err := os.RemoveAll(filepath.Join(f.dir, "log/tile")); err != nil {
		f.t.Fatal(err)
	}
	size := int64(len(l.entries))
	for _, tile := range tlog.NewTiles(tileHeight, 0, size) {
		write(f.t, filepath.Join(f.dir, "log", tilePath(tile)), f.must(tlog.ReadTileData(tile, l)).([]byte))
		if tile.L > 0 {
			continue
		}
		var bundle []byte
		for _, e := range l.entries[tile.N*tileWidth:][:tile.W] {
			bundle = append(append(bundle, byte(len(e.record)>>8), byte(len(e.record))), e.record...)
		}
		tile.L = -1
		write(f.t, filepath.Join(f.dir, "log", tilePath(tile)), bundle)
	}
	origin := trust.LogOrigin(f.w.Manifest.TrustDomain)
	signer, err := translog.NewSigner(origin, f.keys.Log)
	if err != nil {
		f.t.Fatal(err)
	}
	root := f.must(l.root(size)).(tlog.Hash)
	write(f.t, filepath.Join(f.dir, "log/checkpoint"), f.must(translog.Sign(translog.Checkpoint{Origin: origin, Size: size, Root: root}, signer)).([]byte))
}

// forgery describes a certificate that the CDS would not have issued.
type forgery struct {
	like     *client.Credential // what it is made after
	machine  attest.Attester    // gives the evidence
	purpose  string             // of the evidence
	vouching attest.Attester    // gives the evidence for the issuing key
	claims   func(*ratls.Claims)
	entry    func(*translog.Entry)
	otherKey bool                     // the evidence is for another key than the certificate's
	vouched  func(*attest.Transcript) // what that evidence is for
	unlogged bool                     // the issuing key is not logged
}

// certify issues and logs it, with all documents that belong to it.
func (f *forger) certify(g forgery) {
	f.t.Helper()
	key := f.must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).(*ecdsa.PrivateKey)
	spki := f.must(x509.MarshalPKIXPublicKey(key.Public())).([]byte)
	if g.otherKey {
		spki = append(spki, 0)
	}
	claims := g.like.Peer.Claims
	claims.EvidenceHash = f.give(g.machine, api.MachineTranscript(g.purpose, make([]byte, 32), make([]byte, 32), spki))
	if g.claims != nil {
		g.claims(&claims)
	}
	issuer, chain := f.issue(claims, g.like.Peer.Addrs, key)
	vouched := api.IntermediateTranscript(issuer.RawSubjectPublicKeyInfo)
	if g.vouched != nil {
		g.vouched(&vouched)
	}
	evidence := f.give(g.vouching, vouched)
	leaf := f.must(x509.ParseCertificate(chain[0])).(*x509.Certificate)
	f.relog(func(e entries) entries {
		now := time.Now().Truncate(time.Second)
		if !g.unlogged {
			e = append(e, translog.Entry{
				Type: translog.TypeIntermediate, Time: now, Certificate: policy.DigestOf(chain[1]), Issuer: policy.DigestOf(f.root.Certificate().Raw),
				Evidence: policy.DigestFrom(evidence), NotAfter: issuer.NotAfter,
			})
		}
		issued := translog.Entry{
			Type: translog.TypeIssuance, Time: now, Certificate: policy.DigestOf(chain[0]), Issuer: policy.DigestOf(chain[1]),
			Evidence: policy.DigestFrom(claims.EvidenceHash), Manifest: claims.ManifestDigest, Role: claims.Role, NotAfter: leaf.NotAfter,
		}
		if g.entry != nil {
			g.entry(&issued)
		}
		return append(e, issued)
	})
	write(f.t, filepath.Join(f.dir, fileName("v1/certificate/"+string(policy.DigestOf(chain[1])))), chain[1])
	writeChain(f.t, filepath.Join(f.dir, "certificate.pem"), chain)
}

// issue makes a certificate under a new issuing key.
func (f *forger) issue(claims ratls.Claims, addrs []netip.Addr, key *ecdsa.PrivateKey) (*x509.Certificate, [][]byte) {
	f.t.Helper()
	issuer := f.must(ca.NewIssuer(f.root, 0, time.Now)).(*ca.Issuer)
	next := f.must(f.root.NewIntermediate("forged", time.Now())).(*ca.Intermediate)
	if err := issuer.Use(next); err != nil {
		f.t.Fatal(err)
	}
	id, err := ratls.NewID(f.w.Manifest.TrustDomain, &claims)
	if err != nil {
		f.t.Fatal(err)
	}
	from, to := issuer.Validity(time.Time{})
	tmpl := f.must(ratls.Template(claims.Role, id, claims, addrs, from, to)).(*x509.Certificate)
	_, chain, err := issuer.Issue(tmpl, key.Public())
	if err != nil {
		f.t.Fatal(err)
	}
	return next.Certificate(), chain
}

// give keeps evidence over the transcript where auditors look for it.
func (f *forger) give(by attest.Attester, t attest.Transcript) [32]byte {
	f.t.Helper()
	ev := f.must(by.Attest(f.t.Context(), t.ReportData())).(*attest.Evidence)
	doc := f.must(api.NewEvidenceDocument(ev, t)).(*api.EvidenceDocument)
	hash := ev.Hash()
	write(f.t, filepath.Join(f.dir, "v1/evidence", hex.EncodeToString(hash[:])), f.must(doc.Marshal()).([]byte))
	return hash
}

func writeChain(t testing.TB, path string, chain [][]byte) {
	t.Helper()
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	write(t, path, text)
}
