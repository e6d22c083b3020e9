// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// BenchmarkAttach is what a pod waits for: its link locked at birth, and then
// described and opened. Reported are the median and the 99th percentile.
func BenchmarkAttach(b *testing.B) {
	for _, pods := range []int{0, 1000} {
		for _, kind := range kinds {
			b.Run(fmt.Sprintf("%s/%d", kind, pods), func(b *testing.B) {
				n := newBench(b, nil)
				n.crowd(b, pods)
				var took []time.Duration
				for b.Loop() {
					took = append(took, n.attach(b, kind))
				}
				slices.Sort(took)
				at := func(q float64) float64 {
					return float64(took[min(int(q*float64(len(took))), len(took)-1)].Microseconds()) / 1000
				}
				b.ReportMetric(0, "ns/op") // mostly the lab's own
				b.ReportMetric(at(0.5), "p50-ms")
				b.ReportMetric(at(0.99), "p99-ms")
			})
		}
	}
}

// attach makes a pod and removes it, and tells how long the loader took.
func (n *bench) attach(b *testing.B, kind lab.Kind) (took time.Duration) {
	b.Helper()
	timed := func(fn func() error) error {
		began := time.Now()
		err := fn()
		took += time.Since(began)
		return err
	}
	p := labtest.Pod(b, n.Node, lab.PodSpec{Name: "p", Kind: kind, BeforeUp: func(p *lab.Pod) error {
		return timed(func() error { return n.l.LockLink(b.Context(), p.HostIfindex) })
	}})
	err := timed(func() error {
		return n.l.SetPod(loader.Pod{Ifindex: p.HostIfindex, NetnsPath: p.Path(), Addrs: p.Addrs(), Open: true})
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := n.RemovePod(p); err != nil {
		b.Fatal(err)
	}
	if err := n.l.DeletePod(p.HostIfindex); err != nil {
		b.Fatal(err)
	}
	return took
}

// crowd puts other pods into the maps.
func (n *bench) crowd(b *testing.B, pods int) {
	b.Helper()
	maps := map[string]*ebpf.Map{}
	for _, name := range []string{"pods", "pod_addrs"} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(n.cfg.PinDir, "v1", name), nil)
		if err != nil {
			b.Fatal(err)
		}
		defer m.Close()
		maps[name] = m
	}
	for i := range uint32(pods) {
		a := netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}).As16()
		var key [4]uint32
		for j := range key {
			key[j] = binary.NativeEndian.Uint32(a[4*j:])
		}
		if err := maps["pods"].Put(100000+i, bpf.Pod{State: bpf.PodOpen, Addr4: key[3]}); err != nil {
			b.Fatal(err)
		}
		if err := maps["pod_addrs"].Put(key, bpf.PodAddr{Ifindex: 100000 + i}); err != nil {
			b.Fatal(err)
		}
	}
}
