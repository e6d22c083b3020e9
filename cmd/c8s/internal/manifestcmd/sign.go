// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"crypto"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

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

Keys are PKCS#8 PEM files, Ed25519 or ECDSA P-256. FILE may be "-".`,
		Example: `  c8s manifest sign manifest.json --key alice.pem -o manifest.signed.json

  # the second operator adds a signature, in place
  c8s manifest sign manifest.signed.json --key bob.pem -o manifest.signed.json`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return s.run(c, args[0]) },
	}
	f := c.Flags()
	f.StringArrayVar(&s.keys, "key", nil, "operator's private key (required; may be repeated)")
	f.StringVarP(&s.out, "out", "o", "-", "file for the envelope, or - for standard output")
	f.BoolVar(&s.force, "force", false, "replace the output file if it exists")
	return c
}

func (s *signCommand) run(c *cobra.Command, path string) error {
	if len(s.keys) == 0 {
		return exit.Usage(errors.New("--key is required: the operator's private key"))
	}
	d, err := load(c, path)
	if err != nil {
		return err
	}
	var signers []crypto.Signer
	for _, key := range s.keys {
		signer, err := readPrivateKey(key, c.ErrOrStderr())
		if err != nil {
			return err
		}
		signers = append(signers, signer)
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
	inPlace := d.envelope != nil && path != "-" && filepath.Clean(path) == filepath.Clean(s.out)
	if err := emit(c.OutOrStdout(), s.out, envelope, s.force || inPlace); err != nil {
		return err
	}
	m := d.manifest
	_, err = fmt.Fprintf(c.ErrOrStderr(), "signed version %d of %s, %s\n", m.Version, m.TrustDomain, m.Digest())
	return err
}
