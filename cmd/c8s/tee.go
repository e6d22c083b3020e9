// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// teeFlags choose where evidence comes from.
type teeFlags struct {
	kind    string
	simDir  string
	machine string
}

func (f *teeFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.kind, "tee", "auto", "where evidence comes from: auto (this machine's SEV-SNP) or sim (SIMULATED, for development)")
	c.Flags().StringVar(&f.simDir, "sim-dir", "", "with --tee=sim: folder that holds the simulated vendor's root")
	c.Flags().StringVar(&f.machine, "sim-machine", "", "with --tee=sim: name of the simulated machine (default: host name)")
}

// attester opens the TEE. The operators' digest is what a real launch puts in
// HOST_DATA, so that evidence says which operators this machine obeys.
func (f *teeFlags) attester(_ context.Context, ops policy.Operators, log *slog.Logger) (attest.Attester, bool, error) {
	switch f.kind {
	case "auto":
		att, err := tsm.Open()
		return att, false, err
	case "sim":
		if f.simDir == "" {
			return nil, false, exit.Usage(fmt.Errorf("--tee=sim needs --sim-dir"))
		}
		log.Warn("evidence is SIMULATED: it proves nothing to anybody else", "root", f.simDir)
		att, err := devtee.Open(devtee.Options{Dir: f.simDir, Machine: f.machine, Operators: ops})
		return att, true, err
	default:
		return nil, false, exit.Usage(fmt.Errorf("--tee must be auto or sim, not %q", f.kind))
	}
}
