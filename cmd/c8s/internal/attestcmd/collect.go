// SPDX-License-Identifier: Apache-2.0

package attestcmd

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/teeflag"
	"github.com/c8s-dev/c8s/policy"
)

type collectCommand struct {
	tee        teeflag.Flags
	reportData string
	out        string
	output     desk.Output
}

func newCollect() *cobra.Command {
	k := &collectCommand{}
	c := &cobra.Command{
		Use:   "collect --out FILE",
		Short: "Ask this machine for evidence",
		Long: `Asks this machine's TEE for evidence and writes it as a conceptual message wrapper
(RFC 9999). The ways are tried in turn: Linux's configfs-tsm, the device files of
older kernels, and the virtual TPM of Azure's paravisor; --tee forces one.

Without --report-data the evidence is over random bytes, which are printed: it
then proves what runs here, and nothing about a key or a session.`,
		Example: `  c8s attest collect --out evidence.cbor
  c8s attest collect --report-data 0123… --out - -o json
  c8s attest collect --collateral-dir /var/lib/c8s/collateral --out evidence.cbor`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return k.run(c) },
	}
	k.tee.Register(c)
	c.Flags().StringVar(&k.reportData, "report-data", "", "what the evidence is to be bound to, 128 hex digits (default: random)")
	c.Flags().StringVar(&k.out, "out", "", "file for the evidence, or - for standard output (required)")
	k.output.Register(c, "cbor", "json")
	return c
}

func (k *collectCommand) run(c *cobra.Command) error {
	if k.out == "" {
		return exit.Usage(errors.New("--out is required: a file for the evidence, or -"))
	}
	var data [64]byte
	if _, err := rand.Read(data[:]); err != nil {
		return err
	}
	if k.reportData != "" {
		b, err := hex.DecodeString(k.reportData)
		if err != nil || len(b) != len(data) {
			return exit.Usage(fmt.Errorf("--report-data must be %d hex digits", 2*len(data)))
		}
		copy(data[:], b)
	}
	log := slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
	att, _, err := k.tee.Attester(c.Context(), policy.Operators{}, log)
	if err != nil {
		return err
	}
	ev, err := att.Attest(c.Context(), data)
	if err != nil {
		return err
	}
	marshal := attest.MarshalCMW
	if k.output.JSON() {
		marshal = attest.MarshalCMWJSON
	}
	b, err := marshal(ev)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c.ErrOrStderr(), "report data: %x\n", data); err != nil {
		return err
	}
	if k.out == "-" {
		_, err = c.OutOrStdout().Write(b)
		return err
	}
	if err := os.WriteFile(k.out, b, 0o600); err != nil {
		return fmt.Errorf("writing the evidence: %w", err)
	}
	return nil
}
