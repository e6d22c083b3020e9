// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// bundles is where containerd keeps what it started, below its state folder.
const bundles = "io.containerd.runtime.v2.task"

// StartedThrough counts the running containers that c8s-runtime started. Their
// shims go on calling it by its path: to kill, to delete.
func (n *Node) StartedThrough() (int, error) {
	r, err := readRecord(n.disk)
	if err != nil {
		return 0, fmt.Errorf("counting containers: %w", err)
	}
	ctrd, err := (&Plan{record: r}).readContainerd(n.disk, n.Layout)
	if err != nil {
		return 0, fmt.Errorf("counting containers: %w", err)
	}
	dir, err := n.resolve(filepath.Join(ctrd.state, bundles))
	if err != nil {
		return 0, fmt.Errorf("counting containers: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "*", "runtime")) // namespace, container
	if err != nil {
		return 0, fmt.Errorf("counting containers: %w", err)
	}
	count := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if os.IsNotExist(err) {
			continue // it has just ended
		}
		if err != nil {
			return 0, fmt.Errorf("counting containers: %w", err)
		}
		if strings.TrimSpace(string(text)) == RuntimeProg {
			count++
		}
	}
	return count, nil
}
