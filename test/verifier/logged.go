// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// checkLogBundle: the first entry of every log names the keys of its CDS.
func (a *audit) checkLogBundle() (string, error) {
	if err := same("type of the first entry", "bundle", a.log.entries[0].Type); err != nil {
		return "", err
	}
	last := a.log.last("bundle")
	return fmt.Sprintf("entry %d", last.index), same("digest", digestOf(a.bundle.text), last.Digest)
}

// checkLogPolicy: manifests and deny lists follow each other without a gap,
// and the last of each is what the CDS serves as being in force.
func (a *audit) checkLogPolicy() (string, error) {
	count := map[string]int{}
	for _, e := range a.log.entries {
		if e.Type != "manifest" && e.Type != "denylist" {
			continue
		}
		if before := a.log.lastBefore(e.Type, e.index); before != nil {
			if err := cmp.Or(same("previous", before.Digest, e.Previous), must(e.Version > before.Version, "version", fmt.Sprintf("more than %d", before.Version), e.Version)); err != nil {
				return "", fmt.Errorf("entry %d, a %s: %w", e.index, e.Type, err)
			}
		}
		count[e.Type]++
	}
	served := ""
	if a.deny != nil {
		served = a.deny.digest
	}
	return fmt.Sprintf("%d manifests, %d deny lists", count["manifest"], count["denylist"]), cmp.Or(
		a.checkServed("manifest", a.inForce().digest), a.checkServed("denylist", served))
}

func (a *audit) checkServed(kind, served string) error {
	logged := ""
	if e := a.log.last(kind); e != nil {
		logged = e.Digest
	}
	if err := same(kind+" in force", logged, served); err != nil {
		return fmt.Errorf("%w (one that was published this very moment? then try again)", err)
	}
	return nil
}

// checkWitnesses counts the manifest's witnesses that cosigned a beginning of
// this log, which should have the certificate in it.
func (a *audit) checkWitnesses() (string, error) {
	quorum := a.inForce().WitnessQuorum
	if quorum == 0 {
		return "the manifest asks for none", nil
	}
	signed, err := a.documents.get("log/checkpoint.cosigned")
	if err != nil {
		return "", err
	}
	size, root, err := a.openCheckpoint(signed)
	if err != nil {
		return "", err
	}
	if err := must(size <= int64(len(a.log.entries)), "size of the cosigned checkpoint", fmt.Sprintf("at most %d", len(a.log.entries)), size); err != nil {
		return "", err
	}
	actual, err := a.log.root(size)
	names := map[string]bool{}
	for _, w := range a.inForce().Witnesses {
		if v, err := newWitness(w.Key); err == nil {
			if _, err := note.Open(signed, note.VerifierList(v)); err == nil {
				names[w.Key] = true
			}
		}
	}
	if err := cmp.Or(err, same("root of the cosigned checkpoint", actual, root),
		must(len(names) >= quorum, "cosignatures", fmt.Sprint(quorum), len(names))); err != nil {
		return "", err
	}
	found := fmt.Sprintf("%d witnesses cosigned %d entries", len(names), size)
	if a.issuance.index >= size {
		return "", undecided(fmt.Sprintf("%s, and the certificate is entry %d: ask again after the next cosignatures", found, a.issuance.index))
	}
	return found, nil
}

// witness verifies C2SP cosignature/v1: a note.Verifier.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newWitness(text string) (*witness, error) {
	name, rest, _ := strings.Cut(text, "+")
	_, encoded, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) != 1+ed25519.PublicKeySize || key[0] != 4 {
		return nil, errors.New("not a key of type 4")
	}
	sum := sha256.Sum256(append([]byte(name+"\n"), key...))
	return &witness{name, binary.BigEndian.Uint32(sum[:]), key[1:]}, nil
}

func (w *witness) Name() string    { return w.name }
func (w *witness) KeyHash() uint32 { return w.hash }

func (w *witness) Verify(text, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(w.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), text), sig[8:])
}

// checkLogIssuer: the replica's issuing key was in the log before it signed,
// and a measured CDS committed to it.
func (a *audit) checkLogIssuer() (string, error) {
	digest := digestOf(a.issuer.Raw)
	e, err := a.log.certified("intermediate", digest)
	if err != nil {
		return "", err
	}
	served, err := a.documents.get("v1/certificate/" + digest)
	if err := cmp.Or(err, same("certificate served", digest, digestOf(served)),
		same("its issuer", digestOf(a.root.Raw), e.Issuer), same("its end", stamp(a.issuer.NotAfter), e.NotAfter)); err != nil {
		return "", err
	}
	doc, err := a.readEvidence(e.Evidence)
	if err != nil {
		return "", err
	}
	spki := sha256.Sum256(a.issuer.RawSubjectPublicKeyInfo)
	m, err := a.manifestAt(e)
	if err != nil {
		return "", err
	}
	if err := cmp.Or(same("purpose", "cds-intermediate", doc.Transcript.Purpose), same("key", hexOf(spki[:]), hexOf(doc.Transcript.SPKIHash))); err != nil {
		return "", err
	}
	found, err := a.checkCDS(doc.evidence, doc.Transcript, m, e.at)
	return fmt.Sprintf("entry %d; %s", e.index, found), err
}

// manifestAt returns the manifest that was in force when the entry was made.
func (a *audit) manifestAt(e *entry) (*manifest, error) {
	then := a.log.lastBefore("manifest", e.index)
	if then == nil {
		return nil, &mismatch{"manifest", fmt.Sprintf("one before entry %d", e.index), "none"}
	}
	return a.manifestOf(then.Digest)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// checkLogIssuance: what the log says of the certificate is what it says of
// itself.
func (a *audit) checkLogIssuance() (string, error) {
	e, err := a.log.certified("issuance", digestOf(a.leaf.Raw))
	if err != nil {
		return "", err
	}
	a.issuance = e
	issuer, err := a.log.certified("intermediate", e.Issuer)
	if err != nil {
		return "", err
	}
	m, err := a.manifestAt(e)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("entry %d of %s, under manifest %d", e.index, e.Time, m.Version), cmp.Or(
		same("issuer", digestOf(a.issuer.Raw), e.Issuer),
		must(issuer.index < e.index, "its issuer", "logged before", issuer.index),
		same("evidence", digestPrefix+hexOf(a.claims.EvidenceHash), e.Evidence),
		same("manifest", m.digest, e.Manifest),
		same("manifest in the certificate", m.digest, digestPrefix+hexOf(a.claims.ManifestDigest)),
		same("role", a.claims.Role, e.Role),
		same("end", stamp(a.leaf.NotAfter), e.NotAfter),
		must(!e.at.Before(a.leaf.NotBefore.Truncate(time.Second)) && !e.at.After(a.leaf.NotAfter), "time", validity(a.leaf), e.Time),
		checkInForce(m, e.at))
}

// checkInForce: nothing is issued under a manifest before its time.
func checkInForce(m *manifest, at time.Time) error {
	from, err := timeOr(m.NotBefore, at)
	return cmp.Or(err, must(!at.Before(from), "manifest in force", "from "+m.NotBefore, at.UTC()))
}
