// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/host"
)

// registerRunDir adds the flag by which a daemon and those who ask it find each
// other.
func registerRunDir(c *cobra.Command, to *string) {
	c.Flags().StringVar(to, "run-dir", host.RunDir, "folder of the daemon's admin socket")
	completeFolder(c, "run-dir")
}

func requireFlag(name, value string) error {
	if value == "" {
		return exit.Usage(fmt.Errorf("--%s is required", name))
	}
	return nil
}

// completeWith, completeFile and completeFolder have the shell complete flags.
// They fail for flags that are not there, which the tests of completion find.
func completeWith(c *cobra.Command, flag string, words ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

func completeFile(c *cobra.Command, ext string, flags ...string) {
	for _, flag := range flags {
		_ = c.MarkFlagFilename(flag, ext)
	}
}

func completeFolder(c *cobra.Command, flags ...string) {
	for _, flag := range flags {
		_ = c.MarkFlagDirname(flag)
	}
}
