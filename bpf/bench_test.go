// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// BenchmarkPrograms runs each program b.N times within one system call.
func BenchmarkPrograms(b *testing.B) {
	k := load(b)
	k.pod(func(p *Pod) { p.Probes[0], p.Probes[1] = 8443, probed })
	k.kubelet(k.cgroup())
	k.listen()
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
			c.in.Ifindex = loopback
			k.do(func() error {
				_, err := c.program.Run(&ebpf.RunOptions{Data: c.frame, Context: &c.in, Repeat: uint32(b.N)})
				return err
			})
		})
	}
}
