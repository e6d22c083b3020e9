// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"slices"
	"testing"
)

// packetCase is a packet and why it is refused; ReasonAllowed if it passes.
type packetCase struct {
	name   string
	frame  []byte
	reason Reason
}

// egressCases are packets of an open pod with a listening daemon.
func egressCases() []packetCase {
	never := netip.IPv6Unspecified()
	cases := []packetCase{
		{"runt", make([]byte, 14), ReasonEthertype},
		{"unknown EtherType", ether(0x88b5, make([]byte, 40)), ReasonEthertype},
		{"VLAN", ether(0x8100, []byte{0, 5, 8, 0}, make([]byte, 40)), ReasonVLAN},
		{"QinQ", ether(0x88a8, []byte{0, 5, 8, 0}, make([]byte, 40)), ReasonVLAN},
		{"IPv4 of version 6", with(ip(pod4, other4, 6, tcp()), 14, 0x65), ReasonMalformed},
		{"IPv6 of version 4", with(ip(pod6, other6, 6, tcp()), 14, 0x40), ReasonMalformed},
		{"IPv4 header length below 5", with(ip(pod4, other4, 6, tcp()), 14, 0x44), ReasonMalformed},
		{"IPv4 options", with(ip(pod4, other4, 6, slices.Concat(make([]byte, 4), tcp())), 14, 0x46), ReasonIPOptions},
		{"first fragment", with(ip(pod4, other4, 6, tcp()), 20, 0x20), ReasonFragment},
		{"later fragment", with(ip(pod4, other4, 6, tcp()), 21, 5), ReasonFragment},
		{"don't fragment", with(ip(pod4, other4, 6, tcp()), 20, 0x40), ReasonAllowed},
		{"IPv4 total length below the header", with(ip(pod4, other4, 6, tcp()), 17, 19), ReasonMalformed},
		{"IPv4 total length below the TCP header", with(ip(pod4, other4, 6, tcp()), 17, 39), ReasonMalformed},
		{"IPv4 without a length", with(ip(pod4, other4, 6, tcp()), 17, 0), ReasonMalformed},
		{"IPv6 without a length", with(ip(pod6, other6, 17, udp(53, nil)), 19, 0), ReasonMalformed},
		{"IPv6 fragment", ip(pod6, other6, 44, make([]byte, 40)), ReasonFragment},
		{"first fragment of a datagram", fragment4(0, true, udp(53, make([]byte, 1000))), ReasonAllowed},
		{"first fragment of a long datagram", fragment4(0, true, with(udp(53, make([]byte, 1000)), 4, 0x20)), ReasonAllowed},
		{"tiny first fragment", fragment4(0, true, udp(53, nil)), ReasonAllowed},
		{"first fragment without the header", fragment4(0, true, udp(53, nil)[:7]), ReasonMalformed},
		{"fragment right behind the header", fragment4(1, true, make([]byte, 8)), ReasonAllowed},
		{"last fragment", fragment4(185, false, make([]byte, 5)), ReasonAllowed},
		{"empty fragment", fragment4(185, false, nil), ReasonMalformed},
		{"fragment with options", with(fragment4(185, true, make([]byte, 16)), 14, 0x46), ReasonIPOptions},
		{"first IPv6 fragment of a datagram", fragment6(17, 0, true, udp(53, make([]byte, 1000))), ReasonAllowed},
		{"tiny first IPv6 fragment", fragment6(17, 0, true, udp(53, nil)), ReasonAllowed},
		{"first IPv6 fragment without the header", fragment6(17, 0, true, udp(53, nil)[:7]), ReasonMalformed},
		{"atomic IPv6 fragment", fragment6(17, 0, false, udp(53, nil)), ReasonAllowed},
		{"last IPv6 fragment", fragment6(17, 185, false, make([]byte, 5)), ReasonAllowed},
		{"empty IPv6 fragment", fragment6(17, 185, false, nil), ReasonMalformed},
		{"IPv6 fragment header cut short", ip(pod6, other6, 44, make([]byte, 7)), ReasonMalformed},
		{"IPv6 fragment with reserved bits", with(fragment6(17, 185, true, make([]byte, 8)), 57, 0xcb), ReasonMalformed},
		{"IPv6 fragment with a reserved byte", with(fragment6(17, 185, true, make([]byte, 8)), 55, 1), ReasonMalformed},
		{"TCP in an atomic fragment", fragment6(6, 0, false, tcp()), ReasonFragment},
		{"ICMPv6 in a fragment", fragment6(58, 0, true, make([]byte, 24)), ReasonFragment},
		{"fragment in a fragment", fragment6(44, 0, true, fragment6(17, 0, true, udp(53, nil))[54:]), ReasonFragment},
		{"destination options in a fragment", fragment6(60, 0, true, make([]byte, 24)), ReasonFragment},
		{"fragment behind hop-by-hop", ip(pod6, other6, 0, append([]byte{44, 0, 1, 4, 0, 0, 0, 0}, fragment6(17, 0, true, udp(53, nil))[54:]...)), ReasonExtensionHeader},
		{"multicast", ip(pod4, netip.MustParseAddr("224.0.0.251"), 17, udp(5353, nil)), ReasonMulticast},
		{"multicast, the last address", ip(pod4, netip.MustParseAddr("239.255.255.255"), 17, udp(5353, nil)), ReasonMulticast},
		{"limited broadcast", ip(pod4, netip.MustParseAddr("255.255.255.255"), 17, udp(67, nil)), ReasonMulticast},
		{"broadcast of the node's network", ip(pod4, broadcast4, 17, udp(67, nil)), ReasonMulticast},
		{"broadcast in fragments", with(with(fragment4(0, true, udp(67, nil)), 32, 0), 33, 255), ReasonMulticast},
		{"IPv6 multicast", ip(pod6, netip.MustParseAddr("ff02::fb"), 17, udp(5353, nil)), ReasonMulticast},
		{"TCP to a multicast address", ip(pod6, netip.MustParseAddr("ff05::2"), 6, tcp()), ReasonMulticast},
		{"IPv6 from the pod's IPv4 address", ip(netip.AddrFrom16(pod4.As16()), other6, 6, tcp()), ReasonMalformed},
		{"IPv6 to an IPv4 address", ip(pod6, netip.AddrFrom16(other4.As16()), 17, udp(53, nil)), ReasonMalformed},
		{"mobility header", ip(pod6, other6, 135, make([]byte, 40)), ReasonExtensionHeader},
		{"hop-by-hop", ip(pod6, other6, 0, make([]byte, 40)), ReasonExtensionHeader},
		{"routing header", ip(pod6, other6, 43, make([]byte, 40)), ReasonExtensionHeader},
		{"destination options", ip(pod6, other6, 60, make([]byte, 40)), ReasonExtensionHeader},
		{"no next header", ip(pod6, other6, 59, make([]byte, 40)), ReasonProtocol},
		{"protocol 0 in IPv4", ip(pod4, other4, 0, make([]byte, 40)), ReasonProtocol},
		{"link-local TCP", ip(local6, other6, 6, tcp()), ReasonSpoofedSource},
		{"ICMPv6 cut short", ip(pod6, other6, 58, nil), ReasonMalformed},
		{"ARP for the pod", arp(pod4, 0), ReasonAllowed},
		{"ARP with Ethernet padding", arp(pod4, 18), ReasonAllowed},
		{"ARP with a trailer", arp(pod4, 19), ReasonMalformed},
		{"ARP probe", arpAbout(netip.IPv4Unspecified(), pod4, 0), ReasonAllowed},
		{"ARP probe of another's address", arp(netip.IPv4Unspecified(), 0), ReasonNeighbourSpoof},
		{"ARP for another", arp(other4, 0), ReasonNeighbourSpoof},
		{"ARP cut short", arp(pod4, 0)[:40], ReasonMalformed},
		{"ARP of another hardware", with(arp(pod4, 0), 15, 6), ReasonMalformed},
		{"solicitation", nd(135, pod6, other6, 8), ReasonAllowed},
		{"link-local solicitation", nd(135, local6, other6, 8), ReasonAllowed},
		{"duplicate address detection", nd(135, never, pod6, 0), ReasonAllowed},
		{"link-local duplicate address detection", nd(135, never, local6, 0), ReasonAllowed},
		{"duplicate address detection of another's address", nd(135, never, other6, 0), ReasonNeighbourSpoof},
		{"solicitation as another", nd(135, other6, pod6, 8), ReasonNeighbourSpoof},
		{"advertisement", nd(136, pod6, pod6, 8), ReasonAllowed},
		{"link-local advertisement", nd(136, local6, local6, 8), ReasonAllowed},
		{"advertisement of another's address", nd(136, pod6, other6, 8), ReasonNeighbourSpoof},
		{"advertisement as another", nd(136, other6, pod6, 8), ReasonNeighbourSpoof},
		{"advertisement with a trailer", nd(136, pod6, pod6, 64), ReasonMalformed},
		{"forwarded advertisement", with(nd(136, pod6, pod6, 8), 21, 254), ReasonNeighbourSpoof},
		{"advertisement cut short", nd(136, pod6, pod6, 0)[:70], ReasonMalformed},
		{"router solicitation", nd(133, local6, other6, 0), ReasonAllowed},
		{"router advertisement", nd(134, local6, other6, 0), ReasonNeighbourSpoof},
		{"redirect", nd(137, local6, other6, 0), ReasonNeighbourSpoof},
	}
	for _, a := range [][2]netip.Addr{{pod4, other4}, {pod6, other6}} {
		version := map[bool]string{true: " over IPv4", false: " over IPv6"}[a[0].Is4()]
		icmp, echo := uint8(58), byte(128)
		if a[0].Is4() {
			icmp, echo = 1, 8
		}
		cases = append(cases,
			packetCase{"TCP" + version, ip(a[0], a[1], 6, tcp()), ReasonAllowed},
			packetCase{"TCP with data" + version, ip(a[0], a[1], 6, slices.Concat(tcp(), make([]byte, 1000))), ReasonAllowed},
			packetCase{"TCP from another" + version, ip(a[1], a[0], 6, tcp()), ReasonSpoofedSource},
			packetCase{"TCP cut short" + version, ip(a[0], a[1], 6, tcp()[:19]), ReasonMalformed},
			packetCase{"TCP data offset" + version, ip(a[0], a[1], 6, with(tcp(), 12, 0x40)), ReasonMalformed},
			packetCase{"TCP header longer than the packet" + version, ip(a[0], a[1], 6, with(tcp(), 12, 0x60)), ReasonMalformed},
			packetCase{"UDP" + version, ip(a[0], a[1], 17, udp(53, nil)), ReasonAllowed},
			packetCase{"UDP with data" + version, ip(a[0], a[1], 17, udp(53, make([]byte, 1000))), ReasonAllowed},
			packetCase{"UDP from another" + version, ip(a[1], a[0], 17, udp(53, nil)), ReasonSpoofedSource},
			packetCase{"UDP cut short" + version, ip(a[0], a[1], 17, udp(53, nil)[:7]), ReasonMalformed},
			packetCase{"UDP length below its header" + version, ip(a[0], a[1], 17, with(udp(53, nil), 5, 7)), ReasonMalformed},
			packetCase{"UDP length beyond the packet" + version, ip(a[0], a[1], 17, with(udp(53, nil), 5, 9)), ReasonMalformed},
			packetCase{"UDP-Lite" + version, ip(a[0], a[1], 136, udp(53, nil)), ReasonProtocol},
			packetCase{"echo" + version, ip(a[0], a[1], icmp, with(make([]byte, 8), 0, echo)), ReasonICMP},
			packetCase{"SCTP" + version, ip(a[0], a[1], 132, make([]byte, 12)), ReasonProtocol},
			packetCase{"ESP" + version, ip(a[0], a[1], 50, make([]byte, 12)), ReasonProtocol},
		)
	}
	return cases
}

