// SPDX-License-Identifier: Apache-2.0

// Package demo shows the whole system at work on one machine and fails when
// any claim it makes does not hold.
//
// Invariant: every line it prints as proven was observed in this very run: a
// counter that moved, a certificate that was seen, bytes that were or were
// not on the wire.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/test/cluster"
)

// New returns the demo command, with the small programs it runs inside pods.
func New() *cobra.Command {
	var verbose bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show locked pods on two nodes talking over attested TLS, and everything else refused",
		Long: `Build two nodes, a CDS and several pods out of network namespaces on this
machine, run unmodified programs in the pods, and check what the system
promises: who talked to whom, what the wire saw, what the kernel refused, that
killing the daemon opens nothing, what an end user outside can verify, that the operators can take back at once what
they allowed, and that a killed CDS comes back as what it was.

The TEE is SIMULATED; kernel programs, TLS, certificates, the manifest and the
verification of evidence are the real ones. Everything is removed at the end,
also after Ctrl-C. Needs root. Exits 1 when any proof fails.`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("the demo makes network namespaces and loads kernel programs: run it as root (sudo make demo)")
			}
			log := slog.New(slog.DiscardHandler)
			if verbose {
				log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug}))
			}
			return run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), log)
		},
	}
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "log what the lab does")
	c.AddCommand(newServe())
	return c
}

// run builds the cluster, goes through the acts and prints the table.
func run(ctx context.Context, out, progress io.Writer, log *slog.Logger) error {
	began := time.Now()
	step := func(format string, args ...any) {
		fmt.Fprintf(progress, "[%5.1fs] %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	cast, err := findCast(binary)
	if err != nil {
		return err
	}
	step("building two nodes, a CDS and hosts next door out of network namespaces")
	c, err := cluster.New(ctx, cluster.Options{
		Binary: binary, Name: "demo", Nodes: []string{"node-a", "node-b"}, Outside: []string{"next-door", "edge"},
		Workloads: cast.workloads(), Ingress: ingressRules(), Log: log,
	})
	if err != nil {
		return fmt.Errorf("building the cluster: %w", err)
	}
	s := &stage{Cluster: c, cast: cast, step: step, report: &report{}}
	playErr := s.play(ctx)
	step("cleaning up")
	closeErr := c.Close()
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), closeErr)
	}
	s.report.print(out)
	switch failed := s.report.failed(); {
	case playErr != nil:
		return errors.Join(playErr, closeErr)
	case failed > 0:
		return fmt.Errorf("%d of %d proofs failed", failed, len(s.report.proofs))
	case closeErr != nil:
		return fmt.Errorf("cleaning up: %w", closeErr)
	}
	fmt.Fprintf(out, "\nAll %d proofs hold. Took %.0f s; nothing was left behind.\n", len(s.report.proofs), time.Since(began).Seconds())
	return nil
}
