// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// layoutVersion names the folder of the pins. It changes when the meaning of
// what the maps hold changes; their shape is compared (prepareMaps).
const layoutVersion = "v1"

// layoutName is the name of any layout's folder.
var layoutName = regexp.MustCompile(`^v[0-9]+$`)

// pins is the folder tree on the BPF file system.
type pins struct{ dir, version string }

func (p pins) maps() string            { return filepath.Join(p.dir, p.version) }
func (p pins) links() string           { return filepath.Join(p.dir, p.version, "links") }
func (p pins) link(name string) string { return filepath.Join(p.links(), name) }

func (p pins) make() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("making the pin folder: %w (PinDir must lie on a BPF file system: mount -t bpf bpf /sys/fs/bpf)", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(p.dir, &fs); err != nil {
		return fmt.Errorf("looking at the pin folder: %w", err)
	}
	others, err := p.others()
	if err != nil {
		return err
	}
	if len(others) > 0 {
		return fmt.Errorf("layout %s is pinned there, which another release made; this one knows %s (everything stays locked; run the release that made it, or drain the node and uninstall)", others[0].version, p.version)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is not on a BPF file system, so the lock would end with this process (mount -t bpf bpf %s)", p.dir, filepath.Dir(p.dir))
	}
	if err := os.MkdirAll(p.links(), 0o700); err != nil {
		return fmt.Errorf("making the pin folder: %w", err)
	}
	return nil
}

// others are the layouts of other releases that are pinned in the folder.
func (p pins) others() ([]pins, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listing the pin folder: %w", err)
	}
	var found []pins
	for _, e := range entries {
		if layoutName.MatchString(e.Name()) && e.Name() != p.version {
			found = append(found, pins{p.dir, e.Name()})
		}
	}
	return found, nil
}

// locked returns the interface indexes that links are pinned for.
func (p pins) locked() (map[int]bool, error) {
	names, err := namesIn(p.links())
	if err != nil {
		return nil, fmt.Errorf("listing the pinned links: %w", err)
	}
	found := map[int]bool{}
	for name := range names {
		if _, ifindex := parseLinkName(name); ifindex != 0 {
			found[ifindex] = true
		}
	}
	return found, nil
}

// removePin is os.Remove that is content if there is nothing.
func removePin(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpinning: %w", err)
	}
	return nil
}
