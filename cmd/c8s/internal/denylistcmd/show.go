// SPDX-License-Identifier: Apache-2.0

package denylistcmd

import (
	"fmt"
	"io"
	"text/tabwriter"

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
			if err := output.Check(); err != nil {
				return err
			}
			d, err := load(c, args[0])
			if err != nil {
				return err
			}
			s := shown{Digest: d.list.Digest(), KeyIDs: []string{}, DenyList: d.list}
			if d.envelope != nil {
				for _, sig := range d.envelope.Signatures {
					s.KeyIDs = append(s.KeyIDs, sig.KeyID)
				}
			}
			if output.JSON() {
				return desk.WriteJSON(c.OutOrStdout(), s)
			}
			return s.print(c.OutOrStdout())
		},
	}
	output.Register(c)
	return c
}

func (s *shown) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(key, format string, args ...any) { _, _ = fmt.Fprintf(w, key+"\t"+format+"\n", args...) }
	l := s.DenyList
	line("trust domain", "%s", l.TrustDomain)
	line("version", "%d", l.Version)
	line("digest", "%s", s.Digest)
	if l.Previous != "" {
		line("previous", "%s", l.Previous)
	}
	if len(s.KeyIDs) == 0 {
		line("signatures", "none")
	}
	for _, id := range s.KeyIDs {
		line("signature", "by %q, NOT CHECKED (see 'c8s denylist verify')", id)
	}
	if len(l.Entries) == 0 {
		line("denies", "nothing")
	}
	for _, e := range l.Entries {
		line("denies "+string(e.Kind), "%s  (%s)", e.Value, e.Reason)
	}
	return w.Flush()
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
			if err := output.Check(); err != nil {
				return err
			}
			before, err := load(c, args[0])
			if err != nil {
				return err
			}
			after, err := load(c, args[1])
			if err != nil {
				return err
			}
			changes := policy.DiffDenyLists(before.list, after.list)
			if output.JSON() {
				return desk.WriteJSON(c.OutOrStdout(), append([]policy.Change{}, changes...))
			}
			return desk.PrintChanges(c.OutOrStdout(), changes)
		},
	}
	output.Register(c)
	return c
}
