// SPDX-License-Identifier: Apache-2.0

package azure

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/internal/onejson"
)

const (
	attestationKeyID = "HCLAkPub"
	keyBits          = 2048
	keyExponent      = 65537
)

// Runtime is what the paravisor says about the virtual machine. It is as good
// as the report whose REPORT_DATA is its hash.
type Runtime struct {
	key *rsa.PublicKey // the TPM's attestation key

	VMID       string
	SecureBoot bool
	TPM        bool // enabled
	Console    bool // enabled: the host may log in there
}

// ParseRuntime reads runtime claims.
func ParseRuntime(b []byte) (*Runtime, error) {
	if len(b) > attest.MaxRuntime {
		return nil, runtimeError(fmt.Sprintf("at most %d bytes", attest.MaxRuntime), fmt.Sprintf("%d bytes", len(b)))
	}
	if err := onejson.Check(b); err != nil {
		return nil, runtimeError("one JSON object without repeated keys", err.Error())
	}
	var claims struct {
		Keys []struct {
			ID       string `json:"kid"`
			Type     string `json:"kty"`
			Exponent string `json:"e"`
			Modulus  string `json:"n"`
		} `json:"keys"`
		VM struct {
			ID         string `json:"vmUniqueId"`
			SecureBoot bool   `json:"secure-boot"`
			TPM        bool   `json:"tpm-enabled"`
			Console    bool   `json:"console-enabled"`
		} `json:"vm-configuration"`
	}
	if err := json.Unmarshal(b, &claims); err != nil {
		return nil, runtimeError("the documented claims", err.Error())
	}
	r := &Runtime{VMID: claims.VM.ID, SecureBoot: claims.VM.SecureBoot, TPM: claims.VM.TPM, Console: claims.VM.Console}
	for _, k := range claims.Keys {
		if k.ID != attestationKeyID {
			continue
		}
		if r.key != nil {
			return nil, runtimeError("one key "+attestationKeyID, "two")
		}
		n, err := base64.RawURLEncoding.Strict().DecodeString(k.Modulus)
		if err != nil || k.Type != "RSA" {
			return nil, runtimeError("an RSA key "+attestationKeyID, "another")
		}
		e, err := base64.RawURLEncoding.Strict().DecodeString(k.Exponent)
		if err != nil || new(big.Int).SetBytes(e).Cmp(big.NewInt(keyExponent)) != 0 {
			return nil, runtimeError(fmt.Sprintf("exponent %d", keyExponent), "another")
		}
		r.key = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: keyExponent}
		if r.key.N.BitLen() != keyBits {
			return nil, runtimeError(fmt.Sprintf("a key of %d bits", keyBits), fmt.Sprintf("%d bits", r.key.N.BitLen()))
		}
	}
	if r.key == nil {
		return nil, runtimeError("a key "+attestationKeyID, "none")
	}
	return r, nil
}

func runtimeError(expected, actual string) error {
	return attest.NewFailure(CodeRuntime, expected, actual, "")
}

// VerifyQuote checks the attestation key's signature (RSASSA-PKCS1-v1_5 with
// SHA-256) over the quote as received.
func (r *Runtime) VerifyQuote(quote, signature []byte) error {
	digest := sha256.Sum256(quote)
	if err := rsa.VerifyPKCS1v15(r.key, crypto.SHA256, digest[:], signature); err != nil {
		return attest.NewFailure(CodeSignature, "a signature by "+attestationKeyID+" over the quote", err.Error(), "the quote was changed, or is of another TPM: ask for new evidence")
	}
	return nil
}
