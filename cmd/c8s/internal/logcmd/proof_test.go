// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"testing"

	"github.com/c8s-dev/c8s/cds/translog"
)

func FuzzProof(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	const origin = "c8s.test/c8s/log"
	signer, err := translog.NewSigner(origin, key)
	if err != nil {
		f.Fatal(err)
	}
	verifier, err := translog.NewVerifier(translog.VerifierKey(origin, key.Public().(ed25519.PublicKey)))
	if err != nil {
		f.Fatal(err)
	}
	entry, err := goodLog()[3].Marshal()
	if err != nil {
		f.Fatal(err)
	}
	signed, err := translog.Sign(translog.Checkpoint{Origin: origin, Size: 0, Root: translog.NewTree().Root()}, signer)
	if err != nil {
		f.Fatal(err)
	}
	seed, err := json.Marshal(newProof("key", 3, entry, []translog.Hash{{1}}, signed))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"schema":"c8s.dev/log-proof/v1"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := parseProof(raw)
		if err != nil {
			return
		}
		// The log is empty: no proof is good.
		if _, err := p.check(verifier, []*x509.Certificate{{Raw: []byte("x")}}, nil); err == nil {
			t.Errorf("accepted %s", raw)
		}
	})
}
