// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"slices"
	"testing"
)

const (
	syn, ack, synAck, rst, finAck = 0x02, 0x10, 0x12, 0x04, 0x11
	kubeletPort                   = 40000
	probed                        = 8080
)

// families are the kubelet's and the pod's addresses.
var families = [][2]netip.Addr{{other4, pod4}, {other6, pod6}}

// probeKernel has a pod with one probe port, and this
// process in the kubelet's place.
func probeKernel(t *testing.T) *kernel {
	t.Helper()
	k := load(t)
	k.probes(probed)
	k.kubelet(k.cgroup())
	return k
}

func (k *kernel) probes(ports ...uint16) {
	k.t.Helper()
	k.pod(func(p *Pod) {
		p.Netns = 7
		copy(p.Probes[:], ports)
	})
}

// wants runs a packet of the node to the pod.
func (k *kernel) wants(t *testing.T, what string, frame []byte, want Reason) {
	t.Helper()
	got := k.run(k.PodIngress, frame, skb{Ifindex: loopback})
	if got.reason != want || (got.verdict == verdictOK) != (want == ReasonAllowed) {
		t.Errorf("%s: verdict %d, %s; want %s", what, got.verdict, got.reason, want)
	}
}

func TestProbeConnectionIsAdmittedFromItsFirstPacket(t *testing.T) {
	k := probeKernel(t)
	for _, a := range families {
		to := func(flags byte) []byte { return ip(a[0], a[1], 6, segment(kubeletPort, probed, flags)) }
		for _, flags := range []byte{ack, finAck, rst, synAck, 0} {
			k.wants(t, "a packet of no connection", to(flags), ReasonNotFromDaemon)
		}
		k.wants(t, "SYN", to(syn), ReasonAllowed)
		k.kubelet(0) // TIME_WAIT and resets answer without a socket of the kubelet
		for _, flags := range []byte{ack, finAck, rst, 0} {
			k.wants(t, "a later packet", to(flags), ReasonAllowed)
		}
		k.wants(t, "another connection's SYN", to(syn), ReasonNotFromDaemon)
		k.wants(t, "another port of the kubelet", ip(a[0], a[1], 6, segment(kubeletPort+1, probed, ack)), ReasonNotFromDaemon)
		k.probes()
		k.wants(t, "a port that is probed no more", to(ack), ReasonNotFromDaemon)
		k.pod(func(p *Pod) { p.Netns, p.Probes[0] = 8, probed })
		k.wants(t, "the next pod with the address", to(ack), ReasonNotFromDaemon)
		k.probes(probed)
		k.kubelet(k.cgroup())
	}
}

func TestWhatIsNoProbeIsRefused(t *testing.T) {
	k := probeKernel(t)
	for _, a := range families {
		good := segment(kubeletPort, probed, syn)
		for what, frame := range map[string][]byte{
			"another port":      ip(a[0], a[1], 6, segment(kubeletPort, probed+1, syn)),
			"port 0":            ip(a[0], a[1], 6, segment(kubeletPort, 0, syn)),
			"UDP":               ip(a[0], a[1], 17, good),
			"cut short":         ip(a[0], a[1], 6, good[:19]),
			"a foreign process": ip(a[0], a[1], 6, good),
		} {
			if what == "a foreign process" {
				k.kubelet(k.cgroup() + 1)
			}
			k.wants(t, what, frame, ReasonNotFromDaemon)
			k.kubelet(k.cgroup())
		}
		elsewhere := netip.MustParseAddr(map[bool]string{true: "10.1.0.7", false: "fd01::7"}[a[0].Is4()])
		k.wants(t, "another address", ip(a[0], elsewhere, 6, good), ReasonNotForPod)
		got := k.run(k.PodIngress, ip(a[0], a[1], 6, good), skb{Ifindex: loopback, IngressIfindex: 1})
		if got.reason != ReasonForwardedToPod {
			t.Errorf("a forwarded SYN: %s", got.reason)
		}
	}
	if n := k.flows(); n != 0 {
		t.Errorf("%d connections were remembered", n)
	}
}

func (k *kernel) flows() (n int) {
	k.t.Helper()
	var flow Flow
	var netns uint64
	all := k.ProbeFlows.Iterate()
	for all.Next(&flow, &netns) {
		n++
	}
	if err := all.Err(); err != nil {
		k.t.Fatal(err)
	}
	return n
}

func TestEveryProbePortIsLookedAt(t *testing.T) {
	k := probeKernel(t)
	var ports []uint16
	for i := range ProbePorts {
		ports = append(ports, uint16(1000+i))
	}
	k.probes(ports...)
	for _, port := range append(slices.Clone(ports), 999) {
		want := ReasonAllowed
		if port == 999 {
			want = ReasonNotFromDaemon
		}
		k.wants(t, "a SYN", ip(other4, pod4, 6, segment(kubeletPort, port, syn)), want)
	}
}

// Without a listener of the daemon, a pod may send nothing but answers to
// probes.
func TestProbeIsAnsweredWithoutTheDaemon(t *testing.T) {
	k := probeKernel(t)
	for _, a := range families {
		reply := func(sport, dport uint16) []byte { return ip(a[1], a[0], 6, segment(sport, dport, synAck)) }
		sends := func(what string, frame []byte, want Reason) {
			t.Helper()
			if got := k.run(k.PodEgress, frame, skb{Ifindex: loopback}); got.reason != want {
				t.Errorf("%s: %s, want %s", what, got.reason, want)
			}
		}
		sends("an answer to nothing", reply(probed, kubeletPort), ReasonNoListener)
		k.wants(t, "SYN", ip(a[0], a[1], 6, segment(kubeletPort, probed, syn)), ReasonAllowed)
		sends("the answer", reply(probed, kubeletPort), ReasonAllowed)
		sends("from another port", reply(probed+1, kubeletPort), ReasonNoListener)
		sends("to another port", reply(probed, kubeletPort+1), ReasonNoListener)
		k.probes()
		sends("no longer probed", reply(probed, kubeletPort), ReasonNoListener)
		k.probes(probed)
	}
}
