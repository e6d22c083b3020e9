// SPDX-License-Identifier: Apache-2.0

package denylistcmd

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// shown is the JSON output of show.
type shown struct {
	Digest   policy.Digest    `json:"digest"`
	KeyIDs   []string         `json:"keyids"` // of the signatures, not checked
	DenyList *policy.DenyList `json:"denyList"`
}

func newShow() *cobra.Command {
	var output desk.Output
	c := &cobra.Command{
		Use:   "show FILE",
		Short: "Print a deny list, signed or not, without checking signatures",
		Long: `Prints what a deny list denies and its digest. Signatures are listed but not
checked: that is what 'c8s denylist verify' is for. FILE may be "-".`,
		Example: `  c8s denylist show denylist.signed.json
  c8s denylist show denylist.json -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := lists().Read(c, args[0])
			if err != nil {
				return err
			}
			s := shown{Digest: d.Content.Digest(), KeyIDs: d.KeyIDs(), DenyList: d.Content}
			return output.Write(c, s, s.print)
		},
	}
	output.Register(c)
	return c
}

func (s *shown) print(out io.Writer) error {
	t, l := desk.NewTable(out), s.DenyList
	t.Line("trust domain", "%s", l.TrustDomain)
	t.Line("version", "%d", l.Version)
	t.Line("digest", "%s", s.Digest)
	if l.Previous != "" {
		t.Line("previous", "%s", l.Previous)
	}
	if len(s.KeyIDs) == 0 {
		t.Line("signatures", "none")
	}
	for _, id := range s.KeyIDs {
		t.Line("signature", "by %q, NOT CHECKED (see 'c8s denylist verify')", id)
	}
	if len(l.Entries) == 0 {
		t.Line("denies", "nothing")
	}
	for _, e := range l.Entries {
		t.Line("denies "+string(e.Kind), "%s  (%s)", e.Value, e.Reason)
	}
	return t.Flush()
}

func newDiff() *cobra.Command {
	var output desk.Output
	c := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Say what a new deny list denies more, and what it lifts",
		Long: `Lists the differences of two deny lists, signed or not: what is denied narrows
what the mesh accepts, what is lifted widens it. Signatures are not checked. The
exit code is 0 whether there are differences or not.`,
		Example: `  c8s denylist diff denylist.signed.json next.json
  c8s denylist diff denylist.signed.json next.json -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, args []string) error {
			return lists().Diff(c, &output, args, policy.DiffDenyLists)
		},
	}
	output.Register(c)
	return c
}
