// SPDX-License-Identifier: Apache-2.0

package logcmd

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

// witnessFlags make the watcher a witness.
type witnessFlags struct {
	key    string
	name   string
	submit bool
}

func (w *witnessFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&w.key, "cosign", "", "be a witness, with this Ed25519 key, a file that is used for nothing else")
	c.Flags().StringVar(&w.name, "name", "", "with --cosign: name of the witness's key")
	c.Flags().BoolVar(&w.submit, "submit", false, "with --cosign: hand the cosignature to the CDS")
	_ = c.MarkFlagFilename("cosign", "pem")
	_ = c.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
}

func (w *witnessFlags) check() error {
	if (w.key == "") != (w.name == "") || w.submit && w.key == "" {
		return exit.Usage(errors.New("--cosign and --name go together, and --submit with them"))
	}
	return nil
}

// open reads the key; nil where the watcher is no witness.
func (w *witnessFlags) open(c *cobra.Command) (*translog.Cosigner, error) {
	if w.key == "" {
		return nil, nil
	}
	return openCosigner(c, w.key, w.name)
}

func openCosigner(c *cobra.Command, path, name string) (_ *translog.Cosigner, err error) {
	ring := operatorkey.NewRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	signer, err := ring.Signer(path)
	if err != nil {
		return nil, err
	}
	key, ok := signer.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a witness needs an Ed25519 key in a file: %s is a %T; make one with 'c8s manifest new-key'", path, signer)
	}
	return translog.NewCosigner(name, key)
}

// cosign adds this witness's signature to a checkpoint that the mirror holds,
// so that it is remembered, or keeps what the CDS has from others.
func (f *follower) cosign(ctx context.Context, d *client.Documents, log *liveLog, c translog.Checkpoint) error {
	if f.cosigner == nil {
		return f.keepCosigned(ctx, log, d, c)
	}
	if f.signed == c.Size {
		return nil
	}
	cosigned, err := translog.AddCosignature(log.signed, log.origin, log.verifier, f.cosigner, f.now())
	if err != nil {
		return err
	}
	if err := desk.WriteFile(f.mirror.path(cosignedFile), cosigned, desk.ModePublic, true); err != nil {
		return err
	}
	if f.submit {
		accepted, err := f.cl.Cosign(ctx, cosigned)
		if err != nil {
			return fmt.Errorf("handing the cosignature to the CDS (does the manifest in force name %s?): %w", f.cosigner.VerifierKey(), err)
		}
		if _, err := fmt.Fprintf(f.out, "cosigned %d entries; the CDS has the cosignatures of %s\n", c.Size, strings.Join(accepted, ", ")); err != nil {
			return err
		}
	}
	f.signed = c.Size
	return nil
}

// keepCosigned copies the CDS's cosigned checkpoint into the mirror. One that
// contradicts the mirror is the proof of a fork.
func (f *follower) keepCosigned(ctx context.Context, log *liveLog, d *client.Documents, have translog.Checkpoint) error {
	signed, err := d.Log()(ctx, cosignedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := translog.OpenCheckpoint(signed, log.origin, log.verifier)
	if err != nil {
		return err
	}
	if c.Size > have.Size {
		return nil // the next round has it
	}
	if err := log.Consistent(ctx, *c, have); err != nil {
		if errors.Is(err, translog.ErrForked) {
			err = errors.Join(err, desk.WriteFile(f.mirror.path(translog.ForkedCheckpoint), signed, desk.ModePublic, true), f.mirror.keepContradiction(err, nil))
		}
		return err
	}
	return desk.WriteFile(f.mirror.path(cosignedFile), signed, desk.ModePublic, true)
}

func newWitnessKey() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "witness-key KEY --name NAME",
		Short: "Print a witness's public key, as a manifest names it",
		Long: `Prints the entry for a manifest's "witnesses": the name and the verifier key (C2SP
tlog-cosignature). The key is an Ed25519 key in a file, made with 'c8s manifest
new-key', that signs nothing but checkpoints.`,
		Example: `  c8s manifest new-key witness.pem
  c8s log witness-key witness.pem --name witness.example.org`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if name == "" {
				return exit.Usage(errors.New("--name is required: of the witness's key"))
			}
			cosigner, err := openCosigner(c, args[0], name)
			if err != nil {
				return err
			}
			w := policy.Witness{Name: name, Key: cosigner.VerifierKey()}
			if _, err := w.Decode(); err != nil { // as a manifest will be judged
				return err
			}
			return desk.WriteJSON(c.OutOrStdout(), w)
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the witness's key (required)")
	_ = c.RegisterFlagCompletionFunc("name", cobra.NoFileCompletions)
	return c
}
