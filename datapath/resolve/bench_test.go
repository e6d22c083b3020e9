// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// large is a cluster of 500 nodes, 10,000 pods and 1,000 Services with ten
// endpoints each.
func large() Cluster {
	var c Cluster
	for i := range 500 {
		c.Nodes = append(c.Nodes, Node{
			Name: fmt.Sprintf("node-%03d", i), Addr: netip.AddrFrom4([4]byte{10, 80, byte(i >> 8), byte(i)}),
			Pods: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + byte(i>>8), byte(i), 0}), 24)},
		})
	}
	pod := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 128, byte(i / 40), byte(i%40 + 2)}) }
	for i := range 10_000 {
		c.Pods = append(c.Pods, Pod{Name: fmt.Sprintf("d/pod-%05d", i), Addrs: []netip.Addr{pod(i)}, Node: fmt.Sprintf("node-%03d", i/40)})
	}
	for i := range 1000 {
		s := Service{Name: fmt.Sprintf("d/s-%04d", i), VIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}, Affinity: time.Duration(i%2) * time.Hour}
		p := Port{Name: "main", Protocol: TCP, Port: 80}
		for j := range 10 {
			p.Endpoints = append(p.Endpoints, Endpoint{Addr: netip.AddrPortFrom(pod((i*10+j)%10_000), 8080)})
		}
		s.Ports = []Port{p}
		c.Services = append(c.Services, s)
	}
	return c
}

func BenchmarkResolve(b *testing.B) {
	tab := table(b)
	if r := tab.SetCluster(large()); r.Ignored != 0 || r.Endpoints != 10_000 {
		b.Fatalf("%+v", r)
	}
	for name, dst := range map[string]string{"pod": "10.128.3.5:80", "service": "10.96.1.2:80", "affinity": "10.96.1.3:80", "prefix": "10.129.3.200:80", "nowhere": "192.0.2.1:80"} {
		b.Run(name, func(b *testing.B) {
			q := Query{Protocol: TCP, Src: addr(podA), Dst: ap(dst)}
			if _, v := tab.Resolve(q); (v == Found) == (name == "nowhere") {
				b.Fatal(v)
			}
			b.ReportAllocs()
			for b.Loop() {
				tab.Resolve(q)
			}
		})
	}
}

func BenchmarkBuild(b *testing.B) {
	tab := table(b)
	c := large()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tab.SetCluster(c)
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := float64(after.HeapAlloc) - float64(before.HeapAlloc)
	for b.Loop() {
		tab.SetCluster(c)
	}
	b.ReportMetric(held/1e6, "MB-held")
}

func TestResolveTakesNoMemory(t *testing.T) {
	tab := table(t)
	tab.SetCluster(large())
	for _, dst := range []string{"10.128.3.5:80", "10.96.1.2:80", "10.96.1.3:80", "192.0.2.1:80"} {
		q := Query{Protocol: TCP, Src: addr(podA), Dst: ap(dst)}
		if n := testing.AllocsPerRun(100, func() { tab.Resolve(q) }); n != 0 {
			t.Errorf("%s: %v allocations", dst, n)
		}
	}
}
