// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/c8s-dev/c8s/bpf"
)

func TestMapsOfAnotherLayoutAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making BPF maps needs root")
	}
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
		"no types": {func(m *ebpf.MapSpec) { m.Key, m.Value = nil, nil }, "types"},
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
		"main table":            {Table: 254},
		"priority after main":   {RulePref: 40000},
		"priority of local":     {RulePref: -1},
	} {
		if _, err := c.withDefaults(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
