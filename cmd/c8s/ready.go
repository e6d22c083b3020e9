// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/envflag"
)

func newNodeReady() *cobra.Command {
	var runDir, instance string
	c := &cobra.Command{
		Use:   "ready",
		Short: "Say by the exit code whether the node daemon owns the node and can take pods",
		Long: `Ask the daemon that owns this node whether it can take pods.

While a new daemon prepares to take over, the running one answers at every
address of the node. With --instance, only the daemon of that name counts: it
is ready once it has taken over. That is what a readiness probe of Kubernetes
asks.

Flags may come from the daemon's environment: C8S_FLAG_INSTANCE is --instance.

Exit codes: 0 ready, 1 not ready, which is said, 2 wrong usage.`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := envflag.ApplyOwn(c, os.Environ()); err != nil {
				return err
			}
			s, err := agent.NewClient(runDir).Status(c.Context())
			switch {
			case err != nil:
				return err
			case instance != "" && s.Node.Instance != instance:
				return fmt.Errorf("the node belongs to the daemon %q, not to %q", s.Node.Instance, instance)
			case s.Node.NotReady != "":
				return errors.New(s.Node.NotReady)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "ready")
			return err
		},
	}
	registerRunDir(c, &runDir)
	c.Flags().StringVar(&instance, "instance", "", "name of the daemon that must answer")
	return c
}
