// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// ingressAge is how old the beacon of an ingress's attestation may be, where
// the auditor does not say.
const ingressAge = 5 * time.Minute

// ingressQuestion is what the auditor wants to know of an ingress.
type ingressQuestion struct {
	text         []byte // the attestation
	host, tlsKey string // the key in hexadecimal; empty: whichever it says
	nonce        []byte

	attestation *ingressAttestation
	beacon      *beacon
	evidence    *evidence
}

// ingressAttestation is what an ingress shows (docs/proof.md).
type ingressAttestation struct {
	Schema    string           `json:"schema"`
	Statement ingressStatement `json:"statement"`
	Evidence  []byte           `json:"evidence"`
	Beacon    json.RawMessage  `json:"beacon"`
	Nonce     []byte           `json:"nonce"`
	Chain     [][]byte         `json:"chain"`
	Receipt   struct {
		Entry      json.RawMessage `json:"entry"`
		Index      int64           `json:"index"`
		Proof      [][]byte        `json:"proof"`
		Checkpoint string          `json:"checkpoint"`
	} `json:"receipt"`
}

type ingressStatement struct {
	Schema      string   `json:"schema"`
	TrustDomain string   `json:"trustDomain"`
	Hosts       []string `json:"hosts"`
	TLSKey      string   `json:"tlsKey"`
	HPKE        struct {
		KEM       uint16 `json:"kem"`
		KDF       uint16 `json:"kdf"`
		AEAD      uint16 `json:"aead"`
		PublicKey []byte `json:"publicKey"`
	} `json:"hpke"`
	ReceiptKey  []byte `json:"receiptKey"`
	Certificate string `json:"certificate"`
	Manifest    stated `json:"manifest"`
	DenyList    stated `json:"denyList"`
	Software    string `json:"software"`
}

type stated struct {
	Version uint64 `json:"version"`
	Digest  string `json:"digest"`
}

// open reads the attestation, and the certificate in it.
func (q *ingressQuestion) open() (leaf, issuer *x509.Certificate, err error) {
	q.attestation = &ingressAttestation{}
	if err := oneEncoding(q.text, q.attestation); err != nil {
		return nil, nil, fmt.Errorf("reading the attestation: %w", err)
	}
	if err := same("certificates in the attestation", 2, len(q.attestation.Chain)); err != nil {
		return nil, nil, err
	}
	if leaf, err = x509.ParseCertificate(q.attestation.Chain[0]); err != nil {
		return nil, nil, err
	}
	issuer, err = x509.ParseCertificate(q.attestation.Chain[1])
	return leaf, issuer, err
}

// ingressSteps follow those about the certificate that the attestation has.
func ingressSteps() []step {
	return []step{
		{"ingress-statement", "the ingress says that this certificate, host and policy are its own", (*audit).checkStatement},
		{"ingress-receipt", "what it shows of the log is in the log", (*audit).checkReceipt},
		{"ingress-beacon", "what it shows is young", (*audit).checkIngressBeacon},
		{"ingress-evidence", "a TEE committed to the statement, the keys and the beacon", (*audit).checkIngressEvidence},
		{"ingress-machine", "it is the certificate's machine, and accepted as ingress", (*audit).checkIngressMachine},
	}
}

func (a *audit) checkStatement() (string, error) {
	q, s, last, list := a.ingress, &a.ingress.attestation.Statement, a.inForce(), stated{}
	if a.deny != nil {
		list = stated{a.deny.Version, a.deny.digest}
	}
	var rules []struct {
		Name     string
		Hosts    []string
		Backends json.RawMessage
	}
	if err := strictJSON(last.Ingress, &rules); err != nil {
		return "", fmt.Errorf("the manifest has no hosts for an ingress: %w", err)
	}
	var hosts []string
	for _, r := range rules {
		hosts = append(hosts, r.Hosts...)
	}
	key, err := x509.ParsePKIXPublicKey(s.ReceiptKey)
	if err != nil {
		return "", err
	}
	_, isEd25519 := key.(ed25519.PublicKey)
	return fmt.Sprintf("TLS key %s, software %s", s.TLSKey, s.Software), cmp.Or(
		same("schema", "c8s.dev/ingress-attestation/v1", q.attestation.Schema), same("schema", "c8s.dev/ingress-statement/v1", s.Schema),
		same("trust domain", last.TrustDomain, s.TrustDomain), same("role of the certificate", "ingress", a.claims.Role),
		same("certificate", digestOf(a.leaf.Raw), s.Certificate),
		must(slices.IsSorted(s.Hosts) && covers(s.Hosts, q.host), "hosts of the ingress", q.host, s.Hosts),
		must(covers(hosts, q.host), "hosts of the manifest", q.host, hosts),
		must(q.tlsKey == "" || s.TLSKey == digestPrefix+q.tlsKey, "TLS key", digestPrefix+q.tlsKey, s.TLSKey),
		must(isDigest(s.TLSKey), "TLS key", "a digest", s.TLSKey), must(isEd25519, "receipt key", "Ed25519", fmt.Sprintf("%T", key)),
		same("manifest", stated{last.Version, last.digest}, s.Manifest), same("deny list", list, s.DenyList),
		same("nonce", hexOf(q.nonce), hexOf(q.attestation.Nonce)))
}

