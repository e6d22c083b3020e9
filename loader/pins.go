// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// layoutVersion names the folder of the pins. It changes only when maps can
// no longer be shared between releases.
const layoutVersion = "v1"

// pins is the folder tree on the BPF file system.
type pins struct{ dir string }

func (p pins) maps() string            { return filepath.Join(p.dir, layoutVersion) }
func (p pins) links() string           { return filepath.Join(p.dir, layoutVersion, "links") }
func (p pins) link(name string) string { return filepath.Join(p.links(), name) }

// linkOf names the pin of a program's link on one device.
func (p pins) linkOf(program string, ifindex int) string {
	return p.link(program + "-" + strconv.Itoa(ifindex))
}

func (p pins) make() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return fmt.Errorf("making the pin folder: %w (PinDir must lie on a BPF file system: mount -t bpf bpf /sys/fs/bpf)", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(p.dir, &fs); err != nil {
		return fmt.Errorf("looking at the pin folder: %w", err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is not on a BPF file system, so the lock would end with this process (mount -t bpf bpf %s)", p.dir, filepath.Dir(p.dir))
	}
	if err := os.MkdirAll(p.links(), 0o700); err != nil {
		return fmt.Errorf("making the pin folder: %w", err)
	}
	return nil
}

// locked returns the interface indexes that links are pinned for.
func (p pins) locked() (map[int]bool, error) {
	entries, err := os.ReadDir(p.links())
	if err != nil {
		return nil, fmt.Errorf("listing the pinned links: %w", err)
	}
	found := map[int]bool{}
	for _, e := range entries {
		_, number, ok := strings.Cut(e.Name(), "-")
		if ifindex, err := strconv.Atoi(number); ok && err == nil {
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

// checkLayout refuses to run on pinned maps that another release laid out
// differently: it would read addresses where there are flags.
func checkLayout(spec *ebpf.CollectionSpec, dir string) error {
	for name, want := range spec.Maps {
		if want.Pinning != ebpf.PinByName {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("opening the pinned map %s: %w", name, err)
		}
		err = compareMap(m, want)
		_ = m.Close()
		if err != nil {
			return fmt.Errorf("the pinned map %s was made by an incompatible release: %w (everything stays locked; run the release that made it, or drain the node and uninstall)", name, err)
		}
	}
	return nil
}

func compareMap(m *ebpf.Map, want *ebpf.MapSpec) error {
	if m.Type() != want.Type || m.KeySize() != want.KeySize || m.ValueSize() != want.ValueSize && want.Type != ebpf.RingBuf {
		return fmt.Errorf("it is %v of %d byte keys and %d byte values instead of %v, %d and %d",
			m.Type(), m.KeySize(), m.ValueSize(), want.Type, want.KeySize, want.ValueSize)
	}
	if m.MaxEntries() != want.MaxEntries {
		return fmt.Errorf("it has %d entries instead of %d", m.MaxEntries(), want.MaxEntries)
	}
	wanted, ok := want.Value.(*btf.Struct)
	if !ok {
		return nil
	}
	h, err := m.Handle()
	if err != nil {
		return fmt.Errorf("reading its types: %w", err)
	}
	defer h.Close()
	types, err := h.Spec(nil)
	if err != nil {
		return fmt.Errorf("reading its types: %w", err)
	}
	var found *btf.Struct
	if err := types.TypeByName(wanted.Name, &found); err != nil {
		return fmt.Errorf("finding its type %s: %w", wanted.Name, err)
	}
	if got, want := layoutOf(found), layoutOf(wanted); !reflect.DeepEqual(got, want) {
		return fmt.Errorf("its %s is %v instead of %v", wanted.Name, got, want)
	}
	return nil
}

// layoutOf lists a structure's fields as "offset name size".
func layoutOf(s *btf.Struct) []string {
	fields := make([]string, 0, len(s.Members))
	for _, m := range s.Members {
		size, _ := btf.Sizeof(m.Type) // -1 on failure, which is unequal to any size
		fields = append(fields, fmt.Sprintf("%d %s %d", m.Offset.Bytes(), m.Name, size))
	}
	return fields
}
