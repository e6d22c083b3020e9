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

// BenchmarkAttach is what a new pod's network waits for (lock), and what the
// daemon spends to describe and open the pod, which includes the tcx programs'
// grace periods (open): the median and the 99th percentile.
func BenchmarkAttach(b *testing.B) {
	for _, pods := range []int{0, 1000} {
		for _, kind := range kinds {
			b.Run(fmt.Sprintf("%s/%d", kind, pods), func(b *testing.B) {
				n := newBench(b, nil)
				n.crowd(b, pods)
				var locks, opens []time.Duration
				for b.Loop() {
					lock, open := n.attach(b, kind)
					locks, opens = append(locks, lock), append(opens, open)
				}
				b.ReportMetric(0, "ns/op") // mostly the lab's own
				for what, took := range map[string][]time.Duration{"lock": locks, "open": opens} {
					slices.Sort(took)
					b.ReportMetric(ms(took[len(took)/2]), what+"-p50-ms")
					b.ReportMetric(ms(took[len(took)*99/100]), what+"-p99-ms")
				}
			})
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// attach makes a pod and removes it.
func (n *bench) attach(b *testing.B, kind lab.Kind) (lock, open time.Duration) {
	b.Helper()
	timed := func(took *time.Duration, fn func() error) error {
		began := time.Now()
		err := fn()
		*took = time.Since(began)
		return err
	}
	p := labtest.Pod(b, n.Node, lab.PodSpec{Name: "p", Kind: kind, BeforeUp: func(p *lab.Pod) error {
		return timed(&lock, func() error {
			return n.l.LockNew(b.Context(), loader.PodLink{Ifindex: p.HostIfindex, NetnsPath: p.Path(), GuestInterface: p.Interface})
		})
	}})
	err := timed(&open, func() error {
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
	return lock, open
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
