// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
)

// operators are the operators' file, and the member of a manifest that says
// who may sign the next (docs/policy.md, "Signatures").
type operators struct {
	Threshold int
	Keys      []operatorKey
}

type operatorKey struct {
	Name, Algorithm string
	PublicKey       string // SubjectPublicKeyInfo: PEM, or DER in base64
}

func (a *audit) readOperators() (string, error) {
	if err := strictJSON(a.operatorsFile, &a.operators); err != nil {
		return "", err
	}
	keys, err := a.operators.parse()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("any %d of %d, digest %s", a.operators.Threshold, len(keys), a.operators.digest()), nil
}

// parse returns the keys by the digest of their SubjectPublicKeyInfo, which is
// also their DSSE keyid.
func (o operators) parse() (map[string]crypto.PublicKey, error) {
	keys := map[string]crypto.PublicKey{}
	for _, k := range o.Keys {
		public, der, err := k.parse()
		if err != nil {
			return nil, fmt.Errorf("reading the key of %q: %w", k.Name, err)
		}
		keys[digestOf(der)] = public
	}
	return keys, cmp.Or(
		same("different keys", len(o.Keys), len(keys)),
		must(o.Threshold >= 1 && o.Threshold <= len(keys), "threshold", fmt.Sprintf("1 to %d", len(keys)), o.Threshold))
}

func (k operatorKey) parse() (crypto.PublicKey, []byte, error) {
	der, err := base64.StdEncoding.DecodeString(k.PublicKey)
	if block, _ := pem.Decode([]byte(k.PublicKey)); block != nil {
		der, err = block.Bytes, nil
	}
	if err != nil {
		return nil, nil, err
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, nil, err
	}
	algorithm := fmt.Sprintf("%T", public)
	switch key := public.(type) {
	case ed25519.PublicKey:
		algorithm = "ed25519"
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			algorithm = "ecdsa-p256"
		}
	}
	// One key has one encoding, or it could count twice.
	again, err := x509.MarshalPKIXPublicKey(public)
	return public, der, cmp.Or(err, same("algorithm", k.Algorithm, algorithm), must(bytes.Equal(again, der), "key", "its canonical encoding", "another"))
}

// digest is what machines are launched with as HOST_DATA, for operators that
// parse accepts.
func (o operators) digest() string {
	var sums [][]byte
	for _, k := range o.Keys {
		_, der, _ := k.parse()
		sum := sha256.Sum256(der)
		sums = append(sums, sum[:])
	}
	slices.SortFunc(sums, bytes.Compare)
	b := binary.BigEndian.AppendUint32([]byte("c8s/operators/v1\x00"), uint32(o.Threshold)) //nolint:gosec // at most the number of keys
	b = binary.BigEndian.AppendUint32(b, uint32(len(sums)))                                 //nolint:gosec // of a file that was read
	sum := sha256.Sum256(append(b, bytes.Join(sums, nil)...))
	return hex.EncodeToString(sum[:])
}

type signature struct{ Sig []byte }

// open checks a DSSE envelope (secure-systems-lab/dsse, protocol.md): enough
// different keys signed the payload. Members it does not know do not matter.
func (o operators) open(envelope []byte, payloadType string) ([]byte, error) {
	keys, err := o.parse()
	if err != nil {
		return nil, err
	}
	var e struct {
		PayloadType string
		Payload     []byte
		Signatures  []signature
	}
	if err := json.Unmarshal(envelope, &e); err != nil {
		return nil, err
	}
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(e.Payload), e.Payload)
	signed := 0
	for _, key := range keys {
		// The keyid is a hint; trying all is simpler.
		if slices.ContainsFunc(e.Signatures, func(s signature) bool { return verify(key, message, s.Sig) }) {
			signed++
		}
	}
	return e.Payload, cmp.Or(
		same("payload type", payloadType, e.PayloadType),
		must(signed >= o.Threshold, "signatures of different operators", fmt.Sprint(o.Threshold), signed))
}

func verify(key crypto.PublicKey, message, sig []byte) bool {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, sig)
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(key, sum[:], sig)
	}
	return false
}
