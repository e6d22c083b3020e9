// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A hierarchy of cgroups. Machines have one of version 2, some of version 1,
// or both; a node gets a cgroup in each of them, or two kubelets would meet in
// the one that was left out and clean up each other's pods.
type hierarchy struct {
	mount   string // where the machine has it
	unified bool   // version 2
	options string // mount options that select it: "cpu,cpuacct", "none,name=systemd"
}

// hierarchies lists what the machine has mounted, the unified one first.
func hierarchies() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the machine's mounts: %w", err)
	}
	controllers, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's cgroup controllers: %w", err)
	}
	found := parseHierarchies(string(mounts), string(controllers))
	if len(found) == 0 || !found[0].unified {
		return nil, errors.New("no cgroup2 is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
	}
	return found, nil
}

func parseHierarchies(mountinfo, proccgroups string) []hierarchy {
	known := map[string]bool{}
	for line := range strings.Lines(proccgroups) {
		if name, _, ok := strings.Cut(line, "\t"); ok && !strings.HasPrefix(name, "#") {
			known[name] = true
		}
	}
	var found []hierarchy
	seen := map[string]bool{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 || left[3] != "/" {
			continue
		}
		h := hierarchy{mount: left[4], unified: right[0] == "cgroup2"}
		if !h.unified && right[0] != "cgroup" {
			continue
		}
		if !h.unified {
			h.options = selectors(right[2], known)
		}
		if !seen[h.options] {
			seen[h.options] = true
			found = append(found, h)
		}
	}
	slices.SortStableFunc(found, func(a, b hierarchy) int {
		switch {
		case a.unified == b.unified:
			return 0
		case a.unified:
			return -1
		}
		return 1
	})
	return found
}

// selectors keeps the mount options that say which hierarchy it is.
func selectors(super string, controllers map[string]bool) string {
	var keep []string
	for _, option := range strings.Split(super, ",") {
		if strings.HasPrefix(option, "name=") {
			keep = append(keep, "none", option)
		} else if controllers[option] {
			keep = append(keep, option)
		}
	}
	return strings.Join(keep, ",")
}

// cgroups are a node's, one in each hierarchy.
type cgroups struct {
	name string
	all  []hierarchy
}

func newCgroups(name string) (*cgroups, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	c := &cgroups{name: name, all: all}
	for _, h := range all {
		if err := h.make(name, len(all) == 1); err != nil {
			return nil, errors.Join(fmt.Errorf("making a cgroup in %s: %w", h.mount, err), c.remove(context.Background()))
		}
	}
	return c, nil
}

func (h hierarchy) make(name string, only bool) error {
	if only {
		// A child has the controllers that its parent hands down.
		names, err := os.ReadFile(filepath.Join(h.mount, "cgroup.controllers"))
		if err != nil {
			return err
		}
		for _, c := range strings.Fields(string(names)) {
			if err := os.WriteFile(filepath.Join(h.mount, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
				return fmt.Errorf("handing down %s: %w", c, err)
			}
		}
	}
	if err := os.Mkdir(filepath.Join(h.mount, name), 0o755); err != nil {
		return err
	}
	if !slices.Contains(strings.Split(h.options, ","), "cpuset") {
		return nil
	}
	// Version 1 starts with none, and nothing can run in that.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		all, err := os.ReadFile(filepath.Join(h.mount, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(h.mount, name, file), all, 0); err != nil {
			return err
		}
	}
	return nil
}

// unified is the node's cgroup of version 2: all its processes are below.
func (c *cgroups) unified() string { return filepath.Join(c.all[0].mount, c.name) }

// kill ends every process of the node and waits until they are gone.
func (c *cgroups) kill(ctx context.Context) error {
	err := os.WriteFile(filepath.Join(c.unified(), "cgroup.kill"), []byte("1"), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("killing all of %s: %w", c.name, err)
	}
	return Poll(ctx, "the processes of "+c.name+" to end", func(context.Context) error {
		events, err := os.ReadFile(filepath.Join(c.unified(), "cgroup.events"))
		if err != nil {
			return err
		}
		if !strings.Contains(string(events), "populated 0") {
			return errors.New("some are left")
		}
		return nil
	})
}

// remove deletes the node's cgroups, whose processes are dead. They stay busy
// until those are reaped.
func (c *cgroups) remove(ctx context.Context) error {
	var errs []error
	for _, h := range c.all {
		top := filepath.Join(h.mount, c.name)
		errs = append(errs, Poll(ctx, "the cgroup "+top+" to be removed", func(context.Context) error { return removeCgroup(top) }))
	}
	return errors.Join(errs...)
}

func removeCgroup(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Reverse(dirs) // children before their parents
	for _, dir := range dirs {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("removing %s: %w", dir, err)
		}
	}
	return nil
}
