// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"math/rand/v2"
	"testing"
)

// seeds are the packets of the verdict tests, and chains of extension headers.
func seeds() (frames [][]byte) {
	for _, c := range egressCases() {
		frames = append(frames, c.frame)
	}
	for _, next := range []byte{0, 6, 17, 43, 44, 58, 59, 60, 135, 139, 140} {
		for _, chain := range [][]byte{{0}, {43}, {44}, {60}, {60, 43}, {0, 44}, {44, 60}, {51}} {
			payload := append(udp(53, nil), tcp()...)
			for i := range chain {
				header := make([]byte, 8)
				header[0] = next
				if i > 0 {
					header[0] = chain[len(chain)-i]
				}
				payload = append(header, payload...)
			}
			frames = append(frames, ip(pod6, other6, chain[0], payload))
		}
	}
	return frames
}

func fuzzKernel(t testing.TB) *kernel {
	k := load(t)
	k.pod(nil)
	k.listen()
	k.broadcast(broadcast4)
	return k
}

// taken tells whether BPF_PROG_RUN takes a frame as it is: it wants a whole IP
// header where the EtherType promises one.
func taken(frame []byte) bool {
	return len(frame) >= 14 && len(frame) <= 1500 && (be.Uint16(frame[12:]) != 0x0800 || len(frame) >= 34) && (be.Uint16(frame[12:]) != 0x86dd || len(frame) >= 54)
}

// checkEgress compares pod_egress with the reference parser.
func (k *kernel) checkEgress(t testing.TB, frame []byte, gsoSize uint16, mark uint32) {
	t.Helper()
	k.t = t
	k.clock(0)
	in := skb{Ifindex: loopback, Mark: mark, GSOSize: uint32(gsoSize)}
	got := k.run(k.PodEgress, frame, in)
	why, captured := referenceEgress(frame, gsoSize)
	wantVerdict, wantMark := uint32(verdictShot), mark
	if why == ReasonAllowed {
		wantVerdict = verdictOK
	}
	if captured {
		wantMark = mark&^0x3000 | 0x1000
	}
	if got.reason != why || got.verdict != wantVerdict || got.mark != wantMark {
		t.Fatalf("verdict %d, %s, mark %#x; the reference says %d, %s, %#x\ngso_size %d, % x", got.verdict, got.reason, got.mark, wantVerdict, why, wantMark, gsoSize, frame)
	}
}

// Whatever a pod sends, the program and the reference agree on it: nothing
// passes that the reference refuses, and every refusal is counted once, under
// the reference's reason.
func FuzzPodEgress(f *testing.F) {
	for i, frame := range seeds() {
		f.Add(frame, uint16(i%2)*1400, uint32(i%4)<<12)
	}
	k := fuzzKernel(f)
	f.Fuzz(func(t *testing.T, frame []byte, gsoSize uint16, mark uint32) {
		if !taken(frame) {
			t.Skip("not a frame")
		}
		k.checkEgress(t, frame, gsoSize, mark)
	})
}

// The same in the other direction, whoever sends.
func FuzzPodIngress(f *testing.F) {
	for i, frame := range seeds() {
		f.Add(frame, uint16(i%2)*1400, uint32(i%4)<<12, i%3 == 0)
	}
	k := fuzzKernel(f)
	f.Fuzz(func(t *testing.T, frame []byte, gsoSize uint16, mark uint32, forwarded bool) {
		if !taken(frame) {
			t.Skip("not a frame")
		}
		k.t = t
		in := skb{Ifindex: loopback, Mark: mark, GSOSize: uint32(gsoSize)}
		if forwarded {
			in.IngressIfindex = loopback
		}
		got := k.run(k.PodIngress, frame, in)
		why := referenceIngress(frame, gsoSize != 0, mark, in.IngressIfindex)
		if got.reason != why || (got.verdict == verdictOK) != (why == ReasonAllowed) || got.mark != mark {
			t.Fatalf("verdict %d, %s, mark %#x; the reference says %s, %#x\n% x", got.verdict, got.reason, got.mark, why, mark, frame)
		}
	})
}

// Go's fuzzer sees no branch of a BPF program. So the same comparison is made
// with packets that are nearly right: cut, with a byte or a field changed, or
// with the middle of another inside.
func TestProgramAndReferenceAgreeOnDamagedPackets(t *testing.T) {
	k := fuzzKernel(t)
	random := rand.New(rand.NewPCG(1, 2))
	frames := seeds()
	for range 20000 {
		frame := append([]byte(nil), frames[random.IntN(len(frames))]...)
		for range 1 + random.IntN(3) {
			frame = damage(random, frame, frames)
		}
		if taken(frame) {
			k.checkEgress(t, frame, uint16(random.IntN(2))*1400, random.Uint32())
		}
	}
	k.t = t
}

func damage(random *rand.Rand, frame []byte, others [][]byte) []byte {
	at := random.IntN(len(frame))
	switch random.IntN(6) {
	case 0:
		return frame[:max(at, 14)]
	case 1: // a flag, a length, a type
		frame[at] ^= 1 << random.IntN(8)
	case 2: // within the headers
		frame[12+random.IntN(min(len(frame)-12, 50))] = byte(random.IntN(256))
	case 3: // the next header or protocol
		if len(frame) > 24 {
			protocols := []byte{0, 1, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 135, 136}
			frame[[]int{20, 23, 54}[random.IntN(3)]%len(frame)] = protocols[random.IntN(len(protocols))]
		}
	case 4: // the lengths
		if len(frame) > 20 {
			frame[16+random.IntN(4)] = byte(random.IntN(64))
		}
	case 5:
		other := others[random.IntN(len(others))]
		return append(frame[:at], other[min(at, len(other)):]...)
	}
	return frame
}
