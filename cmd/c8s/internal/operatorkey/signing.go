// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"crypto"
	"errors"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// SigningHelp says in a command's help what its keys may be.
const SigningHelp = `Keys are Ed25519 or ECDSA P-256: PKCS#8 PEM files, or keys on a token, named by
a PKCS#11 URI (RFC 7512) with the module of the token's vendor. The PIN is read
from the file that pin-source names, or from C8S_PKCS11_PIN. Tokens need the
binary that 'make build-pkcs11' builds.`

// Signing is the flags of a command that signs a document.
type Signing struct {
	keys  []string
	out   string
	force bool
}

// Register adds the flags to c.
func (s *Signing) Register(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&s.keys, "key", nil, "operator's private key, a file or PKCS#11 URI (required; may be repeated)")
	f.StringVarP(&s.out, "out", "o", desk.Stdio, "file for the envelope, or - for standard output")
	f.BoolVar(&s.force, "force", false, "replace the output file if it exists")
}

// Check refuses to work without keys.
func (s *Signing) Check() error {
	if len(s.keys) == 0 {
		return exit.Usage(errors.New("--key is required: the operator's private key"))
	}
	return nil
}

// Document is what is signed: raw as read from path, which is an envelope if
// Signed says so. Sign makes the first envelope, and refuses a bad payload; Add
// adds to one, and is policy.AddSignature where it is nil.
type Document struct {
	Path   string
	Raw    []byte
	Signed bool
	Sign   func(payload []byte, keys ...crypto.Signer) ([]byte, error)
	Add    func(envelope []byte, keys ...crypto.Signer) ([]byte, error)
}

// Run signs the document and writes its envelope.
func (s *Signing) Run(c *cobra.Command, d Document) (err error) {
	ring := NewRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	signers, err := ring.Signers(s.keys)
	if err != nil {
		return err
	}
	sign := d.Sign
	switch {
	case d.Signed && d.Add != nil:
		sign = d.Add
	case d.Signed:
		sign = policy.AddSignature
	}
	envelope, err := sign(d.Raw, signers...)
	if err != nil {
		return err
	}
	// Adding to an envelope loses nothing of it, so it may replace itself.
	inPlace := d.Signed && desk.SameFile(d.Path, s.out)
	return desk.Emit(c.OutOrStdout(), s.out, envelope, s.force || inPlace)
}