func TestPodEgressVerdicts(t *testing.T) {
	k := load(t)
	k.pod(nil)
	k.listen()
	k.broadcast(broadcast4)
	for _, c := range egressCases() {
		t.Run(c.name, func(t *testing.T) {
			k.t = t
			got := k.run(k.PodEgress, c.frame, skb{Ifindex: loopback, Mark: 0x40002000})
			if got.reason != c.reason || (got.verdict == verdictOK) != (c.reason == ReasonAllowed) {
				t.Errorf("verdict %d, %s; want %s", got.verdict, got.reason, c.reason)
			}
			neighbour := c.frame[12] == 8 && c.frame[13] == 6 || len(c.frame) > 20 && c.frame[20] == 58
			if c.reason == ReasonAllowed && !neighbour && got.mark != 0x40001000 {
				t.Errorf("mark %#x, want the capture mark and foreign bits kept", got.mark)
			}
		})
	}
	k.t = t
}

func TestPodEgressRefusesWhoIsNotOpen(t *testing.T) {
	k := load(t)
	k.listen()
	frames := map[string][]byte{"v4": ip(pod4, other4, 6, tcp()), "v6": ip(pod6, other6, 6, tcp()), "arp": arp(pod4, 0), "nd": nd(136, pod6, pod6, 8)}
	for name, frame := range frames {
		if got := k.run(k.PodEgress, frame, skb{Ifindex: loopback}); got.verdict != verdictShot || got.reason != ReasonPodUnknown {
			t.Errorf("%s of an unknown pod: %d, %s", name, got.verdict, got.reason)
		}
	}
	k.pod(func(p *Pod) { p.State = PodClosed })
	for name, frame := range frames {
		if got := k.run(k.PodEgress, frame, skb{Ifindex: loopback}); got.verdict != verdictShot || got.reason != ReasonPodLocked {
			t.Errorf("%s of a locked pod: %d, %s", name, got.verdict, got.reason)
		}
	}
	k.pod(func(p *Pod) { p.Addr4, p.Addr6 = 0, [4]uint32{} })
	for _, frame := range [][]byte{ip(netip.IPv4Unspecified(), other4, 6, tcp()), ip(netip.IPv6Unspecified(), other6, 6, tcp())} {
		if got := k.run(k.PodEgress, frame, skb{Ifindex: loopback}); got.reason != ReasonSpoofedSource {
			t.Errorf("a pod without addresses spoke: %d, %s", got.verdict, got.reason)
		}
	}
}

