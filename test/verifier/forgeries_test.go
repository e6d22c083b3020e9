// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds/api"
	signedtime "github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// A CDS whose seed was stolen can sign anything. What it cannot do is make a
// certificate that the log, the evidence and the manifest agree with.
func TestForgeriesOfWhoeverHasTheSeed(t *testing.T) {
	w := newWorld(t)
	node := w.Enrol()
	pod := w.pod(node, nil)
	good := t.TempDir()
	w.mirror(good, pod)
	own, stranger := w.Attester("node"), w.Attester("stranger")
	strangerChip := simtest.Options("stranger").ChipID
	unbound := w.Attester("cds", func(o *sim.Options) { o.HostData[0] ^= 1 })
	honest := forgery{like: node, machine: own, purpose: api.PurposeNode, vouching: w.Attester("cds")}
	with := func(edit func(*forgery)) func(*forger) {
		return func(f *forger) { g := honest; edit(&g); f.certify(g) }
	}
	entry := func(edit func(*translog.Entry)) func(*forger) {
		return with(func(g *forgery) { g.entry = edit })
	}
	claim := func(edit func(*ratls.Claims)) func(*forger) {
		return with(func(g *forgery) { g.claims = edit })
	}
	relog := func(edit func(entries) entries) func(*forger) {
		return func(f *forger) { f.relog(edit) }
	}
	const bundleAt, manifestAt, nodeAt = 0, 1, 3
	for name, tt := range map[string]struct {
		step  string // empty: it is accepted
		forge func(*forger)
	}{
		"nothing wrong": {"", with(func(*forgery) {})},
		"nothing wrong, in a long log": {"", func(f *forger) {
			f.certify(honest)
			f.relog(func(e entries) entries { return padded(e, 700) })
		}},

		"keys endorsed by a CDS of other operators": {"bundle-evidence", func(f *forger) { f.endorse(unbound, func(*trust.Bundle) {}) }},
		"keys endorsed by a machine not listed":     {"bundle-evidence", func(f *forger) { f.endorse(stranger, func(*trust.Bundle) {}) }},
		"keys that the log does not begin with": {"log-bundle", func(f *forger) {
			f.endorse(w.Attester("cds"), func(b *trust.Bundle) { b.Beacon, b.Countersign = b.Countersign, b.Beacon })
		}},

		"entries that were not signed": {"log", func(f *forger) {
			signed := read(f.t, filepath.Join(f.dir, "log/checkpoint"))
			f.relog(func(e entries) entries { e[nodeAt].Evidence = policytest.Digest("x"); return e })
			write(f.t, filepath.Join(f.dir, "log/checkpoint"), signed)
		}},
		"a certificate that is not logged":    {"log-issuance", relog(func(e entries) entries { return e[:len(e)-1] })},
		"a certificate logged twice":          {"log-issuance", relog(func(e entries) entries { return append(e, e[len(e)-1]) })},
		"a log that begins with another CDS":  {"log-bundle", relog(func(e entries) entries { e[bundleAt].Digest = policytest.Digest("x"); return e })},
		"a log without its first entry":       {"log-bundle", relog(func(e entries) entries { return e[1:] })},
		"a manifest that is kept back":        {"log-policy", relog(func(e entries) entries { return append(e, next(e[manifestAt])) })},
		"a deny list that is kept back":       {"log-policy", relog(func(e entries) entries { return append(e, denyEntry()) })},
		"a fork of manifests":                 {"log-policy", relog(func(e entries) entries { return slices.Insert(e, 2, fork(e[manifestAt])) })},
		"a node that is not logged":           {"evidence", relog(func(e entries) entries { return slices.Delete(e, nodeAt, nodeAt+1) })},
		"a node that is logged afterwards":    {"evidence", relog(func(e entries) entries { return append(slices.Delete(slices.Clone(e), nodeAt, nodeAt+1), e[nodeAt]) })},
		"a log entry of another role":         {"log-issuance", entry(func(e *translog.Entry) { e.Role = policy.RoleCDS })},
		"a log entry of other evidence":       {"log-issuance", entry(func(e *translog.Entry) { e.Evidence = policytest.Digest("x") })},
		"a log entry under another manifest":  {"log-issuance", entry(func(e *translog.Entry) { e.Manifest = policytest.Digest("x") })},
		"a log entry that ends elsewhere":     {"log-issuance", entry(func(e *translog.Entry) { e.NotAfter = e.NotAfter.Add(time.Hour) })},
		"a log entry of another time":         {"log-issuance", entry(func(e *translog.Entry) { e.Time = e.Time.Add(-time.Hour) })},
		"a log entry with another issuer":     {"log-issuance", entry(func(e *translog.Entry) { e.Issuer = policy.DigestOf(node.TLS.Certificate[1]) })},
		"an issuing key that is not logged":   {"log-issuer", with(func(g *forgery) { g.unlogged = true })},
		"an issuing key of other operators":   {"log-issuer", with(func(g *forgery) { g.vouching = unbound })},
		"an issuing key of another machine":   {"log-issuer", with(func(g *forgery) { g.vouching = stranger })},
		"an issuing key without its evidence": {"log-issuer", with(func(g *forgery) { g.vouched = func(t *attest.Transcript) { t.SPKIHash = make([]byte, 32) } })},
		"an issuing key by other evidence":    {"log-issuer", with(func(g *forgery) { g.vouched = func(t *attest.Transcript) { t.Purpose = api.PurposeCDS } })},

		"evidence for another key":             {"evidence", with(func(g *forgery) { g.otherKey = true })},
		"evidence without the pod's statement": {"evidence", with(func(g *forgery) { g.like, g.purpose = pod, api.PurposeGuest })},
		"evidence for another role":            {"evidence", with(func(g *forgery) { g.purpose = api.PurposeCDS })},
		"evidence of a machine not listed": {"accepted-then", with(func(g *forgery) {
			g.machine = stranger
			g.claims = func(c *ratls.Claims) { c.Machine = hex.EncodeToString(strangerChip[:]) }
		})},
		"another measurement":        {"claims", claim(func(c *ratls.Claims) { c.Measurement = policytest.Hex(0xab, 48) })},
		"another machine":            {"claims", claim(func(c *ratls.Claims) { c.Machine = policytest.Hex(1, 64) })},
		"a newer patch level":        {"claims", claim(func(c *ratls.Claims) { c.TCB.Microcode++ })},
		"a machine called real":      {"claims", claim(func(c *ratls.Claims) { c.Simulated = false })},
		"a manifest that is unknown": {"leaf-manifest", claim(func(c *ratls.Claims) { c.ManifestDigest = policytest.Digest("x") })},
		"a later version":            {"leaf-manifest", claim(func(c *ratls.Claims) { c.ManifestVersion = 9 })},

		"a countersignature of another key": {"countersigned", func(f *forger) { f.countersign(func(*trust.Subject, *uint64) {}, f.keys.Beacon) }},
		"a countersignature of another":     {"countersigned", func(f *forger) { f.countersign(func(s *trust.Subject, _ *uint64) { s.Version++ }, f.keys.Countersign) }},
		"a countersigned lie about the log": {"countersigned", func(f *forger) { f.countersign(func(_ *trust.Subject, i *uint64) { *i++ }, f.keys.Countersign) }},
		"a beacon of another key": {"beacon", func(f *forger) {
			b := f.must(signedtime.Sign(f.keys.Countersign, signedtime.Beacon{TrustDomain: w.Manifest.TrustDomain, Time: time.Now(), Period: time.Second, Clock: "host"})).([]byte)
			write(t, filepath.Join(f.dir, "v1/beacon"), b)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := w.forger(copyOf(t, good))
			f.t = t
			tt.forge(f)
			if tt.step != "" {
				wantFail(t, f.dir, tt.step)
			} else if out, code := judge(t, f.dir); code != exitGood {
				t.Errorf("exit code %d, want %d\n%s", code, exitGood, out)
			}
		})
	}
}

