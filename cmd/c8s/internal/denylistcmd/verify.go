// SPDX-License-Identifier: Apache-2.0

package denylistcmd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

// verified is the JSON output of verify.
type verified struct {
	TrustDomain string                    `json:"trustDomain"`
	Version     uint64                    `json:"version"`
	Digest      policy.Digest             `json:"digest"`
	Entries     int                       `json:"entries"`
	Signers     []string                  `json:"signers"`
	Ignored     []policy.IgnoredSignature `json:"ignored"`
	Succeeds    policy.Digest             `json:"succeeds,omitempty"`
}

type verifyCommand struct {
	trust    operatorkey.Trust
	previous string
	output   desk.Output
}

func newVerify() *cobra.Command {
	var v verifyCommand
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
		RunE: func(c *cobra.Command, args []string) error { return v.run(c, args[0]) },
	}
	v.trust.Register(c)
	c.Flags().StringVar(&v.previous, "previous", "", "signed deny list that this one replaces")
	v.output.Register(c)
	return c
}

func (v *verifyCommand) run(c *cobra.Command, path string) (err error) {
	if err := v.output.Check(); err != nil {
		return err
	}
	ring := operatorkey.NewRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	trusted, err := v.trust.Load(c, ring)
	if err != nil {
		return err
	}
	signed, err := open(c, path, trusted)
	if err != nil {
		return err
	}
	out := verified{
		TrustDomain: signed.List.TrustDomain, Version: signed.List.Version, Digest: signed.Digest, Entries: len(signed.List.Entries),
		Signers: signed.Signers, Ignored: append([]policy.IgnoredSignature{}, signed.Ignored...),
	}
	if v.previous != "" {
		prev, err := open(c, v.previous, trusted)
		if err != nil {
			return err
		}
		if err := policy.DenyListSucceeds(prev, signed).Err(); err != nil {
			return err
		}
		out.Succeeds = prev.Digest
	}
	if v.output.JSON() {
		return desk.WriteJSON(c.OutOrStdout(), out)
	}
	_, err = fmt.Fprint(c.OutOrStdout(), out.text())
	return err
}

func open(c *cobra.Command, path string, trusted policy.Operators) (*policy.SignedDenyList, error) {
	d, err := load(c, path)
	if err != nil {
		return nil, err
	}
	if d.envelope == nil {
		return nil, fmt.Errorf("%s is a deny list without signatures; sign it with 'c8s denylist sign'", path)
	}
	signed, err := policy.OpenDenyList(d.raw, trusted)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return signed, nil
}

func (v verified) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "verified: deny list %d of %s, %d entries\n", v.Version, v.TrustDomain, v.Entries)
	fmt.Fprintf(&b, "digest:   %s\n", v.Digest)
	fmt.Fprintf(&b, "signers:  %s\n", strings.Join(v.Signers, ", "))
	for _, i := range v.Ignored {
		fmt.Fprintf(&b, "ignored:  signature with keyid %q: %s\n", i.KeyID, i.Reason)
	}
	if v.Succeeds != "" {
		fmt.Fprintf(&b, "succeeds: %s\n", v.Succeeds)
	}
	return b.String()
}