func TestPodEgressNeedsAListener(t *testing.T) {
	k := load(t)
	k.pod(nil)
	for _, frame := range [][]byte{
		ip(pod4, other4, 6, tcp()), ip(pod6, other6, 6, tcp()), ip(pod4, other4, 17, udp(53, nil)), ip(pod6, other6, 17, udp(53, nil)),
		fragment4(185, false, make([]byte, 5)), fragment6(17, 185, false, make([]byte, 5)),
	} {
		if got := k.run(k.PodEgress, frame, skb{Ifindex: loopback}); got.verdict != verdictShot || got.reason != ReasonNoListener {
			t.Errorf("got %d, %s", got.verdict, got.reason)
		}
	}
}

func TestPodEgressAddressesFramesOfABridgePortToTheBridge(t *testing.T) {
	k := load(t)
	k.listen()
	for _, master := range []uint32{0, 7} {
		k.pod(func(p *Pod) { p.Master, p.Gateway = master, gatewayMAC })
		frame := ip(pod4, other4, 6, tcp())
		want := frame[:6]
		if master != 0 {
			want = gatewayMAC[:]
		}
		if got := k.run(k.PodEgress, frame, skb{Ifindex: loopback}); got.verdict != verdictOK || !slices.Equal(got.data[:6], want) {
			t.Errorf("master %d: verdict %d, addressed to % x", master, got.verdict, got.data[:6])
		}
	}
}

