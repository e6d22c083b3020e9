// SPDX-License-Identifier: Apache-2.0

package denylistcmd

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
	Entries     int           `json:"entries"`
	operatorkey.Signatures
}

// Print implements operatorkey.Verified.
func (v *verified) Print(w io.Writer) error {
	return v.PrintAs(w, fmt.Sprintf("deny list %d of %s, %d entries", v.Version, v.TrustDomain, v.Entries), v.Digest)
}

func newVerify() *cobra.Command {
	var v operatorkey.Verifying
	c := &cobra.Command{
		Use:   "verify FILE (--operators FILE | --key KEY...)",
		Short: "Check a signed deny list as a node would",
		Long: `Checks that enough of the operators signed the deny list and that it is valid.
With --previous it also checks that it may follow that one: newer, and chained
to it. Who may sign is said by the manifest in force when it is published.

Exit codes: 0 a node would accept it, 1 it would not, 2 wrong usage.`,
		Example: `  c8s denylist verify denylist.signed.json --operators operators.json
  c8s denylist verify next.signed.json --operators operators.json --previous denylist.signed.json -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return v.Run(c, func(trusted policy.Operators) (operatorkey.Verified, error) {
				return verify(c, args[0], v.Previous, trusted)
			})
		},
	}
	v.Register(c, "deny list")
	return c
}

func verify(c *cobra.Command, path, previous string, trusted policy.Operators) (*verified, error) {
	signed, err := open(c, path, trusted)
	if err != nil {
		return nil, err
	}
	l := signed.List
	out := &verified{
		TrustDomain: l.TrustDomain, Version: l.Version, Digest: signed.Digest, Entries: len(l.Entries),
		Signatures: operatorkey.NewSignatures(signed.Signers, signed.Ignored),
	}
	if previous == "" {
		return out, nil
	}
	prev, err := open(c, previous, trusted)
	if err != nil {
		return nil, err
	}
	out.Succeeds = prev.Digest
	return out, policy.DenyListSucceeds(prev, signed).Err()
}

func open(c *cobra.Command, path string, trusted policy.Operators) (*policy.SignedDenyList, error) {
	file, err := lists().ReadSigned(c, path)
	if err != nil {
		return nil, err
	}
	signed, err := policy.OpenDenyList(file.Raw, trusted)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return signed, nil
}
