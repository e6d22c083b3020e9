// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/host/ctrd"
)

const (
	restartWithin = 2 * time.Minute
	remedyRestart = "restart containerd on the node: 'systemctl restart containerd', or as your distribution does it; running pods go on"
)

var errNoSystemd = errors.New("there is no systemd on the node")

// restartFlags are for the commands after which containerd must read its
// configuration again.
type restartFlags struct {
	do   bool
	unit string
}

func (f *restartFlags) register(c *cobra.Command) {
	c.Flags().BoolVar(&f.do, "restart-containerd", false, "restart containerd by the node's systemd; running pods go on")
	c.Flags().StringVar(&f.unit, "containerd-unit", "containerd.service", "containerd's unit in systemd")
}

// restart has the node's systemd restart containerd, and waits for containerd
// to answer. From a pod it goes through the node's own nsenter, so the pod needs
// the node's /proc below its root, and CAP_SYS_ADMIN.
func (f *restartFlags) restart(ctx context.Context, l layoutFlags) error {
	ctx, cancel := context.WithTimeout(ctx, restartWithin)
	defer cancel()
	// As sd_booted(3) finds out.
	if _, err := os.Lstat(filepath.Join(l.Root, "run/systemd/system")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restarting containerd: %w", errNoSystemd)
	} else if err != nil {
		return fmt.Errorf("restarting containerd: %w", err)
	}
	c := exec.CommandContext(ctx, "systemctl", "restart", f.unit)
	if filepath.Clean(l.Root) != "/" {
		c = exec.CommandContext(ctx, "/usr/bin/nsenter", "--target", "1", "--mount", "--", "systemctl", "restart", f.unit)
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Chroot: l.Root}
	}
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("restarting containerd: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return f.answers(ctx, l)
}

// answers waits until the restarted containerd does.
func (f *restartFlags) answers(ctx context.Context, l layoutFlags) error {
	client, err := ctrd.Dial(filepath.Join(l.Root, l.Containerd))
	if err != nil {
		return fmt.Errorf("restarting containerd: %w", err)
	}
	defer func() { _ = client.Close() }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := client.Version(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("restarting containerd: it does not answer: %w", err)
		case <-tick.C:
		}
	}
}