func TestPodIngressVerdicts(t *testing.T) {
	const daemon, other = 0x40002000, 0x40001000
	k := load(t)
	for _, c := range []struct {
		name    string
		pod     func(*Pod)
		frame   []byte
		in      skb
		reason  Reason
		unknown bool
	}{
		{name: "unknown", unknown: true, frame: ip(other4, pod4, 6, tcp()), in: skb{Mark: daemon}, reason: ReasonPodUnknown},
		{name: "locked", pod: func(p *Pod) { p.State = PodClosed }, frame: ip(other4, pod4, 6, tcp()), in: skb{Mark: daemon}, reason: ReasonPodLocked},
		{name: "locked with host access", pod: func(p *Pod) { p.State, p.Flags = PodClosed, PodHostAccess }, frame: arp(other4, 0), in: skb{Mark: daemon}, reason: ReasonPodLocked},
		{name: "daemon v4", frame: ip(other4, pod4, 6, tcp()), in: skb{Mark: daemon}},
		{name: "daemon v6", frame: ip(other6, pod6, 6, tcp()), in: skb{Mark: daemon}},
		{name: "another process v4", frame: ip(other4, pod4, 6, tcp()), in: skb{}, reason: ReasonNotFromDaemon},
		{name: "another process v6", frame: ip(other6, pod6, 6, tcp()), in: skb{Mark: other}, reason: ReasonNotFromDaemon},
		{name: "both marks", frame: ip(other6, pod6, 6, tcp()), in: skb{Mark: 0x3000}, reason: ReasonNotFromDaemon},
		{name: "another process with host access", pod: func(p *Pod) { p.Flags = PodHostAccess }, frame: ip(other4, pod4, 6, tcp())},
		{name: "for another pod v4", frame: ip(other4, broadcast4, 6, tcp()), in: skb{Mark: daemon}, reason: ReasonNotForPod},
		{name: "for another pod v6", frame: ip(other6, other6, 17, udp(53, nil)), in: skb{Mark: daemon}, reason: ReasonNotForPod},
		{name: "for another pod with host access", pod: func(p *Pod) { p.Flags = PodHostAccess }, frame: ip(other4, other4, 6, tcp()), reason: ReasonNotForPod},
		{name: "forwarded v4", frame: ip(other4, pod4, 6, tcp()), in: skb{Mark: daemon, IngressIfindex: 1}, reason: ReasonForwardedToPod},
		{name: "forwarded v6 with host access", pod: func(p *Pod) { p.Flags = PodHostAccess }, frame: ip(other6, pod6, 6, tcp()), in: skb{IngressIfindex: 1}, reason: ReasonForwardedToPod},
		{name: "ARP of a neighbour", frame: arp(other4, 0), in: skb{IngressIfindex: 1}},
		{name: "ARP with a trailer", frame: arp(other4, 30), in: skb{IngressIfindex: 1}, reason: ReasonMalformed},
		{name: "solicitation of a neighbour", frame: nd(135, other6, pod6, 8), in: skb{IngressIfindex: 1}},
		{name: "advertisement with a trailer", frame: nd(136, other6, other6, 64), in: skb{IngressIfindex: 1}, reason: ReasonMalformed},
		{name: "unknown EtherType", frame: ether(0x88b5, make([]byte, 40)), in: skb{Mark: daemon}, reason: ReasonEthertype},
		{name: "VLAN", frame: ether(0x8100, make([]byte, 40)), in: skb{Mark: daemon}, reason: ReasonVLAN},
	} {
		t.Run(c.name, func(t *testing.T) {
			k.t = t
			k.pod(c.pod)
			if c.unknown {
				if err := k.Pods.Delete(uint32(loopback)); err != nil {
					t.Fatal(err)
				}
			}
			c.in.Ifindex = loopback
			got := k.run(k.PodIngress, c.frame, c.in)
			if got.reason != c.reason || (got.verdict == verdictOK) != (c.reason == ReasonAllowed) {
				t.Errorf("verdict %d, %s; want %s", got.verdict, got.reason, c.reason)
			}
			if got.mark != c.in.Mark {
				t.Errorf("the mark became %#x", got.mark)
			}
		})
	}
	k.t = t
}

