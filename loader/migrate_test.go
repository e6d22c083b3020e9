// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
)

// repin puts a map of another shape in the place of a pinned one, as another
// release would have made it.
func (b *bench) repin(t *testing.T, name string, spec *ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	pin := filepath.Join(b.cfg.PinDir, "v1", name)
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	if err := m.Pin(pin); err != nil {
		t.Fatal(err)
	}
	return m
}

// reopen is what a daemon of this release does with the pins.
func (b *bench) reopen() (l *loader.Loader, err error) {
	err = b.Do(func() (err error) { l, err = loader.Open(b.cfg); return err })
	return l, err
}

func TestMapsOfReportsAreMigrated(t *testing.T) {
	for release, spec := range map[string]*ebpf.MapSpec{
		"older": {Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 22},
		"newer": {Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 300},
		"other": {Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 3},
	} {
		t.Run(release, func(t *testing.T) {
			b := newBench(t, nil)
			b.routing(t)
			b.daemon(t)
			p, locked := b.pod(t, "p", lab.Routed, true), b.pod(t, "locked", lab.Routed, false)
			old := b.repin(t, "drops", spec)
			b.repin(t, "events", &ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4096})
			if release != "other" {
				counts := make([]uint64, ebpf.MustPossibleCPU())
				counts[0] = 1000
				if err := old.Put(uint32(bpf.ReasonPodLocked), counts); err != nil {
					t.Fatal(err)
				}
			}
			l, err := b.reopen()
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			b.l = l
			if n := b.count(t, bpf.ReasonPodLocked); (n == 1000) != (release != "other") {
				t.Errorf("the counter is %d", n)
			}
			// Nobody was opened, nobody closed, and refusals count again.
			if got, err := hello(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080)); err != nil {
				t.Errorf("the open pod: %q %v", got, err)
			}
			if err := l.LockLink(t.Context(), locked.HostIfindex); err != nil {
				t.Fatal(err)
			}
			b.refused(t, locked.NS, b.outside.Addr4, bpf.ReasonPodLocked)
			if left, _ := filepath.Glob(filepath.Join(b.cfg.PinDir, "v1/*-new")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestMapsThatAdmitAreRefusedInAnotherShape(t *testing.T) {
	for name, spec := range map[string]*ebpf.MapSpec{
		"pods":         {Type: ebpf.Hash, KeySize: 4, ValueSize: 96, MaxEntries: 16384},
		"pod_addrs":    {Type: ebpf.Hash, KeySize: 16, ValueSize: 4, MaxEntries: 8},
		"node":         {Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1},
		"probe_flows":  {Type: ebpf.LRUHash, KeySize: 36, ValueSize: 8, MaxEntries: 1},
		"netns_owners": {Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 16384},
		"listeners":    {Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 6},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			b.routing(t)
			p, locked := b.pod(t, "p", lab.Routed, true), b.pod(t, "locked", lab.Routed, false)
			b.repin(t, name, spec)
			l, err := b.reopen()
			if err == nil {
				l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "stays locked") {
				t.Errorf("got %v", err)
			}
			b.refused(t, p.NS, b.outside.Addr4, bpf.ReasonNoListener)
			b.refused(t, locked.NS, b.outside.Addr4, bpf.ReasonPodLocked)
		})
	}
}

func TestPinsOfAnotherLayoutAreRefusedAndUninstalled(t *testing.T) {
	for _, version := range []string{"v0", "v2"} {
		t.Run(version, func(t *testing.T) {
			b := newBench(t, nil)
			p := b.pod(t, "p", lab.Routed, false)
			if err := b.l.Close(); err != nil {
				t.Fatal(err)
			}
			was, is := filepath.Join(b.cfg.PinDir, "v1"), filepath.Join(b.cfg.PinDir, version)
			if err := os.Rename(was, is); err != nil {
				t.Fatal(err)
			}
			l, err := b.reopen()
			if err == nil {
				l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "layout "+version) || !strings.Contains(err.Error(), "stays locked") {
				t.Errorf("got %v", err)
			}
			if got, err := helloWithin(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080), 250*time.Millisecond); err == nil {
				t.Errorf("the pod got out: %q", got)
			}
			if err := b.Do(func() error { return loader.Uninstall(b.cfg) }); err != nil {
				t.Fatal(err)
			}
			if left, err := os.ReadDir(is); err == nil {
				t.Errorf("left after uninstall: %v", fmt.Sprint(left))
			}
		})
	}
}
