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
	through, _, err := n.started()
	return through, err
}

// started counts the running containers, pods' sandboxes included, that
// c8s-runtime started, and the others.
func (n *Node) started() (through, past int, err error) {
	r, err := readRecord(n.disk)
	if err != nil {
		return 0, 0, fmt.Errorf("counting containers: %w", err)
	}
	ctrd, err := (&Plan{record: r}).readContainerd(n.disk, n.Layout)
	if err != nil {
		return 0, 0, fmt.Errorf("counting containers: %w", err)
	}
	dir, err := n.resolve(filepath.Join(ctrd.state, bundles))
	if err != nil {
		return 0, 0, fmt.Errorf("counting containers: %w", err)
	}
	containers, err := filepath.Glob(filepath.Join(dir, "*", "*")) // namespace, container
	if err != nil {
		return 0, 0, fmt.Errorf("counting containers: %w", err)
	}
	for _, c := range containers {
		text, err := os.ReadFile(filepath.Join(c, "runtime"))
		switch {
		case os.IsNotExist(err):
			// It has just ended, or is only being made.
		case err != nil:
			return 0, 0, fmt.Errorf("counting containers: %w", err)
		case strings.TrimSpace(string(text)) == RuntimeProg:
			through++
		default:
			past++
		}
	}
	return through, past, nil
}

// verifyStarted: containerd runs what belongs to a pod by the runtime with which
// it made the pod, for as long as that lives. What c8s-runtime does not stand in
// front of is not asked about when a process is added to it.
func (n *Node) verifyStarted() Finding {
	const name, expected, remedy = "containers as they run", "all started by " + RuntimeProg, "delete the pods that were made before containerd read its configuration, those of C8s too; their controllers make them anew"
	_, past, err := n.started()
	if err != nil {
		return Undecided(name, expected, err, remedy)
	}
	actual := "they are"
	if past > 0 {
		actual = fmt.Sprintf("%d that are not, to which processes can be added unasked", past)
	}
	return Judge(name, past == 0, expected, actual, remedy)
}
