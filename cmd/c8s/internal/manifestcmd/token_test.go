// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package manifestcmd_test

import (
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey/hsmtest"
	"github.com/c8s-dev/c8s/policy"
)

// The walk through docs/manifest-cli.md: one operator has a file, the other a
// token.
func TestTwoOperatorsSignOneOfThemOnAToken(t *testing.T) {
	token := hsmtest.New(t)
	token.Generate(hsmtest.Key{Label: "bob", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	d := newDesk(t)
	d.Must(initLine("--new-key @alice.pem"))
	d.Must("public-key " + token.URIWithoutPIN("bob") + " -o @bob.pub")
	d.Must(initLine("--force --threshold 2 --operator-key alice=@alice.pem.pub --operator-key @bob.pub"))
	d.Must("sign @manifest.json --key @alice.pem -o @signed.json")
	d.Refused(exit.Refused, "sign @signed.json -o @signed.json --key "+token.URIWithoutPIN("bob"), operatorkey.PINVariable)
	d.Must("sign @signed.json -o @signed.json --key " + token.URI("bob"))
	if r := d.Must("verify @signed.json --operators @operators.json"); !strings.Contains(r.Out, "signers:  alice, bob") {
		t.Errorf("verify said %q", r.Out)
	}
	t.Setenv(operatorkey.PINVariable, hsmtest.PIN)
	d.Must("sign @manifest.json -o @again.json --key @alice.pem --key " + token.URIWithoutPIN("bob"))
	d.Must("verify @again.json --key @alice.pem.pub --threshold 2 --key " + token.URIWithoutPIN("bob"))
}

func TestNothingThatIsPrintedHasAPIN(t *testing.T) {
	token := hsmtest.New(t)
	token.Generate(hsmtest.Key{Label: "bob", ID: []byte{1}, Algorithm: policy.AlgorithmECDSAP256})
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	t.Setenv(operatorkey.PINVariable, hsmtest.PIN+"x")
	for _, uri := range []string{
		token.URIWithoutPIN("bob"), token.URIWithoutPIN("bob") + "&pin-value=" + hsmtest.PIN, token.URI("eve"), token.URI("bob") + "&pin-source=" + hsmtest.PIN,
	} {
		r := d.Run("sign @manifest.json --key " + uri)
		if r.Code == exit.OK || strings.Contains(r.Out+r.ErrOut, hsmtest.PIN) {
			t.Errorf("exit %d, %q", r.Code, r.ErrOut)
		}
	}
}
