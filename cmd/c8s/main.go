// SPDX-License-Identifier: Apache-2.0

// Command c8s runs and inspects confidential Kubernetes: the node daemon, the
// certificate distribution service, and the tools around the signed manifest.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	_ "golang.org/x/crypto/x509roots/fallback" // roots for the vendors' servers: the image has no file of them

	"github.com/c8s-dev/c8s/cmd/c8s/internal/attestcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/clientcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/collateralcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/demo"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/denylistcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/logcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/manifestcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/measurecmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil || (errors.Is(err, context.Canceled) && ctx.Err() != nil) {
		return exit.OK
	}
	fmt.Fprintln(os.Stderr, "c8s:", err)
	return exit.Code(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "c8s",
		Short: "Confidential Kubernetes: attested, locked pod networking",
		Long: `c8s keeps pods inside an attested mesh.

-o is the format of what a command prints (--output); where its result is a
document, the file for that (--out). A command with both has -o for the format.

Exit codes: 0 success, 1 refused or failed, 2 wrong usage, 3 nothing refuted but
not everything proven. A command's own help says what they mean there.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          desk.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(desk.FlagError)
	addGroup(root, "For end users of an attested service:", clientcmd.Commands()...)
	addGroup(root, "For operators, who sign what is allowed:", manifestcmd.New(), denylistcmd.New(), measurecmd.New())
	addGroup(root, "To look and to check:", newStatus(), newFlows(), logcmd.New(), attestcmd.New(), collateralcmd.New())
	addGroup(root, "The daemons:", newNode(), newIngress(), newCDS())
	root.AddCommand(demo.New(), newVersion())
	root.InitDefaultHelpCmd()
	helpOfKnownCommands(root)
	return root
}

// helpOfKnownCommands has 'c8s help' refuse words that are no command.
func helpOfKnownCommands(root *cobra.Command) {
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		return // cobra has none
	}
	help.Args = func(_ *cobra.Command, args []string) error {
		of, rest, err := root.Find(args)
		if err != nil || !of.HasAvailableSubCommands() {
			return err
		}
		return desk.NoArgs(of, rest)
	}
}

// addGroup adds commands that the help shows together.
func addGroup(root *cobra.Command, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: title, Title: title})
	for _, c := range commands {
		c.GroupID = title
	}
	root.AddCommand(commands...)
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary",
		Args:  desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(c.OutOrStdout(), "c8s", version.String())
			return err
		},
	}
}

// logFlags are the logging flags every daemon has.
type logFlags struct{ level slog.Level }

func (f *logFlags) register(c *cobra.Command) {
	c.Flags().TextVar(&f.level, "log-level", slog.LevelInfo, "least severe `level` to log: debug, info, warn or error")
	completeWith(c, "log-level", "debug", "info", "warn", "error")
}

// logger writes JSON lines to standard error.
func (f *logFlags) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: f.level}))
}