func TestPodGuardRefusesPacketsWithoutTheStamp(t *testing.T) {
	k := load(t)
	for _, frame := range [][]byte{ip(other4, pod4, 6, tcp()), ip(other6, pod6, 6, tcp()), arp(other4, 0)} {
		if got := k.run(k.PodGuard, frame, skb{Ifindex: loopback}); got.verdict != verdictShot || got.reason != ReasonGuardBypass {
			t.Errorf("got %d, %s", got.verdict, got.reason)
		}
	}
}

func TestNodeEgressRefusesForwardedPackets(t *testing.T) {
	k := load(t)
	for _, frame := range [][]byte{ip(pod4, other4, 6, tcp()), ip(pod6, other6, 6, tcp()), ether(0x88b5, make([]byte, 40))} {
		if got := k.run(k.NodeEgress, frame, skb{Ifindex: loopback}); got.verdict != verdictOK || got.reason != ReasonAllowed {
			t.Errorf("own packet: %d, %s", got.verdict, got.reason)
		}
		if got := k.run(k.NodeEgress, frame, skb{Ifindex: loopback, IngressIfindex: 1}); got.verdict != verdictShot || got.reason != ReasonForwarded {
			t.Errorf("forwarded packet: %d, %s", got.verdict, got.reason)
		}
	}
}

