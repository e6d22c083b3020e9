// SPDX-License-Identifier: Apache-2.0

// Package memlimit finds how much memory this process may have, and keeps this
// invariant: what it cannot read limits nothing, and of several limits the
// lowest counts.
package memlimit

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// Of returns the lowest of soft, the runtime's own limit (debug.SetMemoryLimit),
// and those of the process's cgroup and the ones above it; math.MaxInt64 where
// there is none. root is the file system's root.
func Of(root fs.FS, soft int64) int64 {
	limit := int64(math.MaxInt64)
	if soft > 0 {
		limit = soft
	}
	for dir := cgroup(root); ; dir = path.Dir(dir) {
		text, err := fs.ReadFile(root, path.Join("sys/fs/cgroup", dir, "memory.max"))
		if err == nil {
			// "max" is no number, and no limit.
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
				limit = min(limit, n)
			}
		}
		if dir == "/" {
			return limit
		}
	}
}

// cgroup is the process's in the cgroup2 hierarchy, as its cgroup namespace
// shows it.
func cgroup(root fs.FS) string {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return "/"
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "0::"); ok {
			return path.Clean("/" + strings.TrimSpace(name))
		}
	}
	return "/"
}
