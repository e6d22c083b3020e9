// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"
)

const (
	macs  = "ffffffffffff020000000001"
	pod4  = "0a510102"
	node4 = "0a500001"
	pod6  = "fd810001000000000000000000000002"
	node6 = "fd800000000000000000000000000001"
	tcp   = "d43100500000000000000000500000000000000061626364"
	tun   = "d4313aa00000000000000000500000000000000061626364"
	udp   = "d43100350000000061626364"
)

func v4(proto, frag, src, dst, rest string) string {
	return macs + "0800" + "45000000" + "0000" + frag + "40" + proto + "0000" + src + dst + rest
}

func v6(next, src, dst, rest string) string {
	return macs + "86dd" + "60000000" + "0000" + next + "40" + src + dst + rest
}

func TestClassification(t *testing.T) {
	cases := []struct {
		name           string
		frame          string
		plain, unknown bool
	}{
		{"tcp from pod", v4("06", "0000", pod4, node4, tcp), true, false},
		{"tcp to pod", v4("06", "0000", node4, pod4, tcp), true, false},
		{"tcp between nodes", v4("06", "0000", node4, node4, tcp), false, false},
		{"tunnel to pod", v4("06", "0000", node4, pod4, tun), false, false},
		{"udp from pod", v4("11", "0000", pod4, node4, udp), true, false},
		{"icmp from pod", v4("01", "0000", pod4, node4, "0800000000000000"), true, false},
		{"later fragment from pod", v4("06", "0001", pod4, node4, tun), true, false},
		{"arp", macs + "0806" + strings.Repeat("00", 28), false, false},
		{"udp6 from pod", v6("11", pod6, node6, udp), true, false},
		{"tunnel6", v6("06", pod6, node6, tun), false, false},
		{"tunnel6 behind extension", v6("3c", pod6, node6, "0600000000000000"+tun), false, false},
		{"tcp6 behind extension", v6("3c", pod6, node6, "0600000000000000"+tcp), true, false},
		{"echo6 from pod", v6("3a", pod6, node6, "80000000"), true, false},
		{"neighbour solicitation", v6("3a", pod6, node6, "87000000"), false, false},
		{"listener report", v6("00", pod6, node6, "3a000502000001008f000000"), false, false},
		{"fragmented discovery", v6("2c", pod6, node6, "3a0000010000000087000000"), true, false},
		{"later fragment6", v6("2c", pod6, node6, "06000008000000003aa03aa0"), true, false},
		{"icmpv6 inside ipv4", v4("3a", "0000", pod4, node4, "87000000"), true, false},
		{"tagged udp from pod", macs + "81000005" + v4("11", "0000", pod4, node4, udp)[24:], true, false},
		{"unknown ethertype", macs + "88b5" + pod4, false, true},
		{"short frame", "ffff", false, true},
		{"cut ipv4 header from pod", v4("06", "0000", pod4, node4, ""), true, false},
		{"bad header length from pod", macs + "0800" + "4f000000" + "0000000040060000" + pod4 + node4, true, true},
		{"cut extension from pod", v6("3c", pod6, node6, "06ff"), true, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			frame, err := hex.DecodeString(c.frame)
			if err != nil {
				t.Fatal(err)
			}
			got := classify(frame)
			if (got.PlainPackets == 1) != c.plain || (got.UnknownPackets == 1) != c.unknown {
				t.Errorf("plain %d unknown %d: %v", got.PlainPackets, got.UnknownPackets, decode(frame).Packet)
			}
		})
	}
}

func classify(frame []byte) Report {
	c := &Capture{
		opts: Options{
			Pods:       []netip.Prefix{netip.MustParsePrefix("10.81.0.0/16"), netip.MustParsePrefix("fd81::/16")},
			TunnelPort: DefaultTunnelPort, Keep: defaultKeep, Canary: []byte("canary"),
		},
		tails: map[flow][]byte{},
	}
	c.add(frame, len(frame), 1, time.Unix(0, 0))
	return c.report
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		v4("06", "0000", pod4, node4, tcp), v6("3c", pod6, node6, "0600000000000000"+tcp),
		v6("2c", pod6, node6, "06000008000000003aa03aa0"), macs + "81000005" + v4("11", "0000", pod4, node4, udp)[24:],
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		d := decode(frame)
		if !bytes.HasSuffix(frame, d.payload) && !bytes.Contains(frame, d.payload) {
			t.Error("payload lies outside the frame")
		}
		_ = d.String()
		if r := classify(frame); r.Packets != 1 || (r.CanaryHits == 1) != bytes.Contains(frame, []byte("canary")) {
			t.Errorf("%+v", r)
		}
	})
}
