// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/host/ctrd"
)

// askWithin bounds each question to a running program.
const askWithin = 10 * time.Second

type checkFlags struct {
	layout     layoutFlags
	try        bool
	kernelOnly bool
	output     desk.Output
}

func newCheck() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check",
		Short: "Say which guarantees hold on this node, and what is missing for the others",
		Long: `Look at everything that C8s relies on: the kernel, containerd as it runs, its
configuration, the network configuration, the installed files and the daemon.

With --try it is proven by doing: a pod is started, and in it a container of an
image that no manifest lists and one of a listed image with another command.
Both must be refused; everything made for it is removed.

PASS holds, FAIL does not, UNKNOWN could not be looked at. The exit code is 1
if anything fails, 3 if nothing fails and something is unknown.`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	f.layout.register(c)
	fl := c.Flags()
	fl.BoolVar(&f.try, "try", false, "prove it by trying to start what must not start")
	fl.BoolVar(&f.kernelOnly, "kernel-only", false, "look at the kernel only: for a machine on which C8s is not installed")
	f.output.Register(c)
	return c
}

func (f *checkFlags) run(c *cobra.Command) error {
	all, err := f.findings(c.Context())
	if err != nil {
		return err
	}
	err = f.output.Write(c, all, func(w io.Writer) error { return write(w, all) })
	return errors.Join(err, verdict(all))
}

func (f *checkFlags) findings(ctx context.Context) ([]host.Finding, error) {
	all := kernel()
	if f.kernelOnly {
		return all, nil
	}
	node, err := f.layout.open()
	if err != nil {
		return nil, err
	}
	all = append(all, cgroup2(filepath.Join(f.layout.Root, "proc/self/mountinfo")))
	all = append(all, node.Verify()...)
	all = append(all, daemon(ctx, filepath.Join(f.layout.Root, f.layout.Gate())))
	client, err := ctrd.Dial(filepath.Join(f.layout.Root, f.layout.Containerd))
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	all = append(all, running(ctx, client)...)
	if f.try {
		all = append(all, f.trial(ctx, client)...)
	}
	return all, nil
}

// verdict turns the findings into the command's exit code.
func verdict(all []host.Finding) error {
	failed, unknown := 0, 0
	for _, f := range all {
		switch f.Result {
		case host.Pass:
		case host.Unknown:
			unknown++
		default:
			failed++
		}
	}
	switch {
	case failed > 0:
		return fmt.Errorf("%d of %d guarantees do not hold on this node", failed, len(all))
	case unknown > 0:
		return exit.Partly(fmt.Errorf("nothing fails, but %d of %d guarantees could not be looked at", unknown, len(all)))
	}
	return nil
}

func write(w io.Writer, all []host.Finding) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "RESULT\tGUARANTEE\tFOUND")
	for _, f := range all {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", f.Result, f.Name, f.Actual)
		if f.Result != host.Pass {
			fmt.Fprintf(tw, "\t\texpected: %s\n", f.Expected)
			if f.Remedy != "" {
				fmt.Fprintf(tw, "\t\tremedy: %s\n", f.Remedy)
			}
		}
	}
	return tw.Flush()
}
