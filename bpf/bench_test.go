// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
)

// BenchmarkPrograms runs each program b.N times within one system call.
func BenchmarkPrograms(b *testing.B) {
	k := load(b)
	k.pod(func(p *Pod) { p.Probes[0], p.Probes[1] = 8443, probed })
	k.kubelet(k.cgroup())
	k.listen()
	k.socket("udp4", "10.1.0.6:53", "10.1.0.5:40000", daemonMark)
	k.socket("udp6", "[fd01::6]:53", "[fd01::5]:40000", daemonMark)
	full := make([]byte, 1400)
	for name, c := range map[string]struct {
		program *ebpf.Program
		frame   []byte
		in      skb
	}{
		"pod_egress/v4":         {k.PodEgress, ip(pod4, other4, 6, append(segment(40000, 80, ack), full...)), skb{}},
		"pod_egress/v6":         {k.PodEgress, ip(pod6, other6, 6, append(segment(40000, 80, ack), full...)), skb{}},
		"pod_egress/syn":        {k.PodEgress, ip(pod4, other4, 6, tcp()), skb{}},
		"pod_egress/udp4":       {k.PodEgress, ip(pod4, other4, 17, udp(53, full)), skb{}},
		"pod_egress/udp6":       {k.PodEgress, ip(pod6, other6, 17, udp(53, full)), skb{}},
		"pod_egress/udp-first":  {k.PodEgress, ip(pod4, other4, 17, udp(54, full)), skb{}},
		"pod_egress/fragment":   {k.PodEgress, fragment4(185, true, full[:1400]), skb{}},
		"pod_egress/refused":    {k.PodEgress, ip(pod4, other4, 132, full), skb{}},
		"pod_ingress/v4":        {k.PodIngress, ip(other4, pod4, 6, append(tcp(), full...)), skb{Mark: 0x2000}},
		"pod_ingress/v6":        {k.PodIngress, ip(other6, pod6, 6, append(tcp(), full...)), skb{Mark: 0x2000}},
		"pod_ingress/probe-syn": {k.PodIngress, ip(other4, pod4, 6, segment(kubeletPort, probed, syn)), skb{}},
		"pod_ingress/probe":     {k.PodIngress, ip(other4, pod4, 6, append(segment(kubeletPort, probed, ack), full...)), skb{}},
		"pod_guard/refused":     {k.PodGuard, ip(other4, pod4, 6, tcp()), skb{}},
		"node_egress/own":       {k.NodeEgress, ip(other4, pod4, 6, tcp()), skb{}},
		"node_egress/refused":   {k.NodeEgress, ip(other4, pod4, 6, tcp()), skb{IngressIfindex: 1}},
	} {
		b.Run(name, func(b *testing.B) {
			k.repeat(b, c.program, c.frame, c.in)
		})
	}
}

// repeat runs a program b.N times over a frame on the pod's link.
func (k *kernel) repeat(b *testing.B, program *ebpf.Program, frame []byte, in skb) {
	b.Helper()
	k.clock(0)
	in.Ifindex = loopback
	k.do(func() error {
		_, err := program.Run(&ebpf.RunOptions{Data: frame, Context: &in, Repeat: uint32(b.N)})
		return err
	})
}

// BenchmarkPods is the cost of a packet with so many pods on the node.
func BenchmarkPods(b *testing.B) {
	for _, pods := range []int{10, 1000, 10000} {
		k := load(b)
		k.crowd(pods)
		k.pod(nil)
		k.listen()
		k.socket("udp4", "10.1.0.6:53", "10.1.0.5:40000", daemonMark)
		full := make([]byte, 1400)
		for name, c := range map[string]struct {
			program *ebpf.Program
			frame   []byte
			in      skb
		}{
			"tcp":     {k.PodEgress, ip(pod4, other4, 6, append(segment(40000, 80, ack), full...)), skb{}},
			"udp":     {k.PodEgress, ip(pod4, other4, 17, udp(53, full)), skb{}},
			"ingress": {k.PodIngress, ip(other6, pod6, 6, append(tcp(), full...)), skb{Mark: daemonMark}},
		} {
			b.Run(fmt.Sprintf("%s/%d", name, pods), func(b *testing.B) { k.repeat(b, c.program, c.frame, c.in) })
		}
		b.Run(fmt.Sprintf("steer/%d", pods), func(b *testing.B) {
			in := lookup{Family: 10, Protocol: 17, RemoteIP6: words(pod6), LocalIP6: words(other6), LocalPort: 53}
			if err := k.PodAddrs.Put(words(pod6), PodAddr{}); err != nil { // PROG_RUN gives no link
				b.Fatal(err)
			}
			if _, err := k.Steer.Run(&ebpf.RunOptions{Context: &in, Repeat: uint32(b.N)}); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// crowd puts other pods into the maps.
func (k *kernel) crowd(pods int) {
	k.t.Helper()
	for i := range uint32(pods) {
		a := netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})
		p := Pod{State: PodOpen, Addr4: words(a)[3], Netns: uint64(i)}
		if err := errors.Join(k.Pods.Put(1000+i, p), k.PodAddrs.Put(words(a), PodAddr{Ifindex: 1000 + i}), k.SynBudget.Put(1000+i, uint64(1)), k.DatagramBudget.Put(1000+i, uint64(1))); err != nil {
			k.t.Fatal(err)
		}
	}
}