func next(e translog.Entry) translog.Entry {
	e.Digest, e.Version, e.Previous = policytest.Digest("next"), e.Version+1, e.Digest
	return e
}

func fork(e translog.Entry) translog.Entry {
	e.Version, e.Previous = e.Version+1, policytest.Digest("fork")
	return e
}

func denyEntry() translog.Entry {
	return translog.Entry{Type: translog.TypeDenylist, Time: time.Now(), Digest: policytest.Digest("denylist"), Version: 1}
}

// padded has so many entries more that tiles are full and have tiles above.
func padded(entries []translog.Entry, n int) []translog.Entry {
	for range n {
		entries = append(entries, translog.Entry{Type: translog.TypeJoin, Time: time.Now(), Evidence: policytest.Digest("join")})
	}
	return entries
}

// countersign puts another countersignature in the manifest's place.
func (f *forger) countersign(edit func(*trust.Subject, *uint64), key ed25519.PrivateKey) {
	f.t.Helper()
	subject, index := trust.ManifestSubject(f.w.Signed), uint64(1)
	edit(&subject, &index)
	path := filepath.Join(f.dir, fileName("v1/countersignature/"+string(f.w.Digest)))
	write(f.t, path, f.must(trust.Countersign(key, subject, index, time.Now())).([]byte))
}
