// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

// verified is the JSON output of verify.
type verified struct {
	TrustDomain string        `json:"trustDomain"`
	Version     uint64        `json:"version"`
	Digest      policy.Digest `json:"digest"`
	Production  bool          `json:"production"`
	operatorkey.Signatures
}

// Print implements operatorkey.Verified.
func (v *verified) Print(w io.Writer) error {
	return v.PrintAs(w, fmt.Sprintf("version %d of %s%s", v.Version, v.TrustDomain, kindOf(v.Production)), v.Digest)
}

func newVerify() *cobra.Command {
	var v operatorkey.Verifying
	c := &cobra.Command{
		Use:   "verify FILE (--operators FILE | --key KEY...)",
		Short: "Check a signed manifest as a node would",
		Long: `Checks that enough of the operators signed the manifest and that it is valid.
With --previous it also checks that the manifest may follow that one: newer,
chained to it, and signed by the operators that it names.

Exit codes: 0 a node would accept it, 1 it would not, 2 wrong usage.`,
		Example: `  c8s manifest verify manifest.signed.json --operators operators.json
  c8s manifest verify next.signed.json --operators operators.json --previous manifest.signed.json
  c8s manifest verify manifest.signed.json --key alice.pub --key bob.pub --threshold 2 -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return v.Run(c, func(trusted policy.Operators) (operatorkey.Verified, error) {
				return verify(c, args[0], v.Previous, trusted)
			})
		},
	}
	v.Register(c, "manifest")
	return c
}

func verify(c *cobra.Command, path, previous string, trusted policy.Operators) (*verified, error) {
	signed, err := open(c, path, trusted)
	if err != nil {
		return nil, err
	}
	m := signed.Manifest
	out := &verified{
		TrustDomain: m.TrustDomain, Version: m.Version, Digest: signed.Digest, Production: m.Production,
		Signatures: operatorkey.NewSignatures(signed.Signers, signed.Ignored),
	}
	if previous != "" {
		out.Succeeds, err = succession(c, previous, signed)
	}
	return out, err
}

func open(c *cobra.Command, path string, trusted policy.Operators) (*policy.Signed, error) {
	file, err := desk.Manifests().ReadSigned(c, path)
	if err != nil {
		return nil, err
	}
	signed, err := policy.Open(file.Raw, trusted)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return signed, nil
}

// succession checks next against the previous manifest, which is trusted by
// being named: its signatures are checked under its own operators.
func succession(c *cobra.Command, previous string, next *policy.Signed) (policy.Digest, error) {
	d, err := desk.Manifests().Read(c, previous)
	if err != nil {
		return "", err
	}
	prev, err := open(c, previous, d.Content.Operators)
	if err != nil {
		return "", err
	}
	return prev.Digest, policy.Succeeds(prev, next).Err()
}

func kindOf(production bool) string {
	if production {
		return " (production)"
	}
	return " (not for production)"
}
