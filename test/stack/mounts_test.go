// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/privileged"
)

// Other tests make and remove namespaces while nodes come up: a node neither
// stumbles over them nor keeps them alive.
func TestNodeBesideChangingMounts(t *testing.T) {
	privileged.Require(t)
	dir := filepath.Join("/run", fmt.Sprintf("%smounts-%d", prefix, os.Getpid()))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		left, _ := os.ReadDir(dir)
		for _, e := range left {
			_ = unix.Unmount(filepath.Join(dir, e.Name()), unix.MNT_DETACH)
		}
		_ = os.RemoveAll(dir)
	})
	mount := func(name string) error {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err
		}
		return unix.Mount("/proc/self/ns/net", path, "", unix.MS_BIND, "")
	}
	if err := mount("stays"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var changing errgroup.Group
	changing.Go(func() error {
		for {
			// So many that some go between being listed and unmounted.
			for i := range 100 {
				if err := mount(fmt.Sprint("goes", i)); err != nil {
					return err
				}
			}
			for i := range 100 {
				// Removing the file unmounts it in all namespaces.
				path := filepath.Join(dir, fmt.Sprint("goes", i))
				if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
					return err
				}
			}
			select {
			case <-done:
				return nil
			default:
			}
		}
	})
	var nodes errgroup.Group
	for range 4 {
		nodes.Go(func() error {
			n, err := Up(t.Context(), NodeConfig{NoContainerd: true})
			if err != nil {
				return err
			}
			defer n.Close()
			mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", n.Pid()))
			if err != nil {
				return err
			}
			if strings.Contains(string(mounts), dir) {
				t.Errorf("the node keeps mounts below %s", dir)
			}
			return nil
		})
	}
	err := nodes.Wait()
	close(done)
	if err := changing.Wait(); err != nil {
		t.Error(err)
	}
	if err != nil {
		t.Error(err)
	}
}
