// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroups is the cgroup2 hierarchy as this process sees it. On hybrid nodes it
// lies beside the older hierarchies and not at /sys/fs/cgroup.
type cgroups struct {
	dir string // where its root is mounted
	id  uint64 // of its root
}

// findCgroups finds where the process's cgroup2 root is mounted. Mounts that
// show another part of the hierarchy do not count: paths of processes and
// pods would not fit them.
func findCgroups() (cgroups, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return cgroups{}, fmt.Errorf("finding the cgroup2 mount: %w", err)
	}
	defer f.Close()
	dirs, err := cgroupMounts(f)
	if err != nil {
		return cgroups{}, fmt.Errorf("finding the cgroup2 mount: %w", err)
	}
	for _, dir := range dirs {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue // something else is mounted over it
		}
		id, err := cgroupID(dir)
		if err != nil {
			return cgroups{}, fmt.Errorf("finding the cgroup2 mount: %w", err)
		}
		return cgroups{dir, id}, nil
	}
	return cgroups{}, errors.New("finding the cgroup2 mount: none shows this process's root (mount -t cgroup2; in a container use the node's cgroup namespace: privileged, /sys/fs/cgroup of the node)")
}

// cgroupMounts lists the mount points of the cgroup2 root in the format of
// /proc/<pid>/mountinfo (proc_pid_mountinfo(5)).
func cgroupMounts(mountinfo io.Reader) (dirs []string, err error) {
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		dash := slices.Index(fields, "-")
		if dash < 6 || dash+1 >= len(fields) || fields[dash+1] != "cgroup2" || fields[3] != "/" {
			continue
		}
		dirs = append(dirs, unescape(fields[4]))
	}
	return dirs, lines.Err()
}

// unescape replaces the octal escapes that the kernel writes for white space
// and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// cgroupOf is the path of a process's cgroup in the cgroup2 hierarchy; proc
// is its folder below /proc.
func cgroupOf(proc string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(proc, "cgroup"))
	if err != nil {
		return "", fmt.Errorf("reading the cgroup: %w", err)
	}
	for line := range strings.Lines(string(raw)) {
		if found, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return found, nil
		}
	}
	return "", fmt.Errorf("reading the cgroup: %s has none in the cgroup2 hierarchy", proc)
}

// lookup is the id of the cgroup at a path of the hierarchy, and its folder.
// The root is refused: every process of the node is below it.
func (c cgroups) lookup(cgroup string) (id uint64, dir string, err error) {
	if !strings.HasPrefix(cgroup, "/") || slices.Contains(strings.Split(cgroup, "/"), "..") {
		return 0, "", fmt.Errorf("the cgroup %q is not below this process's root of the hierarchy", cgroup)
	}
	dir = filepath.Join(c.dir, cgroup)
	if id, err = cgroupID(dir); err != nil {
		return 0, "", err
	}
	if id == c.id {
		return 0, "", errors.New("it is the root of the cgroups, to which every process of the node belongs")
	}
	return id, dir, nil
}

// cgroupID is the number the kernel's helpers know a cgroup by: since 5.5 the
// inode of its folder. It is never used again.
func cgroupID(dir string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, fmt.Errorf("identifying the cgroup %s: %w", dir, err)
	}
	return st.Ino, nil
}

// holds tells whether a process's cgroup is dir or below it.
func (c cgroups) holds(dir, proc string) (bool, error) {
	own, err := cgroupOf(proc)
	if err != nil {
		return false, err
	}
	own = filepath.Join(c.dir, own)
	return own == dir || strings.HasPrefix(own, dir+"/"), nil
}

// slicePath turns systemd's name of a slice, as runtimes get it for a pod's
// cgroup, into its path: systemd.slice(5). Other names stay as they are.
func slicePath(name string) string {
	stem, ok := strings.CutSuffix(name, ".slice")
	if !ok || strings.Contains(name, "/") {
		return name
	}
	p, prefix := "/", ""
	for part := range strings.SplitSeq(stem, "-") {
		prefix += part
		p = path.Join(p, prefix+".slice")
		prefix += "-"
	}
	return p
}
