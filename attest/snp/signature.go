// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"fmt"
	"math/big"
	"slices"

	"github.com/c8s-dev/c8s/attest"
)

// The signature field: r and s, little-endian, 48 bytes each in 72-byte fields
// (56860, "Format for an ECDSA P-384 with SHA-384 Signature").
const (
	algorithmP384 = 1
	scalarSize    = 48
	fieldSize     = 72
)

// VerifySignature checks the report's signature, over the bytes as received,
// with the leaf's key. It says nothing about the leaf: see Verify.
func (c *Chain) VerifySignature(r *Report) error {
	if err := c.CheckSigner(r); err != nil {
		return err
	}
	public, err := leafPublic(c.Leaf.PublicKey)
	if err != nil {
		return err
	}
	digest := sha512.Sum384(r.raw[:signedSize])
	rr := littleEndian(r.raw[offSignature : offSignature+scalarSize])
	ss := littleEndian(r.raw[offSignature+fieldSize : offSignature+fieldSize+scalarSize])
	if !ecdsa.Verify(public, digest[:], rr, ss) {
		return attest.NewFailure(CodeSignature, "a signature by the "+c.Endorsement.Signer.String()+" over the report",
			"one that does not verify", "the report was changed, or belongs to another certificate: fetch both again")
	}
	return nil
}

// CheckSigner checks that the report says it is signed with the kind of key
// that the leaf is for.
func (c *Chain) CheckSigner(r *Report) error {
	if err := r.CheckSigningKey(); err != nil {
		return err
	}
	if r.SigningKey != c.Endorsement.Signer {
		return attest.NewFailure(CodeSigningKey, "a report signed by a "+c.Endorsement.Signer.String()+", as the certificate is one",
			"signing key "+r.SigningKey.String(), "have the host provide the certificate of the key that signs its reports")
	}
	return nil
}

// CheckSigningKey refuses reports signed by neither a VCEK nor a VLEK.
func (r *Report) CheckSigningKey() error {
	switch r.SigningKey {
	case KeyVCEK, KeyVLEK:
		return nil
	}
	return attest.NewFailure(CodeSigningKey, "a report signed by the VCEK or VLEK", "signing key "+r.SigningKey.String(), "")
}

func leafPublic(key any) (*ecdsa.PublicKey, error) {
	public, ok := key.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P384() {
		return nil, attest.NewFailure(CodeChain, "a leaf with a key on P-384", fmt.Sprintf("a key of type %T", key), "")
	}
	return public, nil
}

func littleEndian(b []byte) *big.Int {
	be := slices.Clone(b)
	slices.Reverse(be)
	return new(big.Int).SetBytes(be)
}
