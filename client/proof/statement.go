// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/internal/onejson"
	"github.com/c8s-dev/c8s/policy"
)

// Caps on what a statement may hold.
const (
	maxStatement  = 128 << 10 // bytes
	MaxHosts      = 1024
	maxHost       = 253
	maxSoftware   = 64
	maxHPKEKey    = 2 << 10
	maxPublicSPKI = 256
)

// statementTag separates the hash of a statement from all others.
const statementTag = "c8s/ingress-statement/v1"

// Statement is what an ingress says of itself. Alone it proves nothing.
type Statement struct {
	Schema      string        `json:"schema"` // StatementSchema
	TrustDomain string        `json:"trustDomain"`
	Hosts       []string      `json:"hosts"`  // sorted; "*." stands for one label
	TLSKey      policy.Digest `json:"tlsKey"` // of the SubjectPublicKeyInfo
	HPKE        HPKE          `json:"hpke"`
	ReceiptKey  []byte        `json:"receiptKey"`  // SubjectPublicKeyInfo, Ed25519
	Certificate policy.Digest `json:"certificate"` // of the mesh leaf's DER
	Manifest    Followed      `json:"manifest"`
	DenyList    Followed      `json:"denyList"` // zero: there never was one
	Software    string        `json:"software"` // version; printable ASCII
}

// HPKE is a public key that requests may be encrypted to (RFC 9180), and the
// one suite it is for. The numbers are those of RFC 9180 section 7.
type HPKE struct {
	KEM       uint16 `json:"kem"`
	KDF       uint16 `json:"kdf"`
	AEAD      uint16 `json:"aead"`
	PublicKey []byte `json:"publicKey"` // as the KEM serialises it
}

// Followed names the version of a document that was in force for the ingress.
type Followed struct {
	Version uint64        `json:"version"`
	Digest  policy.Digest `json:"digest"`
}

func (f Followed) String() string {
	if f == (Followed{}) {
		return "none"
	}
	return fmt.Sprintf("version %d, %s", f.Version, f.Digest)
}

// ParseStatement reads a statement in its canonical encoding, and believes
// nothing of it.
func ParseStatement(text []byte) (*Statement, error) {
	s := &Statement{}
	err := onejson.Decode(text, maxStatement, s)
	if err == nil {
		err = s.check()
	}
	if err != nil {
		return nil, malformed("a statement", err)
	}
	return s, nil
}

// Encode writes the statement's one encoding.
func (s *Statement) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("encoding an ingress's statement: %w", err)
	}
	text, err := onejson.Encode(s)
	if err == nil && len(text) > maxStatement {
		err = fmt.Errorf("%d bytes, at most %d allowed", len(text), maxStatement)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding an ingress's statement: %w", err)
	}
	return text, nil
}

func malformed(what string, err error) error {
	return attest.NewFailure(CodeMalformed, what+" in its canonical encoding", err.Error(), "ask an ingress of this version of c8s")
}

// claimsHash is what evidence commits to: SHA-256 over the tag, a zero byte and
// the encoding.
func (s *Statement) claimsHash() ([]byte, error) {
	text, err := s.Encode()
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	h.Write([]byte(statementTag + "\x00"))
	h.Write(text)
	return h.Sum(nil), nil
}

func (s *Statement) check() error {
	if s.Schema != StatementSchema {
		return fmt.Errorf("schema %.64q, expected %q", s.Schema, StatementSchema)
	}
	if td, err := spiffeid.TrustDomainFromString(s.TrustDomain); err != nil || td.Name() != s.TrustDomain {
		return fmt.Errorf("%.64q is not the name of a trust domain", s.TrustDomain)
	}
	if err := checkHosts(s.Hosts); err != nil {
		return err
	}
	if !s.TLSKey.Valid() || !s.Certificate.Valid() {
		return fmt.Errorf("TLS key %.80q and certificate %.80q, expected digests", s.TLSKey, s.Certificate)
	}
	if err := s.HPKE.check(); err != nil {
		return err
	}
	if _, err := s.ReceiptPublicKey(); err != nil {
		return err
	}
	if s.Manifest.Version == 0 || !s.Manifest.Digest.Valid() {
		return fmt.Errorf("it follows no manifest: %d, %.80q", s.Manifest.Version, s.Manifest.Digest)
	}
	if s.DenyList != (Followed{}) && (s.DenyList.Version == 0 || !s.DenyList.Digest.Valid()) {
		return fmt.Errorf("its deny list is %d, %.80q", s.DenyList.Version, s.DenyList.Digest)
	}
	return checkSoftware(s.Software)
}

