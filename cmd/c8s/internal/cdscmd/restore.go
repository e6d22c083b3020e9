// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/recovery"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdsflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

type restoreCommand struct {
	cds    cdsflag.Flags
	key    string
	output desk.Output
}

// restored is the JSON output of restore.
type restored struct {
	Document policy.Digest `json:"document"`
	Holder   string        `json:"holder"`
	Have     int           `json:"have"`
	Need     int           `json:"need"`
}

func newRestore() *cobra.Command {
	var r restoreCommand
	c := &cobra.Command{
		Use:   "restore KIT --recovery-key FILE --cds ADDR --operators FILE --manifest FILE",
		Short: "Give your share to a CDS that waits for it",
		Long: `Opens one's own share of the kit with one's recovery key, and sends it to the CDS at
ADDR, on the connection on which that proved itself. The kit must be signed by
--operators; what the CDS has of recovery documents is not asked for. The share is
kept nowhere. Once the CDS has as many as it needs, it starts.

Each waiting CDS collects for itself: send all shares to one, the others join it.

` + cdsflag.Help + `

Exit codes: 0 the share was taken, 1 refused, 2 wrong usage.`,
		Example: `  c8s cds recovery restore kit.json --recovery-key alice.recovery.pem --cds 10.80.0.100 \
    --operators operators.json --manifest manifest.signed.json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return r.run(c, args[0]) },
	}
	r.cds.Register(c)
	c.Flags().StringVar(&r.key, "recovery-key", "", "file with your recovery key (required)")
	_ = c.MarkFlagFilename("recovery-key", "pem")
	r.output.Register(c)
	return c
}

func (r *restoreCommand) run(c *cobra.Command, path string) error {
	if r.key == "" || len(r.cds.Addrs()) != 1 {
		return exit.Usage(errors.New("--recovery-key and one --cds are required: your key, and the CDS that waits"))
	}
	operators, err := r.cds.Operators()
	if err != nil {
		return err
	}
	k, err := kits().Read(c, path)
	if err != nil {
		return err
	}
	if _, err := signersOf(k, operators); err != nil {
		return err
	}
	cl, signed, err := r.cds.ClientOf(c, operators, "")
	if err != nil {
		return err
	}
	if k.Content.TrustDomain != signed.Manifest.TrustDomain {
		return fmt.Errorf("%s is of trust domain %q, the manifest of %q", path, k.Content.TrustDomain, signed.Manifest.TrustDomain)
	}
	share, err := openOwn(c, k.Content, r.key)
	if err != nil {
		return err
	}
	text, err := share.Encode()
	if err != nil {
		return err
	}
	out := restored{Document: k.Content.Digest(), Holder: share.Name}
	if out.Have, out.Need, err = cl.Restore(c.Context(), r.cds.Addrs()[0], k.Raw, text); err != nil {
		return fmt.Errorf("restoring the share of %s: %w", share.Name, explained(err))
	}
	return r.output.Write(c, out, out.print)
}

func (r *restored) print(w io.Writer) error {
	then := fmt.Sprintf("%d more are needed", r.Need-r.Have)
	if r.Have >= r.Need {
		then = "the CDS starts: see 'c8s cds verify'"
	}
	_, err := fmt.Fprintf(w, "the share of %s was taken: %d of %d; %s\n", r.Holder, r.Have, r.Need, then)
	return err
}

// openOwn opens the share that is sealed to the key.
func openOwn(c *cobra.Command, d *recovery.Document, path string) (recovery.Share, error) {
	key, err := operatorkey.ReadRecoveryKey(path, c.ErrOrStderr())
	if err != nil {
		return recovery.Share{}, err
	}
	public, err := key.Public()
	if err != nil {
		return recovery.Share{}, err
	}
	for _, s := range d.Shares {
		if bytes.Equal(s.Public, public[:]) {
			return recovery.OpenShare(d, s.Name, key)
		}
	}
	return recovery.Share{}, fmt.Errorf("the kit has no share for the key in %s: its shares are for %q; is it the kit that was made after your key was named?", path, holders(d))
}

// explained says what a bare code means here.
func explained(err error) error {
	var refused *client.RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case "not-recovering":
		return fmt.Errorf("%w: this CDS has its secret and needs no shares", err)
	case "share-invalid":
		return fmt.Errorf("%w: is the kit of this trust domain, and is the CDS collecting for fewer than 8 kits?", err)
	}
	return err
}
