// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package operatorkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/miekg/pkcs11"
)

// mechanismEdDSA is CKM_EDDSA of PKCS#11 3.0, which the bindings do not name.
// Without parameters it is pure Ed25519.
const mechanismEdDSA = 0x1057

// tokenKey signs with a key that never leaves its token.
type tokenKey struct {
	ctx           *pkcs11.Ctx
	session       pkcs11.SessionHandle
	private       pkcs11.ObjectHandle
	public        crypto.PublicKey
	pin           string
	loginEachTime bool // CKA_ALWAYS_AUTHENTICATE
}

// Public implements crypto.Signer.
func (k *tokenKey) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer as the keys of the standard library do: ECDSA
// takes a SHA-256 digest, Ed25519 the message. The signature is checked before
// it is returned: a token may fail, or pair the key with another's public key.
func (k *tokenKey) Sign(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	switch public := k.public.(type) {
	case *ecdsa.PublicKey:
		if opts.HashFunc() != crypto.SHA256 || len(message) != sha256.Size {
			return nil, errors.New("signing on the token: an ECDSA key signs SHA-256 digests only")
		}
		raw, err := k.raw(pkcs11.CKM_ECDSA, message)
		if err != nil {
			return nil, err
		}
		sig, err := encodeECDSA(raw)
		if err != nil {
			return nil, err
		}
		return checked(sig, ecdsa.VerifyASN1(public, message, sig))
	case ed25519.PublicKey:
		if opts.HashFunc() != 0 {
			return nil, errors.New("signing on the token: an Ed25519 key signs messages, not digests")
		}
		sig, err := k.raw(mechanismEdDSA, message)
		if err != nil {
			return nil, err
		}
		return checked(sig, ed25519.Verify(public, message, sig))
	}
	return nil, fmt.Errorf("signing on the token: no way to sign with a %T", k.public)
}

func checked(sig []byte, good bool) ([]byte, error) {
	if !good {
		return nil, errors.New("signing on the token: its signature does not verify under the public key beside the private one; do the two belong together?")
	}
	return sig, nil
}

func (k *tokenKey) raw(mechanism uint, message []byte) ([]byte, error) {
	if err := k.ctx.SignInit(k.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, k.private); err != nil {
		return nil, fmt.Errorf("signing on the token: %w", err)
	}
	if k.loginEachTime {
		if err := k.ctx.Login(k.session, pkcs11.CKU_CONTEXT_SPECIFIC, k.pin); err != nil {
			return nil, fmt.Errorf("signing on the token: logging in for one signature: %w", err)
		}
	}
	sig, err := k.ctx.Sign(k.session, message)
	if err != nil {
		return nil, fmt.Errorf("signing on the token: %w", err)
	}
	return sig, nil
}
