// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/recovery"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdsflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// maxKit is the largest file of a recovery document or kit, in bytes.
const maxKit = 256 << 10

func newRecovery() *cobra.Command {
	c := &cobra.Command{
		Use:   "recovery",
		Short: "Prepare for the day when every CDS is gone, and bring it back",
		Long: `If the manifest names recovery keys, the CDS keeps a public recovery document: its
secret, sealed so that a threshold of those keys bring it back.

While all is well, one operator fetches the document, which is compared with the log,
and the operators sign it. What they sign is the kit: everybody keeps a copy. On the
bad day a CDS is started with what is left of the store, and each of the holders of
recovery keys restores their share from the kit. Do it again whenever the manifest
names other recovery keys.

A kit, and not what a CDS says on the bad day, decides which secret comes back: whoever
could exchange the document could make the mesh's root key one that they know.`,
		Example: `  c8s cds recovery fetch --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json -o recovery.json
  c8s cds recovery sign recovery.json --key alice.pem -o kit.json
  c8s cds recovery sign kit.json --key bob.pem -o kit.json
  c8s cds recovery show kit.json --operators operators.json

  # the bad day
  c8s cds verify 10.80.0.100 --operators operators.json --manifest manifest.signed.json
  c8s cds recovery restore kit.json --recovery-key alice.recovery.pem --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newFetch(), newShow(), newSign(), newRestore())
	return c
}

type kit = desk.Document[recovery.Document]

func kits() desk.Kind[recovery.Document] {
	return desk.Kind[recovery.Document]{Name: "recovery document", Command: "c8s cds recovery", Type: api.RecoveryKitType, Max: maxKit, Parse: recovery.Parse}
}

// signersOf checks that the operators signed a kit, and says which.
func signersOf(k *kit, operators policy.Operators) ([]string, error) {
	if !k.Signed() {
		return nil, kits().NotSigned(k.Path)
	}
	signed, err := policy.OpenPayload(k.Raw, api.RecoveryKitType, maxKit, operators)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Path, err)
	}
	return signed.Signers, nil
}

// holders are those who have a share.
func holders(d *recovery.Document) []string {
	var names []string
	for _, s := range d.Shares {
		names = append(names, s.Name)
	}
	return names
}

// shownKit is the JSON output of show.
type shownKit struct {
	Digest      policy.Digest `json:"digest"` // of the document
	TrustDomain string        `json:"trustDomain"`
	Threshold   int           `json:"threshold"`
	Holders     []string      `json:"holders"`
	KeyIDs      []string      `json:"keyids"`            // of the signatures
	Signers     []string      `json:"signers,omitempty"` // with --operators: who they are
}

func newShow() *cobra.Command {
	var trust cdsflag.Anchor
	var output desk.Output
	c := &cobra.Command{
		Use:   "show FILE",
		Short: "Print what a recovery document or kit says, and who signed it",
		Long: `Prints the digest of the document, which the log has, and whose shares it holds. With
--operators the signatures of a kit are checked.

Exit codes: 0 shown, 1 not signed by enough of --operators, 2 wrong usage.`,
		Example: `  c8s cds recovery show recovery.json
  c8s cds recovery show kit.json --operators operators.json -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := kits().Read(c, args[0])
			if err != nil {
				return err
			}
			d := k.Content
			s := shownKit{Digest: d.Digest(), TrustDomain: d.TrustDomain, Threshold: d.Threshold, Holders: holders(d), KeyIDs: k.KeyIDs()}
			if trust.Named() {
				operators, err := trust.Operators()
				if err != nil {
					return err
				}
				if s.Signers, err = signersOf(k, operators); err != nil {
					return err
				}
			}
			return output.Write(c, s, s.print)
		},
	}
	trust.Register(c)
	output.Register(c)
	return c
}

func (s *shownKit) print(out io.Writer) error {
	t := desk.NewTable(out)
	t.Line("document", "%s", s.Digest)
	t.Line("trust domain", "%s", s.TrustDomain)
	t.Line("shares", "%d of %d: %s", s.Threshold, len(s.Holders), strings.Join(s.Holders, ", "))
	switch {
	case s.Signers != nil:
		t.Line("signed by", "%s", strings.Join(s.Signers, ", "))
	case len(s.KeyIDs) == 0:
		t.Line("signatures", "none")
	}
	if s.Signers == nil {
		for _, id := range s.KeyIDs {
			t.Line("signature", "by %q, NOT CHECKED (give --operators)", id)
		}
	}
	return t.Flush()
}
