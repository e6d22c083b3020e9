// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/c8s-dev/c8s/test/stack/component"
	"github.com/c8s-dev/c8s/test/stack/image"
)

//go:embed containerd.toml
var containerdConfig []byte

// Which containerd a node has, NodeConfig.Containerd.
const (
	ContainerdStock = component.Containerd // as released
	// ContainerdNRI5 is the same with NRI 0.12.5, which knows FailurePolicy.
	ContainerdNRI5 = component.ContainerdNRI
)

const (
	// ContainerdSocket is where the node has it.
	ContainerdSocket = "/run/containerd/containerd.sock"
	// NRISocket is where NRI plugins connect.
	NRISocket = "/run/nri/nri.sock"

	containerdD = "/etc/containerd/conf.d"
)

// install puts containerd, runc, the CNI plugins and their configuration
// where distributions have them.
func (n *Node) install(ctx context.Context) error {
	folders, err := component.Folders(ctx, n.cfg.Containerd, component.Runc, component.CNI)
	if err != nil {
		return err
	}
	err = errors.Join(
		n.linkAll(folders[0], "/usr/local/bin"),
		n.linkAll(folders[1], "/usr/local/sbin"),
		n.linkAll(folders[2], "/opt/cni/bin"),
		n.WriteFile("/etc/containerd/config.toml", containerdConfig, 0o644),
	)
	if n.cfg.RuntimeBinary != "" {
		// Named so that a test's own drop-ins can come after it.
		err = errors.Join(err, n.WriteFile(containerdD+"/00-runtime.toml", fmt.Appendf(nil, `version = 4
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '%s'
`, n.cfg.RuntimeBinary), 0o644))
	}
	for name, text := range n.cfg.ExtraConfig {
		err = errors.Join(err, n.WriteFile(filepath.Join(containerdD, name), []byte(text), 0o644))
	}
	if n.cfg.CNI != CNINone {
		conf, err2 := conflist(n.cfg.CNI, n.PodCIDRs())
		err = errors.Join(err, err2, n.WriteFile(CNIConfig, conf, 0o644))
	}
	if err != nil {
		return fmt.Errorf("installing containerd: %w", err)
	}
	return nil
}

// linkAll links the programs of a folder of the machine into one of the node.
func (n *Node) linkAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.Path(to), 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join(from, e.Name()), n.Path(filepath.Join(to, e.Name()))); err != nil {
			return err
		}
	}
	return nil
}

// StartContainerd starts containerd, which must not run, and waits until it
// can run pods. NewNode has done so.
func (n *Node) StartContainerd(ctx context.Context) error {
	_, err := n.Start(ctx, Daemon{
		Name:  "containerd",
		Args:  []string{"containerd"},
		Ready: n.containerdReady,
	})
	return err
}

func (n *Node) containerdReady(ctx context.Context) error {
	c, err := n.CRI()
	if err != nil {
		return err
	}
	return c.ready(ctx)
}

// StopContainerd ends containerd and leaves pods running, as a stop of its
// service does.
func (n *Node) StopContainerd(ctx context.Context) error { return n.Containerd().Stop(ctx) }

// RestartContainerd makes containerd read its configuration again.
func (n *Node) RestartContainerd(ctx context.Context) error {
	if err := n.StopContainerd(ctx); err != nil {
		return err
	}
	return n.StartContainerd(ctx)
}

// Containerd is the node's containerd.
func (n *Node) Containerd() *Process { return n.Process("containerd") }

// Import makes an image known to containerd, under its reference.
func (n *Node) Import(ctx context.Context, images ...*image.Image) error {
	for _, img := range images {
		file := filepath.Join(n.scratch.dir, "image.tar")
		if err := img.Write(file); err != nil {
			return err
		}
		if _, err := n.Run(ctx, "ctr", "--namespace", "k8s.io", "images", "import", file); err != nil {
			return fmt.Errorf("importing %s: %w", img.Ref, err)
		}
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return nil
}
