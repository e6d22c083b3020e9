// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The signature algorithms of operator keys.
const (
	AlgorithmEd25519   = "ed25519"
	AlgorithmECDSAP256 = "ecdsa-p256"
)

const (
	maxOperators     = 64
	maxOperatorsFile = 256 << 10
	maxPublicKeyText = 1024
)

// Operators are the people whose signatures make a manifest: any Threshold of
// the Keys.
type Operators struct {
	Threshold int           `json:"threshold"`
	Keys      []OperatorKey `json:"keys"`
}

// OperatorKey is one operator's public key.
type OperatorKey struct {
	Name      string `json:"name"`      // for people; printable ASCII, at most 63 characters
	Algorithm string `json:"algorithm"` // "ed25519" or "ecdsa-p256"
	PublicKey string `json:"publicKey"` // SubjectPublicKeyInfo as PEM, or its DER in base64
}

// ParseOperators reads the operators' file, the trust anchor of a machine, as
// strictly as Parse reads a manifest.
func ParseOperators(text []byte) (Operators, error) {
	const doing = "parsing the operators"
	r := &report{}
	root := parseTree(text, maxOperatorsFile, r)
	if root == nil {
		return Operators{}, r.err(doing)
	}
	o := readOperators(object(root, "$", r))
	if err := r.err(doing); err != nil {
		return Operators{}, err
	}
	if err := o.Validate(); err != nil {
		return Operators{}, err
	}
	return o, nil
}

// UnmarshalJSON is ParseOperators, so that no reader is laxer.
func (o *Operators) UnmarshalJSON(text []byte) error {
	parsed, err := ParseOperators(text)
	if err != nil {
		return err
	}
	*o = parsed
	return nil
}

// Validate returns every problem with the keys and the threshold.
func (o Operators) Validate() error {
	r := &report{}
	o.validate("$", r)
	return r.err("checking the operators")
}

// NewOperatorKey describes a public key.
func NewOperatorKey(name string, public crypto.PublicKey) (OperatorKey, error) {
	algorithm, err := algorithmOf(public)
	if err != nil {
		return OperatorKey{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return OperatorKey{}, fmt.Errorf("encoding the public key of %q: %w", name, err)
	}
	return OperatorKey{Name: name, Algorithm: algorithm, PublicKey: base64.StdEncoding.EncodeToString(der)}, nil
}

func algorithmOf(public crypto.PublicKey) (string, error) {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return AlgorithmEd25519, nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return AlgorithmECDSAP256, nil
		}
	}
	return "", Decision{
		Code: CodeKeyUnsupported, Expected: "an Ed25519 or ECDSA P-256 key", Actual: fmt.Sprintf("%T", public),
		Remedy: "make one with 'c8s manifest init --new-key'",
	}
}

// ID returns the key's DSSE keyid: the SHA-256 of its SubjectPublicKeyInfo.
func (k OperatorKey) ID() (Digest, error) {
	_, der, err := k.decode()
	if err != nil {
		return "", err
	}
	return DigestOf(der), nil
}

// decode returns the public key and its SubjectPublicKeyInfo in DER.
func (k OperatorKey) decode() (crypto.PublicKey, []byte, error) {
	if len(k.PublicKey) > maxPublicKeyText {
		return nil, nil, fmt.Errorf("the public key is longer than %d characters", maxPublicKeyText)
	}
	der, err := keyBytes(k.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the SubjectPublicKeyInfo: %w", err)
	}
	algorithm, err := algorithmOf(public)
	if err != nil {
		return nil, nil, err
	}
	if algorithm != k.Algorithm {
		return nil, nil, fmt.Errorf("the key is of algorithm %q, not %s", algorithm, quote(k.Algorithm))
	}
	// One key must have one encoding, or it could count twice.
	if again, err := x509.MarshalPKIXPublicKey(public); err != nil || !bytes.Equal(again, der) {
		return nil, nil, errors.New("the SubjectPublicKeyInfo is not in its canonical encoding")
	}
	return public, der, nil
}

func keyBytes(text string) ([]byte, error) {
	if !strings.HasPrefix(text, "-----BEGIN") {
		der, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, errors.New("neither PEM nor standard base64")
		}
		return der, nil
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not exactly one PEM block of type PUBLIC KEY")
	}
	return block.Bytes, nil
}

func (o Operators) validate(path string, r *report) {
	keys := memberPath(path, "keys")
	if len(o.Keys) == 0 {
		r.add(CodeListEmpty, keys, "at least one operator key", "none", "add a key; nobody could sign the next manifest")
		return
	}
	if len(o.Keys) > maxOperators {
		r.add(CodeListTooLong, keys, fmt.Sprintf("at most %d keys", maxOperators), fmt.Sprint(len(o.Keys)), "")
		return
	}
	if o.Threshold < 1 || o.Threshold > len(o.Keys) {
		r.add(CodeThresholdInvalid, memberPath(path, "threshold"), fmt.Sprintf("from 1 to the number of keys, %d", len(o.Keys)), fmt.Sprint(o.Threshold), "")
	}
	names, ids := map[string]bool{}, map[Digest]bool{}
	for i, k := range o.Keys {
		at := elementPath(keys, i)
		checkUnique(k.Name, isPrintable, "a name of 1 to 63 printable ASCII characters", memberPath(at, "name"), names, r)
		id, err := k.ID()
		switch {
		case err != nil:
			r.add(CodeOperatorKeyInvalid, memberPath(at, "publicKey"), "an Ed25519 or ECDSA P-256 public key", err.Error(), "print one with 'openssl pkey -pubout'")
		case ids[id]:
			r.add(CodeValueDuplicate, memberPath(at, "publicKey"), "each key once", "a key that is already listed", "one key cannot count as two operators")
		}
		ids[id] = true
	}
}

// Digest identifies the operators: the threshold and the set of keys, in any
// order and under any names. Machines are launched with it as HOST_DATA.
//
// It is SHA-256 over "c8s/operators/v1", a zero byte, the threshold and the
// number of keys as big-endian uint32, and then the SHA-256 of each key's
// SubjectPublicKeyInfo in ascending order. Operators that Validate refuses
// get a digest under another tag, which no valid ones have.
func (o Operators) Digest() [32]byte {
	tag := "c8s/operators/v1\x00"
	var sums [][]byte
	for _, k := range o.Keys {
		sum := sha256.Sum256([]byte(k.Algorithm + "\x00" + k.PublicKey))
		if _, der, err := k.decode(); err == nil {
			sum = sha256.Sum256(der)
		}
		sums = append(sums, sum[:])
	}
	if o.Validate() != nil {
		tag = "c8s/operators/invalid\x00"
	}
	slices.SortFunc(sums, bytes.Compare)
	b := []byte(tag)
	b = binary.BigEndian.AppendUint32(b, uint32(o.Threshold))
	b = binary.BigEndian.AppendUint32(b, uint32(len(sums)))
	return sha256.Sum256(append(b, bytes.Join(sums, nil)...))
}
