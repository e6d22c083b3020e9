// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

const (
	maxEndorsed = 24*time.Hour + 5*time.Minute
	maxAhead    = time.Minute // of a beacon
)

// bundle is what third parties check a CDS with (docs/cds-keys.md, "Bundle
// and endorsement").
type bundle struct {
	Schema      string `json:"schema"`
	TrustDomain string `json:"trustDomain"`
	Root        []byte `json:"root"`
	Log         string `json:"log"`
	Beacon      []byte `json:"beacon"`
	Countersign []byte `json:"countersign"`
	Operators   string `json:"operators"`

	text        []byte
	endorsement endorsement
}

type endorsement struct {
	Schema    string          `json:"schema"`
	Bundle    json.RawMessage `json:"bundle"`
	Evidence  []byte          `json:"evidence"`
	NotBefore int64           `json:"notBefore"`
	NotAfter  int64           `json:"notAfter"`
}

// readBundle believes nothing yet: anybody can write this down.
func (a *audit) readBundle() (string, error) {
	text, err := a.documents.get("v1/endorsement")
	if err != nil {
		return "", err
	}
	if a.bundle, err = parseEndorsement(text); err != nil {
		return "", err
	}
	b := a.bundle
	if a.root, err = x509.ParseCertificate(b.Root); err != nil {
		return "", err
	}
	from, to := time.Unix(b.endorsement.NotBefore, 0), time.Unix(b.endorsement.NotAfter, 0)
	return fmt.Sprintf("digest %s, endorsed until %s", digestOf(b.text), to.UTC().Format(time.RFC3339)), cmp.Or(
		same("trust domain", a.inForce().TrustDomain, b.TrustDomain),
		same("operators", a.operators.digest(), b.Operators),
		must(to.Sub(from) <= maxEndorsed, "life of the endorsement", fmt.Sprint("at most ", maxEndorsed), to.Sub(from)),
		must(!a.now.Before(from) && !a.now.After(to), "time", fmt.Sprintf("%s to %s", from.UTC(), to.UTC()), a.now.UTC()))
}

func parseEndorsement(text []byte) (*bundle, error) {
	var e endorsement
	if err := oneEncoding(text, &e); err != nil {
		return nil, err
	}
	b := &bundle{text: e.Bundle, endorsement: e}
	return b, cmp.Or(oneEncoding(e.Bundle, b),
		same("schema", "c8s.dev/cds-endorsement/v1", e.Schema), same("schema", "c8s.dev/cds-bundle/v1", b.Schema))
}

// countersigner spells the countersigning key as operators of one.
func (b *bundle) countersigner() operators {
	return operators{Threshold: 1, Keys: []operatorKey{{Name: "cds", Algorithm: "ed25519", PublicKey: base64.StdEncoding.EncodeToString(b.Countersign)}}}
}

// checkBundleEvidence: a machine that the manifest in force accepts as CDS,
// launched for the trusted operators, committed to this very bundle.
func (a *audit) checkBundleEvidence() (string, error) {
	e := a.bundle.endorsement
	claim := binary.BigEndian.AppendUint64([]byte("c8s/cds-bundle/v1\x00"), uint64(e.NotBefore)) //nolint:gosec // a sign would give another hash
	claim = binary.BigEndian.AppendUint64(claim, uint64(e.NotAfter))                             //nolint:gosec // as above
	hash := sha256.Sum256(append(claim, a.bundle.text...))
	record, err := parseEvidence(e.Evidence)
	if err != nil {
		return "", err
	}
	return a.checkCDS(record, transcript{Purpose: "cds-bundle", ClaimsHash: hash[:]}, a.inForce(), a.now)
}

// checkCDS requires evidence of a CDS launched for the trusted operators.
func (a *audit) checkCDS(e *evidence, t transcript, m *manifest, at time.Time) (string, error) {
	if err := e.verify(t, at); err != nil && !isUndecided(err) {
		return "", err
	}
	by, err := m.judged("cds", e, e.guest, at)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s accepts measurement %s", by, e.facts.measurement), same("operators in HOST_DATA", a.operators.digest(), e.facts.hostData)
}

// checkBeacon: how old what the CDS says may be. Evidence and certificates
// have dates of their own, the log has none.
func (a *audit) checkBeacon() (string, error) {
	if a.beaconAge == 0 {
		return "not asked for (-beacon)", nil
	}
	text, err := a.documents.get("v1/beacon")
	if err != nil {
		return "", err
	}
	b, err := parseBeacon(text)
	if err != nil {
		return "", err
	}
	key, err := x509.ParsePKIXPublicKey(a.bundle.Beacon)
	if err != nil {
		return "", err
	}
	public, ok := key.(ed25519.PublicKey)
	sum := sha256.Sum256(a.log.checkpoint)
	about := "made at another checkpoint of the log"
	if b.Checkpoint == hexOf(sum[:]) {
		about = "made at this very checkpoint of the log"
	}
	age := a.now.Sub(time.Unix(b.Time, 0))
	return fmt.Sprintf("%s old, %s, clock %s", age.Round(time.Second), about, b.Clock), cmp.Or(
		must(ok && ed25519.Verify(public, b.signed(), b.Signature), "signature", "the beacon key's", "another"),
		same("trust domain", a.bundle.TrustDomain, b.TrustDomain),
		must(age <= a.beaconAge && age >= -maxAhead, "age", fmt.Sprint("at most ", a.beaconAge), age))
}

type beacon struct {
	Schema      string `json:"schema"`
	TrustDomain string `json:"trustDomain"`
	Time        int64  `json:"time"`
	Period      int64  `json:"period"`
	Checkpoint  string `json:"checkpoint"`
	Clock       string `json:"clock"`
	Signature   []byte `json:"signature"`
}

func parseBeacon(text []byte) (*beacon, error) {
	b := &beacon{}
	if err := oneEncoding(text, b); err != nil {
		return nil, err
	}
	checkpoint, err := hex.DecodeString(b.Checkpoint)
	return b, cmp.Or(err, same("checkpoint", hexOf(checkpoint), b.Checkpoint), same("schema", "c8s.dev/beacon/v1", b.Schema))
}

// signed is what the beacon key signs (docs/cds-keys.md, "Beacon").
func (b *beacon) signed() []byte {
	number := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) } //nolint:gosec // a sign would give other bytes
	checkpoint, _ := hex.DecodeString(b.Checkpoint)                                         // parseBeacon has seen to that
	return lengthPrefixed([]byte("c8s/beacon/v1"), []byte(b.TrustDomain), number(b.Time), number(b.Period), checkpoint, []byte(b.Clock))
}
