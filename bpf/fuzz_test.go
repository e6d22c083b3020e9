// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"net/netip"
	"testing"
)

// Whatever a pod sends, it is either refused and counted once, or one of the
// three things a pod may send: TCP from its own address, ARP or neighbour
// discovery of its own.
func FuzzPodEgress(f *testing.F) {
	for _, c := range egressCases() {
		f.Add(c.frame)
	}
	k := load(f)
	k.pod(nil)
	k.listen()
	f.Fuzz(func(t *testing.T, frame []byte) {
		// BPF_PROG_RUN itself takes no IP frame without a whole IP header.
		if len(frame) < 14 || len(frame) > 1500 || be.Uint16(frame[12:]) == 0x0800 && len(frame) < 34 || be.Uint16(frame[12:]) == 0x86dd && len(frame) < 54 {
			t.Skip("not a frame")
		}
		k.t = t
		got := k.run(k.PodEgress, frame, skb{Ifindex: loopback})
		if got.verdict != verdictOK && got.verdict != verdictShot || (got.verdict == verdictOK) != (got.reason == ReasonAllowed) {
			t.Fatalf("verdict %d with reason %s", got.verdict, got.reason)
		}
		if got.verdict == verdictOK && !permitted(frame, got.mark) {
			t.Fatalf("passed with mark %#x: % x", got.mark, frame)
		}
	})
}

// permitted judges an accepted frame by an independent, plainer reading.
func permitted(b []byte, mark uint32) bool {
	switch be.Uint16(b[12:]) {
	case 0x0806:
		return mark == 0 && len(b) >= 42 && len(b) <= 60 && (bytes.Equal(b[28:32], pod4.AsSlice()) || bytes.Equal(b[28:32], make([]byte, 4)))
	case 0x0800:
		own := mark == 0x1000 && b[14] == 0x45 && bytes.Equal(b[26:30], pod4.AsSlice()) && b[30]&0xf0 != 0xe0
		return own && (b[23] == 17 || b[23] == 6 && len(b) >= 54 && be.Uint16(b[20:])&0x3fff == 0)
	case 0x86dd:
		if len(b) < 54 || b[14]>>4 != 6 {
			return false
		}
		src, _ := netip.AddrFromSlice(b[22:38])
		if b[20] == 6 || b[20] == 17 || b[20] == 44 && b[54] == 17 {
			return mark == 0x1000 && src == pod6 && b[38] != 0xff && (b[20] != 6 || len(b) >= 74)
		}
		own := src == pod6 || src.IsLinkLocalUnicast() || src.IsUnspecified()
		return mark == 0 && b[20] == 58 && b[21] == 255 && len(b) <= 128 && own && len(b) >= 62 && (b[54] == 133 || b[54] == 135 || b[54] == 136)
	}
	return false
}