// covers: by its name, or by a wildcard for its first label.
func covers(hosts []string, host string) bool {
	_, parent, ok := strings.Cut(host, ".")
	return host != "" && !strings.HasPrefix(host, "*") && (slices.Contains(hosts, host) || ok && slices.Contains(hosts, "*."+parent))
}

func (a *audit) checkReceipt() (string, error) {
	r := &a.ingress.attestation.Receipt
	size, root, err := a.openCheckpoint([]byte(r.Checkpoint))
	if err != nil {
		return "", err
	}
	if err := must(size <= int64(len(a.log.entries)), "size of its checkpoint", fmt.Sprintf("at most %d", len(a.log.entries)), size); err != nil {
		return "", err
	}
	actual, err := a.log.root(size)
	if err := cmp.Or(err, same("root of its checkpoint", actual, root), same("entry", a.issuance.index, r.Index)); err != nil {
		return "", err
	}
	proof := make(tlog.RecordProof, len(r.Proof))
	for i, h := range r.Proof {
		if err := same("length of a hash", len(tlog.Hash{}), len(h)); err != nil {
			return "", err
		}
		proof[i] = tlog.Hash(h)
	}
	return fmt.Sprintf("entry %d of %d", r.Index, size), tlog.CheckRecord(proof, size, root, r.Index, tlog.RecordHash(r.Entry))
}

func (a *audit) checkIngressBeacon() (string, error) {
	b, err := parseBeacon(a.ingress.attestation.Beacon)
	if err != nil {
		return "", err
	}
	a.ingress.beacon = b
	most := cmp.Or(a.beaconAge, ingressAge)
	key, err := x509.ParsePKIXPublicKey(a.bundle.Beacon)
	if err != nil {
		return "", err
	}
	public, ok := key.(ed25519.PublicKey)
	age := a.now.Sub(time.Unix(b.Time, 0))
	return age.Round(time.Second).String() + " old", cmp.Or(
		must(ok && ed25519.Verify(public, b.signed(), b.Signature), "signature", "the beacon key's", "another"),
		same("trust domain", a.bundle.TrustDomain, b.TrustDomain),
		must(age <= most && age >= -maxAhead, "age", fmt.Sprint("at most ", most), age))
}

func (a *audit) checkIngressEvidence() (string, error) {
	q, s := a.ingress, &a.ingress.attestation.Statement
	text, err := statementText(q.text)
	if err != nil {
		return "", err
	}
	key, err := hex.DecodeString(strings.TrimPrefix(s.TLSKey, digestPrefix))
	if err != nil {
		return "", err
	}
	claims, hpke := sha256.Sum256(append([]byte("c8s/ingress-statement/v1\x00"), text...)), sha256.Sum256(s.HPKE.PublicKey)
	t := transcript{
		Purpose: "ingress/proof", Nonce: q.nonce, SPKIHash: key, HPKEHash: hpke[:], ClaimsHash: claims[:],
		Beacon: append(binary.BigEndian.AppendUint64(nil, uint64(q.beacon.Time)), q.beacon.Signature...), //nolint:gosec // a sign would give other bytes
	}
	if len(q.nonce) > 0 {
		t.Purpose = "ingress/nonce"
	}
	if q.evidence, err = parseEvidence(q.attestation.Evidence); err != nil {
		return "", err
	}
	return "purpose " + t.Purpose, q.evidence.verify(t, a.now)
}

// statementText is the statement as it stands in the attestation.
func statementText(attestation []byte) ([]byte, error) {
	var parts struct{ Statement json.RawMessage }
	err := json.Unmarshal(attestation, &parts)
	return parts.Statement, err
}

func (a *audit) checkIngressMachine() (string, error) {
	if a.deny != nil {
		s := &a.ingress.attestation.Statement
		for _, e := range a.deny.Entries {
			if err := must(e.Kind != "key" || e.Value != s.TLSKey && e.Value != digestOf(s.ReceiptKey), "its keys", "none that is denied", e.Value); err != nil {
				return "", err
			}
		}
	}
	e, c := a.ingress.evidence, a.claims
	if e.facts == nil {
		return "", undecided("nothing was established about the machine")
	}
	if err := cmp.Or(same("TEE", c.TEE, e.facts.tee), same("machine", c.Machine, e.facts.machine), same("measurement", hexOf(c.Measurement), e.facts.measurement),
		same("host data", hexOf(c.HostData), e.facts.hostData), same("simulated", c.Simulated, e.facts.simulated)); err != nil {
		return "", err
	}
	return a.inForce().judged("ingress", e, e.guest, a.now)
}
