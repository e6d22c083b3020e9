// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/recovery"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdsflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

func newFetch() *cobra.Command {
	var cds cdsflag.Flags
	var out desk.Destination
	c := &cobra.Command{
		Use:   "fetch --cds ADDR --operators FILE --manifest FILE",
		Short: "Get the recovery document, and compare it with the log and the manifest",
		Long: `Gets the recovery document of a CDS that proved itself. It must be the one that the
newest entry of type recovery in the log names, and its shares must be for exactly
the recovery keys of the manifest in force.

` + cdsflag.Help + `

Exit codes: 0 written, 1 refused, 2 wrong usage.`,
		Example: `  c8s cds recovery fetch --cds 10.80.0.100 --operators operators.json --manifest manifest.signed.json -o recovery.json`,
		Args:    desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := desk.CheckFree(out.Force || out.Path == desk.Stdio, out.Path); err != nil {
				return err
			}
			cl, err := cds.Client(c, "")
			if err != nil {
				return err
			}
			raw, said, err := fetch(c.Context(), cl)
			if err != nil {
				return fmt.Errorf("fetching the recovery document: %w", err)
			}
			if err := desk.Emit(c.OutOrStdout(), out.Path, raw, out.Force); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.ErrOrStderr(), said)
			return err
		},
	}
	cds.Register(c)
	out.RegisterFor(c, "the document")
	return c
}

func fetch(ctx context.Context, cl *client.Client) (raw []byte, said string, err error) {
	d, err := cl.Documents(ctx)
	if err != nil {
		return nil, "", err
	}
	defer d.Close()
	now, err := d.InForce(ctx)
	if err != nil {
		return nil, "", err
	}
	m := now.Manifest.Manifest
	if m.Recovery == nil {
		return nil, "", errors.New("the manifest in force names no recovery keys: see 'c8s manifest recovery-key'")
	}
	raw, err = d.Get(ctx, "/v1/recovery")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("the CDS has made no shares yet; try again in a few seconds: %w", err)
	}
	if err != nil {
		return nil, "", err
	}
	document, err := recovery.Parse(raw)
	if err != nil {
		return nil, "", err
	}
	index, entry, err := newestRecovery(ctx, d)
	if err != nil {
		return nil, "", err
	}
	if err := sameDocument(document, entry, m); err != nil {
		return nil, "", err
	}
	return raw, fmt.Sprintf("recovery document %s of %s: %d of %d shares (%s), log entry %d\nhave the operators sign it now: 'c8s cds recovery sign'",
		document.Digest(), m.TrustDomain, document.Threshold, len(document.Shares), strings.Join(holders(document), ", "), index), nil
}

func newestRecovery(ctx context.Context, d *client.Documents) (int64, *translog.Entry, error) {
	auditor, err := d.Auditor()
	if err != nil {
		return 0, nil, err
	}
	latest, _, err := auditor.Latest(ctx)
	if err != nil {
		return 0, nil, err
	}
	var entry *translog.Entry
	index, _, err := auditor.FindLast(ctx, *latest, func(_ int64, raw []byte) bool {
		e, err := translog.ParseEntry(raw)
		if err != nil || e.Type != translog.TypeRecovery {
			return false
		}
		entry = e
		return true
	})
	return index, entry, err
}

// sameDocument holds a document against the log and the manifest. Another one
// may be of a secret that somebody knows.
func sameDocument(d *recovery.Document, e *translog.Entry, m *policy.Manifest) error {
	if digest := d.Digest(); e.Digest != digest || e.Threshold != d.Threshold || e.Shares != len(d.Shares) {
		return fmt.Errorf("the document is %s with %d of %d shares, the newest in the log is %s with %d of %d: if new shares are being made just now, try again; if it stays so, the document was exchanged",
			digest, d.Threshold, len(d.Shares), e.Digest, e.Threshold, e.Shares)
	}
	if d.TrustDomain != m.TrustDomain {
		return fmt.Errorf("the document is of trust domain %q, expected %q", d.TrustDomain, m.TrustDomain)
	}
	same := m.Recovery != nil && d.Threshold == m.Recovery.Threshold && len(d.Shares) == len(m.Recovery.Keys)
	for i := 0; same && i < len(d.Shares); i++ {
		s, k := d.Shares[i], m.Recovery.Keys[i]
		same = s.Name == k.Name && base64.StdEncoding.EncodeToString(s.Public) == k.PublicKey
	}
	if !same {
		return fmt.Errorf("the shares are for %s (%d needed), and those are not the recovery keys of manifest %d: if it has just come into force, try again", strings.Join(holders(d), ", "), d.Threshold, m.Version)
	}
	return nil
}

func newSign() *cobra.Command {
	var s operatorkey.Signing
	c := &cobra.Command{
		Use:   "sign FILE --key KEY",
		Short: "Sign a recovery document, which makes it a kit",
		Long: `Signs a recovery document, or adds a signature to a kit. Every operator fetches the
document, or compares the digest that 'show' prints with the one that was fetched,
before signing: the kit decides which secret comes back.

` + operatorkey.SigningHelp,
		Example: `  c8s cds recovery sign recovery.json --key alice.pem -o kit.json

  # the second operator adds a signature, in place
  c8s cds recovery sign kit.json --key bob.pem -o kit.json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if err := s.Check(); err != nil {
				return err
			}
			k, err := kits().Read(c, args[0])
			if err != nil {
				return err
			}
			first := func(payload []byte, keys ...crypto.Signer) ([]byte, error) {
				return policy.SignPayload(api.RecoveryKitType, payload, keys...)
			}
			more := func(envelope []byte, keys ...crypto.Signer) ([]byte, error) {
				return policy.AddPayloadSignature(envelope, api.RecoveryKitType, maxKit, keys...)
			}
			if err := s.Run(c, k.File, first, more); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.ErrOrStderr(), "signed recovery document %s of %s\n", k.Content.Digest(), k.Content.TrustDomain)
			return err
		},
	}
	s.Register(c)
	return c
}