func checkHosts(hosts []string) error {
	if len(hosts) == 0 || len(hosts) > MaxHosts {
		return fmt.Errorf("%d hosts, expected 1 to %d", len(hosts), MaxHosts)
	}
	for i, host := range hosts {
		if !validHost(host) {
			return fmt.Errorf("host %.80q, expected a lower-case DNS name", host)
		}
		if i > 0 && hosts[i-1] >= host {
			return fmt.Errorf("hosts are not sorted: %q stands before %q", hosts[i-1], host)
		}
	}
	return nil
}

// validHost accepts lower-case DNS names, and those with "*" as first label.
func validHost(host string) bool {
	if len(host) > maxHost {
		return false
	}
	name := strings.TrimPrefix(host, "*.")
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// HasHost reports whether the ingress says that it serves the host: by name, or
// by a wildcard, which stands for exactly one label.
func (s *Statement) HasHost(host string) bool {
	if !validHost(host) || strings.HasPrefix(host, "*.") {
		return false
	}
	if _, ok := slices.BinarySearch(s.Hosts, host); ok {
		return true
	}
	_, parent, found := strings.Cut(host, ".")
	if !found {
		return false
	}
	_, ok := slices.BinarySearch(s.Hosts, "*."+parent)
	return ok
}

func (h *HPKE) check() error {
	if len(h.PublicKey) > maxHPKEKey {
		return fmt.Errorf("an HPKE key of %d bytes, at most %d accepted", len(h.PublicKey), maxHPKEKey)
	}
	if _, err := h.Key(); err != nil {
		return err
	}
	if _, err := hpke.NewKDF(h.KDF); err != nil {
		return fmt.Errorf("reading the HPKE suite: %w", err)
	}
	if _, err := hpke.NewAEAD(h.AEAD); err != nil || h.AEAD == hpke.ExportOnly().ID() {
		return fmt.Errorf("reading the HPKE suite: AEAD %#04x encrypts nothing that is known", h.AEAD)
	}
	return nil
}

// Key returns the public key.
func (h *HPKE) Key() (hpke.PublicKey, error) {
	kem, err := hpke.NewKEM(h.KEM)
	if err != nil {
		return nil, fmt.Errorf("reading the HPKE key: %w", err)
	}
	key, err := kem.NewPublicKey(h.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("reading the HPKE key: %w", err)
	}
	return key, nil
}

// ReceiptPublicKey verifies signed answers.
func (s *Statement) ReceiptPublicKey() (ed25519.PublicKey, error) {
	if len(s.ReceiptKey) > maxPublicSPKI {
		return nil, fmt.Errorf("reading the receipt key: %d bytes, at most %d accepted", len(s.ReceiptKey), maxPublicSPKI)
	}
	key, err := x509.ParsePKIXPublicKey(s.ReceiptKey)
	if err != nil {
		return nil, fmt.Errorf("reading the receipt key: %w", err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("reading the receipt key: it is not Ed25519")
	}
	if again, err := x509.MarshalPKIXPublicKey(public); err != nil || !slices.Equal(again, s.ReceiptKey) {
		return nil, errors.New("reading the receipt key: it is not in its canonical encoding")
	}
	return public, nil
}

// checkSoftware wants what can be printed as it is, and needs no escape.
func checkSoftware(s string) error {
	printable := func(r rune) bool {
		return r > ' ' && r <= '~' && r != '"' && r != '\\' && r != '<' && r != '>' && r != '&'
	}
	if s == "" || len(s) > maxSoftware || strings.ContainsFunc(s, func(r rune) bool { return !printable(r) }) {
		return fmt.Errorf("software %.80q, expected 1 to %d printable ASCII characters without spaces and quotes", s, maxSoftware)
	}
	return nil
}
