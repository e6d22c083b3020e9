// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fsnotify/fsnotify"
)

// lookAgain bounds how long a missed event, or a folder that was not there yet,
// leaves a network configuration without c8s-cni.
const lookAgain = 30 * time.Second

// WatchConflist keeps c8s-cni at the end of the network configuration, since
// some network plugins write theirs anew when they start. It ends with ctx.
// A pod that is made in between is locked by the daemon's watch of links.
func (n *Node) WatchConflist(ctx context.Context, log *slog.Logger) error {
	_, dir, err := n.planChain()
	if err != nil {
		return fmt.Errorf("watching the network configuration: %w", err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the network configuration: %w", err)
	}
	defer func() { _ = w.Close() }()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var last string
	for {
		// Watched before it is looked at, so that nothing falls in between.
		// Adding a folder again is no error; one that was made anew needs it.
		watched, err := n.resolve(dir)
		if err == nil {
			err = w.Add(watched)
		}
		changed, chainErr := n.Rechain()
		if changed {
			log.Info("c8s-cni chained again: the network configuration had changed", "folder", dir)
		}
		// Said once, and again when it is something else.
		if err = errors.Join(err, chainErr); err != nil && err.Error() != last {
			log.Warn("pods may start before their link is locked by c8s-cni", "folder", dir, "error", err)
		}
		if last = ""; err != nil {
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-w.Events:
		case err := <-w.Errors:
			log.Warn("watching the network configuration", "folder", dir, "error", err)
		}
	}
}

// resolve finds a folder of the node as this process sees it.
func (n *Node) resolve(dir string) (string, error) {
	return node{trimRoot(n.Root)}.resolve(dir)
}
