// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// CKA_EC_PARAMS of the two kinds of keys: the curve's object identifier, or
// for Ed25519 the name that PKCS#11 3.0, section 2.3.5 also allows.
var (
	paramsP256        = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	paramsEd25519     = []byte{0x06, 0x03, 0x2b, 0x65, 0x70}
	paramsEd25519Name = append([]byte{0x13, 12}, "edwards25519"...)
)

const (
	coordinate   = 32               // bytes of P-256
	pointP256    = 1 + 2*coordinate // uncompressed
	signatureRaw = 2 * coordinate
)

// decodeECPublic reads CKA_EC_PARAMS and CKA_EC_POINT.
func decodeECPublic(params, point []byte) (crypto.PublicKey, error) {
	switch {
	case bytes.Equal(params, paramsP256):
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), unwrapPoint(point, pointP256))
		if err != nil {
			return nil, fmt.Errorf("the token's public key is not a point of P-256: %w", err)
		}
		return public, nil
	case bytes.Equal(params, paramsEd25519), bytes.Equal(params, paramsEd25519Name):
		public := unwrapPoint(point, ed25519.PublicKeySize)
		if len(public) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("the token's Ed25519 public key has %d bytes, not %d", len(public), ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(bytes.Clone(public)), nil
	}
	return nil, fmt.Errorf("the key's curve (%x) is neither P-256 nor Ed25519", params)
}

// unwrapPoint: PKCS#11 puts the point into an OCTET STRING, which some modules
// leave out. The lengths tell the two apart.
func unwrapPoint(point []byte, size int) []byte {
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 && len(inner) == size {
		return inner
	}
	return point
}

// encodeECDSA turns a token's r and s (CKM_ECDSA) into ASN.1.
func encodeECDSA(raw []byte) ([]byte, error) {
	if len(raw) != signatureRaw {
		return nil, fmt.Errorf("the token's signature has %d bytes, not %d", len(raw), signatureRaw)
	}
	r, s := new(big.Int).SetBytes(raw[:coordinate]), new(big.Int).SetBytes(raw[coordinate:])
	if r.Sign() == 0 || s.Sign() == 0 {
		return nil, errors.New("the token's signature is zero")
	}
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}
