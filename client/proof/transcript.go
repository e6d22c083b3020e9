// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/beacon"
)

// Transcript is what the evidence of an attestation must commit to: the
// statement, its keys, the beacon, and the client's nonce where there is one.
func Transcript(s *Statement, nonce []byte, b *beacon.Beacon) (attest.Transcript, error) {
	t, err := transcript(s, nonce, b)
	if err != nil {
		return attest.Transcript{}, fmt.Errorf("forming what an ingress's evidence commits to: %w", err)
	}
	return t, nil
}

func transcript(s *Statement, nonce []byte, b *beacon.Beacon) (attest.Transcript, error) {
	claims, err := s.claimsHash()
	if err != nil {
		return attest.Transcript{}, err
	}
	key, err := hex.DecodeString(strings.TrimPrefix(string(s.TLSKey), "sha256:"))
	if err != nil {
		return attest.Transcript{}, err
	}
	fresh := b.Bytes()
	if fresh == nil {
		return attest.Transcript{}, errors.New("the beacon is not signed")
	}
	hpkeHash := sha256.Sum256(s.HPKE.PublicKey)
	t := attest.Transcript{Purpose: api.PurposeIngressProof, SPKIHash: key, HPKEHash: hpkeHash[:], ClaimsHash: claims, Beacon: fresh}
	switch n := len(nonce); {
	case n == 0:
	case n < MinNonce || n > MaxNonce:
		return attest.Transcript{}, fmt.Errorf("a nonce of %d bytes, expected %d to %d", n, MinNonce, MaxNonce)
	default:
		t.Purpose, t.Nonce = api.PurposeIngressNonce, nonce
	}
	return t, nil
}
