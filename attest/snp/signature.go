// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"fmt"
	"math/big"
	"slices"
)

// The signature field: r and s, little-endian, 48 bytes each in 72-byte fields
// (56860, "Format for an ECDSA P-384 with SHA-384 Signature").
const (
	algorithmP384 = 1
	scalarSize    = 48
	fieldSize     = 72
)

// VerifySignature checks the report's signature, over the bytes as received,
// with the VCEK. It says nothing about the VCEK: see Chain.Verify.
func (c *Chain) VerifySignature(r *Report) error {
	if err := r.CheckSigningKey(); err != nil {
		return err
	}
	public, err := vcekPublic(c.VCEK.PublicKey)
	if err != nil {
		return err
	}
	digest := sha512.Sum384(r.raw[:signedSize])
	rr := littleEndian(r.raw[offSignature : offSignature+scalarSize])
	ss := littleEndian(r.raw[offSignature+fieldSize : offSignature+fieldSize+scalarSize])
	if !ecdsa.Verify(public, digest[:], rr, ss) {
		return fail(CodeSignature, "a signature by the VCEK over the report", "one that does not verify", "the report was changed, or belongs to another VCEK: fetch both again")
	}
	return nil
}

// CheckSigningKey refuses reports that no VCEK signed.
func (r *Report) CheckSigningKey() error {
	switch r.SigningKey {
	case KeyVCEK:
		return nil
	case KeyVLEK:
		return fail(CodeVLEK, "a report signed by the chip's VCEK", "one signed by a provider's VLEK", "ask the host for reports signed by the VCEK")
	}
	return fail(CodeSigningKey, "a report signed by the VCEK", "signing key "+r.SigningKey.String(), "")
}

func vcekPublic(key any) (*ecdsa.PublicKey, error) {
	public, ok := key.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P384() {
		return nil, fail(CodeChain, "a VCEK on P-384", fmt.Sprintf("a key of type %T", key), "")
	}
	return public, nil
}

func littleEndian(b []byte) *big.Int {
	be := slices.Clone(b)
	slices.Reverse(be)
	return new(big.Int).SetBytes(be)
}
