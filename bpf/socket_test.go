// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"testing"
)

// A pod's packets reach no socket of the node, whatever it is bound to.
func TestPodEgressAsksWhoReceives(t *testing.T) {
	datagram4, datagram6 := ip(pod4, other4, 17, udp(53, nil)), ip(pod6, other6, 17, udp(53, nil))
	for _, c := range []struct {
		name, network, local, remote string
		mark                         int
		frame                        []byte
		reason                       Reason
	}{
		{"a host socket for all addresses", "udp4", "0.0.0.0:53", "", 0, datagram4, ReasonAllowed},
		{"a host socket for this address", "udp4", "10.1.0.6:53", "", 0, datagram4, ReasonAllowed},
		{"a host socket of both families", "udp6", "[::]:53", "", 0, datagram4, ReasonAllowed},
		{"a host socket for all IPv6 addresses", "udp6", "[::]:53", "", 0, datagram6, ReasonAllowed},
		{"a host socket connected to the pod", "udp4", "10.1.0.6:53", "10.1.0.5:40000", 0, datagram4, ReasonHostSocket},
		{"its first fragment", "udp4", "10.1.0.6:53", "10.1.0.5:40000", 0, fragment4(0, true, udp(53, nil)), ReasonHostSocket},
		{"an IPv6 host socket connected to the pod", "udp6", "[fd01::6]:53", "[fd01::5]:40000", 0, datagram6, ReasonHostSocket},
		{"its first IPv6 fragment", "udp6", "[fd01::6]:53", "[fd01::5]:40000", 0, fragment6(17, 0, true, udp(53, nil)), ReasonHostSocket},
		{"a socket with another mark", "udp4", "10.1.0.6:53", "10.1.0.5:40000", 0x1000, datagram4, ReasonHostSocket},
		{"a host socket connected to another port of the pod", "udp4", "10.1.0.6:53", "10.1.0.5:40001", 0, datagram4, ReasonAllowed},
		{"the daemon's socket of the flow", "udp4", "10.1.0.6:53", "10.1.0.5:40000", daemonMark, datagram4, ReasonAllowed},
		{"the daemon's IPv6 socket of the flow", "udp6", "[fd01::6]:53", "[fd01::5]:40000", daemonMark, datagram6, ReasonAllowed},
		{"a host's TCP listener", "tcp4", "0.0.0.0:80", "", 0, ip(pod4, other4, 6, tcp()), ReasonAllowed},
		{"a host's TCP listener for this address", "tcp6", "[fd01::6]:80", "", 0, ip(pod6, other6, 6, tcp()), ReasonAllowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := load(t)
			k.pod(nil)
			k.listen()
			k.socket(c.network, c.local, c.remote, c.mark)
			got := k.run(k.PodEgress, c.frame, skb{Ifindex: loopback})
			if got.reason != c.reason || (got.verdict == verdictOK) != (c.reason == ReasonAllowed) {
				t.Errorf("verdict %d, %s; want %s", got.verdict, got.reason, c.reason)
			}
		})
	}
}

// Where steer has been taken away, what would answer the pod is found out
// before the packet is handed to the local stack.
func TestPodEgressHoldsWithoutSteer(t *testing.T) {
	for _, c := range []struct {
		name, network, local string
		frame                []byte
		reason               Reason
	}{
		{"TCP listener", "tcp4", "0.0.0.0:80", ip(pod4, other4, 6, tcp()), ReasonHostSocket},
		{"TCP listener, IPv6", "tcp6", "[::]:80", ip(pod6, other6, 6, tcp()), ReasonHostSocket},
		{"UDP socket", "udp4", "0.0.0.0:53", ip(pod4, other4, 17, udp(53, nil)), ReasonHostSocket},
		{"UDP socket, IPv6", "udp6", "[::]:53", ip(pod6, other6, 17, udp(53, nil)), ReasonHostSocket},
		{"nobody for the datagram", "udp6", "[::]:54", ip(pod6, other6, 17, udp(53, nil)), ReasonNoListener},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := load(t)
			k.pod(nil)
			k.listen()
			k.socket(c.network, c.local, "", 0)
			if err := k.steer.Close(); err != nil {
				t.Fatal(err)
			}
			if got := k.run(k.PodEgress, c.frame, skb{Ifindex: loopback}); got.verdict != verdictShot || got.reason != c.reason {
				t.Errorf("verdict %d, %s; want %s", got.verdict, got.reason, c.reason)
			}
		})
	}
}

// network is a port in network order, as events carry it.
func network(port uint16) uint16 { return binary.NativeEndian.Uint16(be.AppendUint16(nil, port)) }

func TestRefusalsNameThePorts(t *testing.T) {
	k := load(t)
	k.pod(nil)
	for _, frame := range [][]byte{ip(pod4, other4, 17, udp(53, nil)), ip(pod6, other6, 17, udp(53, nil)), fragment6(17, 0, true, udp(53, nil))} {
		k.run(k.PodEgress, frame, skb{Ifindex: loopback})
		e := k.event()
		if e.Sport != network(40000) || e.Dport != network(53) || e.Proto != 17 {
			t.Errorf("the event says %#x to %#x, protocol %d", e.Sport, e.Dport, e.Proto)
		}
	}
}