func TestNodeEgressKeepsTheDaemonsPacketsAndTheirQuotes(t *testing.T) {
	k := load(t)
	gone := ip(other4, pod4, 6, tcp())[14:] // the daemon's, as a pod elsewhere, to a pod here
	gone6 := ip(other6, pod6, 6, tcp())[14:]
	asked := ip(pod4, other4, 17, udp(9, nil))[14:] // sent to the node
	asked6 := ip(pod6, other6, 17, udp(9, nil))[14:]
	icmp := func(kind byte, quoted []byte) []byte { return append([]byte{kind, 1, 0, 0, 0, 0, 0, 0}, quoted...) }
	for name, c := range map[string]struct {
		frame  []byte
		in     skb
		reason Reason
	}{
		"the daemon's TCP":                  {ip(other4, pod4, 6, tcp()), skb{Mark: 0x2000}, ReasonAstray},
		"the daemon's datagram":             {ip(other6, pod6, 17, udp(53, nil)), skb{Mark: 0x2000}, ReasonAstray},
		"a mark with further bits":          {ip(other4, pod4, 6, tcp()), skb{Mark: 0xf0002000}, ReasonAstray},
		"the node's own TCP":                {ip(other4, pod4, 6, tcp()), skb{}, ReasonAllowed},
		"another's mark":                    {ip(other4, pod4, 6, tcp()), skb{Mark: 0x4000}, ReasonAllowed},
		"unreachable, about a pod":          {ip(broadcast4, other4, 1, icmp(3, gone)), skb{}, ReasonICMPQuote},
		"exceeded, about a pod":             {ip(broadcast4, other4, 1, icmp(11, gone)), skb{}, ReasonICMPQuote},
		"unreachable, about the node":       {ip(other4, pod4, 1, icmp(3, asked)), skb{}, ReasonAllowed},
		"unreachable, cut short":            {ip(other4, pod4, 1, icmp(3, asked[:18])), skb{}, ReasonICMPQuote},
		"echo":                              {ip(other4, pod4, 1, icmp(8, make([]byte, 40))), skb{}, ReasonAllowed},
		"IPv6 unreachable, about a pod":     {ip(local6, other6, 58, icmp(1, gone6)), skb{}, ReasonICMPQuote},
		"IPv6 too big, about a pod":         {ip(local6, other6, 58, icmp(2, gone6)), skb{}, ReasonICMPQuote},
		"IPv6 unreachable, about the node":  {ip(other6, pod6, 58, icmp(1, asked6)), skb{}, ReasonAllowed},
		"IPv6 unreachable, cut short":       {ip(other6, pod6, 58, icmp(1, asked6[:30])), skb{}, ReasonICMPQuote},
		"IPv6 echo":                         {ip(other6, pod6, 58, icmp(128, make([]byte, 40))), skb{}, ReasonAllowed},
		"a frame of which nothing is known": {ether(0x88b5, make([]byte, 40)), skb{}, ReasonAllowed},
	} {
		c.in.Ifindex = loopback
		if got := k.run(k.NodeEgress, c.frame, c.in); got.reason != c.reason || (got.verdict == verdictOK) != (c.reason == ReasonAllowed) {
			t.Errorf("%s: verdict %d, %s; want %s", name, got.verdict, got.reason, c.reason)
		}
	}
}

