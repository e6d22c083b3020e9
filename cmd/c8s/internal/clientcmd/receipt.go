// SPDX-License-Identifier: Apache-2.0

package clientcmd

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/receipt"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

const maxReceipt = 1 << 20

func newReceipt() *cobra.Command {
	c := &cobra.Command{
		Use:   "receipt",
		Short: "Check signed answers that were kept",
		Args:  desk.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetFlagErrorFunc(desk.FlagError)
	c.AddCommand(newReceiptVerify())
	return c
}

func newReceiptVerify() *cobra.Command {
	var key string
	var output desk.Output
	c := &cobra.Command{
		Use:   "verify FILE --key FILE",
		Short: "Check a receipt that 'c8s curl --receipt' kept",
		Long: `Checks, offline, that a receipt was signed with a receipt key and shows what it says:
which workload answered what request, under which manifest.

--key has the key: PEM, or the attestation that 'c8s verify --save' kept at that time.
The signature is checked, and not whose key it is: that the attestation was good then,
its report beside it says.

Exit codes: 0 signed with that key, 1 not, 2 wrong usage.`,
		Example: `  c8s verify https://bank.example --operators operators.json --save proof/
  c8s curl https://bank.example/accounts --operators operators.json --receipt receipt.json
  c8s receipt verify receipt.json --key proof/attestation.json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if key == "" {
				return exit.Usage(errors.New("--key is required: anybody can sign"))
			}
			public, err := readReceiptKey(key)
			if err != nil {
				return err
			}
			text, err := desk.ReadInput(c, args[0], maxReceipt)
			if err != nil {
				return fmt.Errorf("reading the receipt: %w", err)
			}
			r, err := receipt.ParseReceipt(text)
			if err == nil {
				err = r.Check(public)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return output.Write(c, r, func(w io.Writer) error { return printReceipt(w, r) })
		},
	}
	c.Flags().StringVar(&key, "key", "", "receipt key in PEM, or an attestation that has it")
	_ = c.MarkFlagFilename("key", "pem", "json")
	output.Register(c)
	return c
}

func readReceiptKey(file string) (ed25519.PublicKey, error) {
	raw, err := desk.ReadFile(file, proof.MaxAttestation)
	if err != nil {
		return nil, fmt.Errorf("reading the receipt key: %w", err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		a, err := proof.ParseAttestation(raw)
		if err != nil {
			return nil, fmt.Errorf("%s is neither a key in PEM nor an attestation: %w", file, err)
		}
		return a.Statement.ReceiptPublicKey()
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%s: a receipt key is Ed25519", file)
	}
	return public, nil
}

func printReceipt(out io.Writer, r *receipt.Receipt) error {
	t := desk.NewTable(out)
	t.Line("request", "%s https://%s%s", clean(r.Method), clean(r.Authority), clean(r.Path))
	t.Line("answer", "%d, %s", r.Status, clean(r.Date))
	t.Line("workload", "%s", clean(r.Workload))
	t.Line("manifest", "%d", r.Manifest)
	t.Line("evidence", "%s", clean(string(r.Evidence)))
	t.Line("signed", "%s with %s", r.Created.UTC().Format(time.RFC3339), clean(r.KeyID))
	return t.Flush()
}
