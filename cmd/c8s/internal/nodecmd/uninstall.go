// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/host/ctrd"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/nri/gate"
)

type uninstallFlags struct {
	layout     layoutFlags
	restart    restartFlags
	kernel     Kernel
	kernelOnly bool
	yes        bool
}

func newUninstall(kernel Kernel) *cobra.Command {
	f := uninstallFlags{kernel: kernel}
	var level slog.Level
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Take C8s off this node: its files as they were, pods as ordinary pods",
		Long: `Give back every file that 'c8s node install' changed, then remove every program,
pin, rule, route and nftables table of c8s from the kernel.

Afterwards pods on this node talk in the clear, like on any other node. Stop
the node daemon first ('helm uninstall', where Kubernetes runs it): a running
one would put everything back, and is refused.

A file that somebody else changed since stays, and is told. Containers that
were started through c8s-runtime still need it to end, and so does a containerd
that was not restarted: until then the real runtime stands in its place.
Uninstall again later to remove that, too.`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if !f.yes {
				return exit.Usage(fmt.Errorf("this opens every pod on the node to the network; say --yes to do it"))
			}
			log := slog.New(slog.NewJSONHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return f.run(c.Context(), c.OutOrStdout(), log)
		},
	}
	f.layout.register(c)
	f.restart.register(c)
	kernel.Register(c)
	c.Flags().TextVar(&level, "log-level", slog.LevelInfo, "least severe level to log: debug, info, warn or error")
	c.Flags().BoolVar(&f.kernelOnly, "kernel-only", false, "leave the files alone: remove the lock only")
	c.Flags().BoolVar(&f.yes, "yes", false, "really unlock the node")
	return c
}

// run takes the configurations back before the lock: pods that are made in
// between are made without C8s, and work.
func (f *uninstallFlags) run(ctx context.Context, out io.Writer, log *slog.Logger) error {
	if err := f.stopped(ctx); err != nil {
		return err
	}
	if f.kernelOnly {
		return loader.Uninstall(f.kernel.Config(log))
	}
	node, err := f.layout.open()
	if err != nil {
		return err
	}
	config, err := node.RestoreConfig()
	if err != nil {
		return fmt.Errorf("%w; the kernel's lock stays (--kernel-only takes it off)", err)
	}
	var restartErr error
	if f.restart.do {
		restartErr = f.restart.restart(ctx, f.layout)
	}
	inUse, why := f.inUse(ctx, node)
	rest, err := node.Uninstall(inUse)
	if err != nil {
		return err
	}
	if err := loader.Uninstall(f.kernel.Config(log)); err != nil {
		return err
	}
	return f.report(out, config, rest, why, restartErr)
}

// stopped refuses while a daemon runs: it would chain c8s-cni and lock links
// again, and what it put back would stay when it ends.
func (f *uninstallFlags) stopped(ctx context.Context) error {
	socket := filepath.Join(f.layout.Root, f.layout.Gate())
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if err := (gate.Client{Path: socket, UID: uint32(os.Geteuid())}).Ping(ctx); errors.Is(err, gate.ErrNoDaemon) { //nolint:gosec // never negative on Linux
		return nil
	}
	return fmt.Errorf("uninstalling: the node daemon runs, at %s: it would put everything back. Stop it first: 'helm uninstall' where Kubernetes runs it", socket)
}

// inUse says whether anything still calls c8s-runtime by its path, and what.
// Where that cannot be found out, it may: better one file too many.
func (f *uninstallFlags) inUse(ctx context.Context, node *host.Node) (bool, string) {
	count, err := node.StartedThrough()
	if err != nil {
		return true, err.Error()
	}
	if count > 0 {
		return true, fmt.Sprintf("%d running containers were started through it", count)
	}
	client, err := ctrd.Dial(filepath.Join(f.layout.Root, f.layout.Containerd))
	if err != nil {
		return true, err.Error()
	}
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	inForce, err := client.InForce(ctx)
	if ctrd.NobodyListens(err) {
		return false, "" // it will read its configuration when it starts
	}
	if err != nil {
		return true, err.Error()
	}
	for name, program := range inForce.Runtimes {
		if program == host.RuntimeProg {
			return true, fmt.Sprintf("containerd still starts its runtime %s through it; %s", name, remedyRestart)
		}
	}
	return false, ""
}

func (f *uninstallFlags) report(out io.Writer, config, rest *host.Report, why string, restartErr error) error {
	restored := len(config.Restored) + len(rest.Restored)
	_, err := fmt.Fprintf(out, "%d files are as they were before; the kernel is free of C8s\n", restored)
	changed := append(config.Changed, rest.Changed...)
	for _, line := range changed {
		_, more := fmt.Fprintln(out, line)
		err = errors.Join(err, more)
	}
	if rest.InUse {
		_, more := fmt.Fprintf(out, "%s is the real runtime now, not C8s, and has to stay for a while: %s. Uninstall again later to remove it\n", host.RuntimeProg, why)
		err = errors.Join(err, more)
	}
	if restartErr != nil {
		return errors.Join(err, fmt.Errorf("C8s is off the node's files, and containerd still runs with it: %w; %s", restartErr, remedyRestart))
	}
	if len(changed) > 0 {
		return errors.Join(err, exit.Partly(fmt.Errorf("%d files had been changed by others and are not what they were", len(changed))))
	}
	return err
}
