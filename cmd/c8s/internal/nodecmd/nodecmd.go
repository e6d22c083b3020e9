// SPDX-License-Identifier: Apache-2.0

// Package nodecmd are the commands that put C8s onto a node, take it off and
// prove that it holds there. Every one of them says what it found or changed;
// none of them calls a node safe that it could not look at.
package nodecmd

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/loader"
)

// Kernel is the daemon's own flags for what it puts into the kernel.
type Kernel struct {
	Register func(*cobra.Command)
	Config   func(*slog.Logger) loader.Config
}

// New returns the commands.
func New(kernel func() Kernel) []*cobra.Command {
	return []*cobra.Command{newInstall(), newUninstall(kernel()), newCheck()}
}

// layoutFlags say where things are on the node.
type layoutFlags struct{ host.Layout }

func (f *layoutFlags) register(c *cobra.Command) {
	f.Layout = host.DefaultLayout()
	fl := c.Flags()
	fl.StringVar(&f.Root, "host-root", f.Root, "where the node's root is: / on the node itself, the mounted folder in a pod")
	fl.StringVar(&f.ContainerdConfig, "containerd-config", f.ContainerdConfig, "containerd's main configuration")
	fl.StringVar(&f.Containerd, "containerd-socket", f.Containerd, "containerd's socket")
	fl.StringVar(&f.CNIConf, "cni-conf-dir", "", "folder of network configurations (default: as containerd's configuration says)")
	fl.StringVar(&f.CNIBin, "cni-bin-dir", "", "folder of network plugins (default: as containerd's configuration says)")
	fl.StringVar(&f.RunDir, "run-dir", f.RunDir, "run folder of the node daemon")
}

func (f *layoutFlags) open() (*host.Node, error) { return host.Open(f.Layout) }
