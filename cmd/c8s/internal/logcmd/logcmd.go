// SPDX-License-Identifier: Apache-2.0

// Package logcmd lets auditors follow what a CDS did. It believes nothing about
// the log but what hashes to a checkpoint that the log's key signed, and the key
// only where a CDS with evidence, or the caller, says so. What contradicts
// something seen before is kept, never overwritten.
package logcmd

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

// New returns the command "log" with all of its subcommands.
func New() *cobra.Command {
	c := &cobra.Command{
		Use:   "log",
		Short: "Follow, verify and cosign what the CDS did",
		Long: `The CDS writes everything it does into an append-only log before it has an effect:
manifests, deny lists, issuing keys, every certificate. These commands need no trust
in the CDS or its operators: they verify that the log only grows, keep a copy, and
check that it obeys its own rules.

Exit codes: 0 success; 1 refused: the log forked, shrank or breaks a rule, or the
command failed; 2 wrong usage; 3 nothing wrong, but not witnessed as the manifest
asks.`,
		Example: `  c8s log watch --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json --mirror mirror/
  c8s log verify mirror/
  c8s log prove cert.pem --mirror mirror/ --out proof.json
  c8s log prove cert.pem --check proof.json --log-key 'example.org/c8s/log+…'`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(desk.FlagError)
	c.AddCommand(newWatch(), newVerify(), newProve(), newWitnessKey())
	return c
}

// printEntry writes one line about an entry. It is proven to be the log's, but
// nothing says that the log's writer wrote one that can be read.
func printEntry(w io.Writer, index int64, raw []byte) error {
	e, err := translog.ParseEntry(raw)
	if err != nil {
		_, err = fmt.Fprintf(w, "%8d  UNREADABLE  %q\n", index, raw)
		return err
	}
	_, err = fmt.Fprintf(w, "%8d  %s  %-12s  %s\n", index, e.Time.UTC().Format(time.RFC3339), e.Type, describe(e))
	return err
}

func describe(e *translog.Entry) string {
	switch e.Type {
	case translog.TypeManifest, translog.TypeDenylist:
		return fmt.Sprintf("version %d, %s", e.Version, e.Digest)
	case translog.TypePending:
		return fmt.Sprintf("version %d, %s, not before %s", e.Version, e.Digest, e.NotBefore.UTC().Format(time.RFC3339))
	case translog.TypeIntermediate:
		return fmt.Sprintf("%s until %s, evidence %s", e.Certificate, e.NotAfter.UTC().Format(time.RFC3339), e.Evidence)
	case translog.TypeIssuance:
		return fmt.Sprintf("%s, %s until %s, evidence %s", e.Role, e.Certificate, e.NotAfter.UTC().Format(time.RFC3339), e.Evidence)
	case translog.TypeJoin:
		return "the secret was given to a replica, evidence " + string(e.Evidence)
	case translog.TypeRecovery:
		return fmt.Sprintf("%d shares, %d needed, %s", e.Shares, e.Threshold, e.Digest)
	}
	return strings.TrimSpace(string(e.Digest))
}

// progressEvery is after how many entries a long run says how far it is.
const progressEvery = 1 << 16

func progress(w io.Writer, doing string, done, all int64) {
	if done%progressEvery == 0 && done < all {
		_, _ = fmt.Fprintf(w, "%s %d of %d\n", doing, done, all) // for people: nothing depends on it
	}
}
