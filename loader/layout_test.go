// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/test/privileged"
)

func TestMapsOfAnotherLayoutAreRefused(t *testing.T) {
	privileged.Require(t)
	for name, c := range map[string]struct {
		change func(*ebpf.MapSpec)
		says   string // empty if compatible
	}{
		"the same":      {func(*ebpf.MapSpec) {}, ""},
		"another type":  {func(m *ebpf.MapSpec) { m.Type = ebpf.LRUHash }, "LRU"},
		"fewer entries": {func(m *ebpf.MapSpec) { m.MaxEntries-- }, "entries"},
		"fields swapped": {func(m *ebpf.MapSpec) {
			s := btf.Copy(m.Value).(*btf.Struct)
			s.Members[1].Name, s.Members[2].Name = s.Members[2].Name, s.Members[1].Name
			m.Value = s
		}, "c8s_pod"},
		"other flags": {func(m *ebpf.MapSpec) { m.Flags |= unix.BPF_F_NO_PREALLOC }, "flags"},
		"no types":    {func(m *ebpf.MapSpec) { m.Key, m.Value = nil, nil }, "types"},
	} {
		t.Run(name, func(t *testing.T) {
			spec, err := bpf.LoadC8s()
			if err != nil {
				t.Fatal(err)
			}
			old := spec.Maps[bpf.C8sMapPods].Copy()
			c.change(old)
			m, err := ebpf.NewMap(old)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			err = compareMap(m, spec.Maps[bpf.C8sMapPods])
			if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

func TestKeysOfAnotherLayoutAreRefused(t *testing.T) {
	privileged.Require(t)
	spec, err := bpf.LoadC8s()
	if err != nil {
		t.Fatal(err)
	}
	want := spec.Maps[bpf.C8sMapProbeFlows]
	old := want.Copy()
	key := btf.Copy(old.Key).(*btf.Struct)
	key.Members[0].Name, key.Members[1].Name = key.Members[1].Name, key.Members[0].Name
	old.Key = key
	m, err := ebpf.NewMap(old)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := compareMap(m, want); err == nil || !strings.Contains(err.Error(), "c8s_flow") {
		t.Errorf("source and destination swapped: %v", err)
	}
}

// A map that admits somebody is never made anew under running programs.
func TestOnlyMapsThatAdmitNobodyAreReplaced(t *testing.T) {
	spec, err := bpf.LoadC8s()
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for name := range spec.Maps {
		if name[0] != '.' && !replaceable(name) {
			kept = append(kept, name)
		}
	}
	slices.Sort(kept)
	if want := []string{"listeners", "netns_owners", "node", "pod_addrs", "pods", "probe_flows"}; !slices.Equal(kept, want) {
		t.Errorf("kept are %v, want %v", kept, want)
	}
}

func TestEventOfAnotherSizeIsAnError(t *testing.T) {
	for _, sample := range [][]byte{nil, make([]byte, 63)} {
		if e, err := parseEvent(sample, bootTime()); err == nil {
			t.Errorf("%d bytes became %+v", len(sample), e)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	if c, err := (Config{}).withDefaults(); err != nil || c.CaptureMark != DefaultCaptureMark || c.PinDir == "" || c.Log == nil {
		t.Errorf("the defaults: %+v, %v", c, err)
	}
	for name, c := range map[string]Config{
		"same marks":            {CaptureMark: 0x1000, DaemonMark: 0x1000},
		"mark outside the mask": {CaptureMark: 0x4000},
		"a SYN every 0 ns":      {SYNRate: 2e9},
		"no datagrams":          {DatagramRate: 1},
		"datagrams without end": {DatagramRate: 2 << 30},
		"a burst without end":   {DatagramBurst: 2 << 30},
		"main table":            {Table: 254},
		"priority after main":   {RulePref: 40000},
		"priority of local":     {RulePref: -1},
	} {
		if _, err := c.withDefaults(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
