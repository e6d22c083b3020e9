// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

type verifyCommand struct {
	trust    operatorkey.Trust
	previous string
	output   desk.Output
}

// verified is the JSON output of verify.
type verified struct {
	TrustDomain string                    `json:"trustDomain"`
	Version     uint64                    `json:"version"`
	Digest      policy.Digest             `json:"digest"`
	Production  bool                      `json:"production"`
	Signers     []string                  `json:"signers"`
	Ignored     []policy.IgnoredSignature `json:"ignored"`
	Succeeds    policy.Digest             `json:"succeeds,omitempty"`
}

func newVerify() *cobra.Command {
	var v verifyCommand
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
		RunE: func(c *cobra.Command, args []string) error { return v.run(c, args[0]) },
	}
	v.trust.Register(c)
	c.Flags().StringVar(&v.previous, "previous", "", "signed manifest that this one replaces")
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
		TrustDomain: signed.Manifest.TrustDomain, Version: signed.Manifest.Version, Digest: signed.Digest,
		Production: signed.Manifest.Production, Signers: signed.Signers, Ignored: append([]policy.IgnoredSignature{}, signed.Ignored...),
	}
	if v.previous != "" {
		prev, err := v.succession(c, signed)
		if err != nil {
			return err
		}
		out.Succeeds = prev
	}
	if v.output.JSON() {
		return desk.WriteJSON(c.OutOrStdout(), out)
	}
	_, err = fmt.Fprint(c.OutOrStdout(), out.text())
	return err
}

func open(c *cobra.Command, path string, trusted policy.Operators) (*policy.Signed, error) {
	raw, err := desk.ReadInput(c, path, policy.MaxEnvelope)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	if !desk.IsEnvelope(raw) {
		if _, err := policy.Parse(raw); err == nil {
			return nil, fmt.Errorf("%s is a manifest without signatures; sign it with 'c8s manifest sign'", path)
		}
	}
	signed, err := policy.Open(raw, trusted)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return signed, nil
}

// succession checks next against the previous manifest, which is trusted by
// being named: its signatures are checked under its own operators.
func (v *verifyCommand) succession(c *cobra.Command, next *policy.Signed) (policy.Digest, error) {
	d, err := load(c, v.previous)
	if err != nil {
		return "", err
	}
	prev, err := open(c, v.previous, d.manifest.Operators)
	if err != nil {
		return "", err
	}
	return prev.Digest, policy.Succeeds(prev, next).Err()
}

func (v verified) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "verified: version %d of %s%s\n", v.Version, v.TrustDomain, kindOf(v.Production))
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

func kindOf(production bool) string {
	if production {
		return " (production)"
	}
	return " (not for production)"
}
