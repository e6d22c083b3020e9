// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

type signCommand struct {
	keys  []string
	out   string
	force bool
}

func newSign() *cobra.Command {
	var s signCommand
	c := &cobra.Command{
		Use:   "sign FILE --key KEY",
		Short: "Sign a manifest, or add a signature to a signed one",
		Long: `Signs a manifest and writes a DSSE envelope. When FILE already is an envelope
the signature is added to it; the manifest inside stays byte for byte the same.
A manifest that nodes would refuse is not signed.

Keys are Ed25519 or ECDSA P-256: PKCS#8 PEM files, or keys on a token, named by
a PKCS#11 URI (RFC 7512) with the module of the token's vendor. The PIN is read
from the file that pin-source names, or from C8S_PKCS11_PIN. Tokens need the
binary that 'make build-pkcs11' builds. FILE may be "-".`,
		Example: `  c8s manifest sign manifest.json --key alice.pem -o manifest.signed.json

  # the second operator adds a signature, in place
  c8s manifest sign manifest.signed.json --key bob.pem -o manifest.signed.json

  # with a key that never leaves its token
  c8s manifest sign manifest.json -o manifest.signed.json --key \
    'pkcs11:token=operators;object=alice?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=pin.txt'`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return s.run(c, args[0]) },
	}
	f := c.Flags()
	f.StringArrayVar(&s.keys, "key", nil, "operator's private key, a file or PKCS#11 URI (required; may be repeated)")
	f.StringVarP(&s.out, "out", "o", "-", "file for the envelope, or - for standard output")
	f.BoolVar(&s.force, "force", false, "replace the output file if it exists")
	return c
}

func (s *signCommand) run(c *cobra.Command, path string) (err error) {
	if len(s.keys) == 0 {
		return exit.Usage(errors.New("--key is required: the operator's private key"))
	}
	d, err := load(c, path)
	if err != nil {
		return err
	}
	ring := newRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	signers, err := ring.Signers(s.keys)
	if err != nil {
		return err
	}
	var envelope []byte
	if d.envelope != nil {
		envelope, err = policy.AddSignature(d.raw, signers...)
	} else {
		envelope, err = policy.Sign(d.payload, signers...)
	}
	if err != nil {
		return err
	}
	// Adding to an envelope loses nothing of it, so it may replace itself.
	inPlace := d.envelope != nil && desk.SameFile(path, s.out)
	if err := desk.Emit(c.OutOrStdout(), s.out, envelope, s.force || inPlace); err != nil {
		return err
	}
	m := d.manifest
	_, err = fmt.Fprintf(c.ErrOrStderr(), "signed version %d of %s, %s\n", m.Version, m.TrustDomain, m.Digest())
	return err
}
