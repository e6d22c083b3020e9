// SPDX-License-Identifier: Apache-2.0

// Package trust is what third parties need to believe a CDS: which keys it
// signs with, and evidence that a measured CDS of these operators said so. Its
// invariant: nothing in it is believed for coming from the CDS; every key is
// traced to a machine's evidence and to the operators.
package trust

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/keys"
	"github.com/c8s-dev/c8s/internal/onejson"
	"github.com/c8s-dev/c8s/policy"
)

// BundleSchema is the only bundle schema this package reads.
const BundleSchema = "c8s.dev/cds-bundle/v1"

const maxBundle = 16 << 10 // bytes

// LogOrigin is the name of a trust domain's log.
func LogOrigin(trustDomain string) string { return trustDomain + "/c8s/log" }

// Bundle holds the public keys of a trust domain's CDS.
type Bundle struct {
	Schema      string `json:"schema"` // BundleSchema
	TrustDomain string `json:"trustDomain"`
	Root        []byte `json:"root"`        // DER of the mesh CA's root certificate
	Log         string `json:"log"`         // C2SP verifier key of the checkpoints
	Beacon      []byte `json:"beacon"`      // SubjectPublicKeyInfo, Ed25519
	Countersign []byte `json:"countersign"` // SubjectPublicKeyInfo, Ed25519
	Operators   string `json:"operators"`   // policy.Operators.Digest, hexadecimal
}

// NewBundle describes the keys.
func NewBundle(trustDomain string, rootDER []byte, k *keys.Keys, operators policy.Operators) (*Bundle, error) {
	b, err := newBundle(trustDomain, rootDER, k, operators)
	if err != nil {
		return nil, fmt.Errorf("describing the CDS's keys: %w", err)
	}
	return b, nil
}

func newBundle(trustDomain string, rootDER []byte, k *keys.Keys, operators policy.Operators) (*Bundle, error) {
	root, err := ca.ParseRoot(rootDER, trustDomain)
	if err != nil {
		return nil, err
	}
	if !k.Root.PublicKey.Equal(root.PublicKey) {
		return nil, errors.New("the root's certificate is of another key")
	}
	b := &Bundle{Schema: BundleSchema, TrustDomain: trustDomain, Root: rootDER}
	if b.Log, err = note.NewEd25519VerifierKey(LogOrigin(trustDomain), k.Log.Public().(ed25519.PublicKey)); err != nil {
		return nil, err
	}
	if b.Beacon, err = x509.MarshalPKIXPublicKey(k.Beacon.Public()); err != nil {
		return nil, err
	}
	if b.Countersign, err = x509.MarshalPKIXPublicKey(k.Countersign.Public()); err != nil {
		return nil, err
	}
	if err := operators.Validate(); err != nil {
		return nil, err
	}
	b.Operators = operatorsHex(operators)
	return b, b.check()
}

// Parse reads a bundle in its canonical encoding. It believes nothing: see
// Endorsement.
func Parse(text []byte) (*Bundle, error) {
	b := &Bundle{}
	if err := onejson.Decode(text, maxBundle, b); err != nil {
		return nil, fmt.Errorf("parsing the CDS's bundle: %w", err)
	}
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("parsing the CDS's bundle: %w", err)
	}
	return b, nil
}

// Encode writes the bundle's one encoding.
func (b *Bundle) Encode() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("encoding the CDS's bundle: %w", err)
	}
	text, err := onejson.Encode(b)
	if err != nil {
		return nil, fmt.Errorf("encoding the CDS's bundle: %w", err)
	}
	return text, nil
}

// Digest identifies the bundle: the SHA-256 of its encoding. It is empty for a
// bundle that Parse would refuse.
func (b *Bundle) Digest() policy.Digest {
	text, err := b.Encode()
	if err != nil {
		return ""
	}
	return policy.DigestOf(text)
}

func (b *Bundle) check() error {
	if b.Schema != BundleSchema {
		return fmt.Errorf("schema %.64q, expected %q", b.Schema, BundleSchema)
	}
	if td, err := spiffeid.TrustDomainFromString(b.TrustDomain); err != nil || td.Name() != b.TrustDomain {
		return fmt.Errorf("%.64q is not the name of a trust domain", b.TrustDomain)
	}
	if _, err := ca.ParseRoot(b.Root, b.TrustDomain); err != nil {
		return err
	}
	verifier, err := note.NewVerifier(b.Log)
	if err != nil || verifier.Name() != LogOrigin(b.TrustDomain) {
		return fmt.Errorf("the log's key is %.200q, expected a C2SP verifier key named %q", b.Log, LogOrigin(b.TrustDomain))
	}
	beacon, err := b.BeaconKey()
	if err != nil {
		return err
	}
	countersign, err := b.CountersignKey()
	if err != nil {
		return err
	}
	// One key for two uses would let one signature pass for the other.
	if beacon.Equal(countersign) {
		return errors.New("the beacon's key is the countersigning key")
	}
	if digest, err := hex.DecodeString(b.Operators); err != nil || len(digest) != 32 || hex.EncodeToString(digest) != b.Operators {
		return fmt.Errorf("the operators' digest is %.80q, expected 64 lower-case hexadecimal digits", b.Operators)
	}
	return nil
}

// RootCertificate returns the root.
func (b *Bundle) RootCertificate() (*x509.Certificate, error) {
	return ca.ParseRoot(b.Root, b.TrustDomain)
}

// BeaconKey verifies beacons.
func (b *Bundle) BeaconKey() (ed25519.PublicKey, error) { return ed25519Key("beacon's", b.Beacon) }

// CountersignKey verifies countersignatures.
func (b *Bundle) CountersignKey() (ed25519.PublicKey, error) {
	return ed25519Key("countersigning", b.Countersign)
}

// LogVerifier verifies checkpoints.
func (b *Bundle) LogVerifier() (note.Verifier, error) { return note.NewVerifier(b.Log) }

func ed25519Key(name string, der []byte) (ed25519.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading the %s key: %w", name, err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("reading the %s key: it is not Ed25519", name)
	}
	if again, err := x509.MarshalPKIXPublicKey(public); err != nil || !slices.Equal(again, der) {
		return nil, fmt.Errorf("reading the %s key: it is not in its canonical encoding", name)
	}
	return public, nil
}
