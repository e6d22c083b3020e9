// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"crypto"
	"errors"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// SigningHelp says in a command's help what its keys may be.
const SigningHelp = `Keys are Ed25519 or ECDSA P-256: PKCS#8 PEM files, or keys on a token, named by
a PKCS#11 URI (RFC 7512) with the module of the token's vendor. The PIN is read
from the file that pin-source names, or from C8S_PKCS11_PIN. Tokens need the
binary that 'make build-pkcs11' builds.`

// Signing is the flags of a command that signs a document.
type Signing struct {
	keys []string
	out  desk.Destination
}

// Register adds the flags to c.
func (s *Signing) Register(c *cobra.Command) {
	c.Flags().StringArrayVar(&s.keys, "key", nil, "operator's private key, a file or PKCS#11 URI (required; may be repeated)")
	s.out.RegisterFor(c, "the envelope")
}

// Check refuses to work without keys.
func (s *Signing) Check() error {
	if len(s.keys) == 0 {
		return exit.Usage(errors.New("--key is required: the operator's private key"))
	}
	return nil
}

// Sign signs a payload, or adds to an envelope.
type Sign func(raw []byte, keys ...crypto.Signer) ([]byte, error)

// Run writes the envelope of a document: a first one, or its own with more
// signatures.
func (s *Signing) Run(c *cobra.Command, f desk.File, first, more Sign) (err error) {
	ring := NewRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	signers, err := ring.Signers(s.keys)
	if err != nil {
		return err
	}
	sign := first
	if f.Signed() {
		sign = more
	}
	envelope, err := sign(f.Raw, signers...)
	if err != nil {
		return err
	}
	// Adding to an envelope loses nothing of it, so it may replace itself.
	inPlace := f.Signed() && desk.SameFile(f.Path, s.out.Path)
	return desk.Emit(c.OutOrStdout(), s.out.Path, envelope, s.out.Force || inPlace)
}
