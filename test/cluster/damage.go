// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/link"
)

// What only root on a node can do to its daemon's lock.

// Pins lists what the daemon has pinned, as paths below BPFFS.
func (n *Node) Pins() (found []string, err error) {
	err = filepath.WalkDir(filepath.Join(n.BPFFS, "c8s"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(n.BPFFS, path)
		found = append(found, name)
		return err
	})
	return found, err
}

// RemovePins removes pins, or folders of them; without names everything.
func (n *Node) RemovePins(names ...string) error {
	if len(names) == 0 {
		names = []string{"c8s"}
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, os.RemoveAll(filepath.Join(n.BPFFS, name)))
	}
	return errors.Join(errs...)
}

// Detach takes a pinned link off its hook.
func (n *Node) Detach(pin string) error {
	l, err := link.LoadPinnedLink(filepath.Join(n.BPFFS, pin), nil)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Detach()
}

// PowerOff is the end of the machine: no process, no pod and nothing in the
// kernel is left. State and descriptions of pods are on disk, and stay; Start
// boots it.
func (n *Node) PowerOff(ctx context.Context, pods ...*Pod) error {
	wire := func(state string) error {
		out, err := n.cluster.Lab.Wire.Command(ctx, "ip", "link", "set", n.Lab.WirePort, state).CombinedOutput()
		if err != nil {
			return fmt.Errorf("setting the wire of %s %s: %w: %s", n.Lab.Name, state, err, out)
		}
		return nil
	}
	errs := []error{wire("down"), n.Kill()}
	for _, p := range pods {
		errs = append(errs, n.Lab.RemovePod(p.Pod))
	}
	errs = append(errs, n.RemovePins())
	for _, command := range []string{
		"ip rule del pref 100", "ip -6 rule del pref 100", "ip route flush table 15008", "ip -6 route flush table 15008",
		"nft flush ruleset", "tc qdisc del dev eth0 clsact",
		// A machine that is off has no connections that somebody killed left.
		"ss -K -a -t", "ip neigh flush all",
	} {
		words := strings.Fields(command)
		// What was never there cannot be removed.
		_, _ = n.Lab.Command(ctx, words[0], words[1:]...).CombinedOutput()
	}
	left, err := n.Lab.Command(ctx, "ip", "rule", "list", "pref", "100").CombinedOutput()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("powering %s off: rules are left: %s", n.Lab.Name, left)
	}
	return errors.Join(append(errs, err, wire("up"))...)
}
