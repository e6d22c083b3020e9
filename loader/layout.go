// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/c8s-dev/c8s/bpf"
)

// replaceable tells whether a map may be made anew in another shape while
// programs run on its predecessor: nothing is admitted by what it holds.
// Counters are carried over; the rest fills again. Every other map says who is
// open, and a program that found it empty, or read flags where there are
// addresses, could open a pod.
func replaceable(name string) bool {
	switch name {
	case bpf.C8sMapDrops, bpf.C8sMapEvents, bpf.C8sMapEventBudget, bpf.C8sMapSynBudget, bpf.C8sMapDatagramBudget, bpf.C8sMapBroadcasts:
		return true
	}
	return false
}

// prepareMaps compares what is pinned with what the programs want. A map of
// another shape is replaced where that is harmless, and refused otherwise.
func prepareMaps(spec *ebpf.CollectionSpec, dir string, log *slog.Logger) error {
	for name, want := range spec.Maps {
		if want.Pinning != ebpf.PinByName {
			continue
		}
		if err := prepareMap(filepath.Join(dir, name), name, want, log); err != nil {
			return err
		}
	}
	return nil
}

func prepareMap(pin, name string, want *ebpf.MapSpec, log *slog.Logger) error {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the pinned map %s: %w", name, err)
	}
	defer m.Close()
	different := compareMap(m, want)
	if different == nil {
		return nil
	}
	if !replaceable(name) {
		return fmt.Errorf("the pinned map %s was made by an incompatible release: %w (everything stays locked; run the release that made it, or drain the node and uninstall)", name, different)
	}
	if err := replaceMap(m, pin, name, want); err != nil {
		return fmt.Errorf("migrating the pinned map %s: %w", name, err)
	}
	log.Info("a map of another release was replaced", "map", name, "because", different)
	return nil
}

// replaceMap puts a new map in the place of a pinned one, by one rename.
func replaceMap(old *ebpf.Map, pin, name string, want *ebpf.MapSpec) error {
	spec := want.Copy()
	spec.Pinning = ebpf.PinNone
	fresh, err := ebpf.NewMap(spec)
	if err != nil {
		return err
	}
	defer fresh.Close()
	if name == bpf.C8sMapDrops {
		if err := carryCounters(old, fresh); err != nil {
			return err
		}
	}
	aside := pin + "-new"
	if err := removePin(aside); err != nil {
		return err
	}
	if err := fresh.Pin(aside); err != nil {
		return fmt.Errorf("pinning it: %w", err)
	}
	return os.Rename(aside, pin)
}

// carryCounters copies the counters that both maps have, for metrics never
// fall. What cannot be read as counters begins anew.
func carryCounters(old, fresh *ebpf.Map) error {
	if old.Type() != ebpf.PerCPUArray || old.KeySize() != fresh.KeySize() || old.ValueSize() != fresh.ValueSize() {
		return nil
	}
	for i := range min(old.MaxEntries(), fresh.MaxEntries()) {
		var perCPU []uint64
		if err := old.Lookup(i, &perCPU); err != nil {
			return fmt.Errorf("reading counter %d: %w", i, err)
		}
		if err := fresh.Put(i, perCPU); err != nil {
			return fmt.Errorf("writing counter %d: %w", i, err)
		}
	}
	return nil
}

func compareMap(m *ebpf.Map, want *ebpf.MapSpec) error {
	if m.Type() != want.Type || m.KeySize() != want.KeySize || m.ValueSize() != want.ValueSize && want.Type != ebpf.RingBuf {
		return fmt.Errorf("it is %v of %d byte keys and %d byte values instead of %v, %d and %d",
			m.Type(), m.KeySize(), m.ValueSize(), want.Type, want.KeySize, want.ValueSize)
	}
	if m.MaxEntries() != want.MaxEntries || m.Flags() != want.Flags {
		return fmt.Errorf("it has %d entries and flags %#x instead of %d and %#x", m.MaxEntries(), m.Flags(), want.MaxEntries, want.Flags)
	}
	return errors.Join(compareType(m, want.Key), compareType(m, want.Value))
}

// compareType compares a structure of keys or values with what the map's maker
// called by the same name.
func compareType(m *ebpf.Map, want btf.Type) error {
	wanted, ok := want.(*btf.Struct)
	if !ok {
		return nil // its size says all
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
