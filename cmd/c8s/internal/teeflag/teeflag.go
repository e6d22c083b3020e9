// SPDX-License-Identifier: Apache-2.0

// Package teeflag gives every command that needs evidence of this machine the
// same flags.
package teeflag

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/acquire"
	"github.com/c8s-dev/c8s/attest/collateral"
	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

const kindSim = "sim"

// staplePatience is how long evidence waits for collateral that is not kept yet.
const staplePatience = 20 * time.Second

// Flags choose where evidence comes from, and what is put beside it.
type Flags struct {
	kind       string
	simDir     string
	Machine    string // name of the simulated machine; the host name when empty
	collateral string
}

// Register adds the flags to a command.
func (f *Flags) Register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.kind, "tee", acquire.MethodAuto, "where evidence comes from: "+strings.Join(acquire.Methods(), ", ")+" (of this machine) or sim (SIMULATED, for development)")
	_ = c.RegisterFlagCompletionFunc("tee", cobra.FixedCompletions(append(acquire.Methods(), kindSim), cobra.ShellCompDirectiveNoFileComp))
	fl.StringVar(&f.simDir, "sim-dir", "", "with --tee=sim: folder that holds the simulated vendor's root")
	fl.StringVar(&f.Machine, "sim-machine", "", "with --tee=sim: name of the simulated machine (default: host name)")
	fl.StringVar(&f.collateral, "collateral-dir", "", "folder that keeps the vendor's collateral: evidence is completed from it, and it from the vendor's servers (see 'c8s collateral fetch')")
}

// Attester opens the TEE and says whether it is a simulated one. The operators'
// digest is what a real launch puts in HOST_DATA, so that evidence says which
// operators this machine obeys.
func (f *Flags) Attester(ctx context.Context, ops policy.Operators, log *slog.Logger) (attest.Attester, bool, error) {
	if f.kind == kindSim {
		if f.simDir == "" {
			return nil, false, exit.Usage(fmt.Errorf("--tee=sim needs --sim-dir"))
		}
		log.Warn("evidence is SIMULATED: it proves nothing to anybody else", "root", f.simDir)
		att, err := devtee.Open(devtee.Options{Dir: f.simDir, Machine: f.Machine, Operators: ops})
		return att, true, err
	}
	if f.simDir != "" {
		return nil, false, exit.Usage(fmt.Errorf("--sim-dir goes with --tee=sim"))
	}
	att, err := acquire.Open(ctx, acquire.Options{Method: f.kind})
	if err != nil || f.collateral == "" {
		return att, false, err
	}
	store, err := f.store(log)
	if err != nil {
		return nil, false, err
	}
	return &collateral.Stapler{Attester: att, Source: store, Patience: staplePatience, Now: time.Now, Log: log}, false, nil
}

func (f *Flags) store(log *slog.Logger) (*collateral.Store, error) {
	fetcher, err := collateral.NewFetcher(collateral.DefaultFetcherConfig())
	if err != nil {
		return nil, err
	}
	config := collateral.DefaultStoreConfig(fetcher, log)
	config.Dir = f.collateral
	return collateral.NewStore(config)
}