// BPF_PROG_RUN gives steer no incoming device, so a pod here is on device 0 or
// it is elsewhere; package loader tests real devices and bridges.
func TestSteerVerdicts(t *testing.T) {
	v4 := func(src netip.Addr, protocol uint32) lookup {
		return lookup{Family: 2, Protocol: protocol, RemoteIP4: words(src)[3], LocalIP4: words(other4)[3], LocalPort: 80}
	}
	v6 := func(src netip.Addr, protocol uint32) lookup {
		return lookup{Family: 10, Protocol: protocol, RemoteIP6: words(src), LocalIP6: words(other6), LocalPort: 80}
	}
	k := load(t)
	for _, c := range []struct {
		name    string
		in      lookup
		owner   PodAddr
		listens bool
		reason  Reason
		steered bool
	}{
		{"pod v4 without a listener", v4(pod4, 6), PodAddr{}, false, ReasonSteerNoListener, false},
		{"pod v6 without a listener", v6(pod6, 6), PodAddr{}, false, ReasonSteerNoListener, false},
		{"UDP v4 without a listener", v4(pod4, 17), PodAddr{}, false, ReasonSteerNoListener, false},
		{"UDP v6 without a listener", v6(pod6, 17), PodAddr{}, false, ReasonSteerNoListener, false},
		{"pod v4", v4(pod4, 6), PodAddr{}, true, ReasonAllowed, true},
		{"pod v6", v6(pod6, 6), PodAddr{}, true, ReasonAllowed, true},
		{"another host v4", v4(other4, 6), PodAddr{}, true, ReasonAllowed, false},
		{"another host v6", v6(other6, 6), PodAddr{}, true, ReasonAllowed, false},
		{"pod's address on another link v4", v4(pod4, 6), PodAddr{Ifindex: 9}, true, ReasonSteerSpoofed, false},
		{"pod's address on another link v6", v6(pod6, 6), PodAddr{Ifindex: 9}, true, ReasonSteerSpoofed, false},
		{"bridged pod's address elsewhere", v6(pod6, 6), PodAddr{Ifindex: 9, Master: 8}, true, ReasonSteerSpoofed, false},
		{"UDP v4", v4(pod4, 17), PodAddr{}, true, ReasonAllowed, true},
		{"UDP v6", v6(pod6, 17), PodAddr{}, true, ReasonAllowed, true},
		{"UDP of another host", v4(other4, 17), PodAddr{}, true, ReasonAllowed, false},
		{"UDP of a pod's address on another link", v6(pod6, 17), PodAddr{Ifindex: 9}, true, ReasonSteerSpoofed, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k.t = t
			for _, a := range []netip.Addr{pod4, pod6} {
				if err := k.PodAddrs.Put(words(a), c.owner); err != nil {
					t.Fatal(err)
				}
			}
			if c.listens {
				k.listen()
			}
			got, cookie := k.lookup(c.in)
			if got.reason != c.reason || (got.verdict == skPass) != (c.reason == ReasonAllowed) {
				t.Errorf("verdict %d, %s; want %s", got.verdict, got.reason, c.reason)
			}
			if (cookie != 0) != c.steered {
				t.Errorf("selected socket %d", cookie)
			}
		})
	}
	k.t = t
}

func TestReasonsAreNamedAndDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Reasons() {
		if r.String() == "" || r.Description() == "" || seen[r.String()] {
			t.Errorf("%d: %q, %q", r, r, r.Description())
		}
		seen[r.String()] = true
	}
	if got := Reason(9999); got.String() != "reason-9999" || got.Description() == "" {
		t.Errorf("unknown reason: %q %q", got, got.Description())
	}
	if len(seen) != 30 || ReasonForwardedToPod.String() != "forwarded-to-pod" {
		t.Errorf("%d reasons: %v", len(seen), seen)
	}
}
