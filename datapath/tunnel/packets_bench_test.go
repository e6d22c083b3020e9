// SPDX-License-Identifier: Apache-2.0

package tunnel

import "testing"

// BenchmarkDatagrams carries bursts from one application socket through both
// relays to the other: what one datagram costs both daemons and the sockets.
func BenchmarkDatagrams(b *testing.B) {
	const burst = 32 // fits the sockets' buffers, so that none is dropped
	for _, wire := range []string{"tcp", "tls"} {
		for _, size := range []int{100, 1200} {
			b.Run("wire="+wire+"/"+map[int]string{100: "100B", 1200: "1200B"}[size], func(b *testing.B) {
				r := newPacketRig(b, wire == "tls")
				r.nearP.Settle()
				r.relay()
				payload, buf := make([]byte, size), make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for left := b.N; left > 0; left -= burst {
					n := min(burst, left)
					for range n {
						if _, err := r.near.Write(payload); err != nil {
							b.Fatal(err)
						}
					}
					for range n {
						if _, err := r.far.Read(buf); err != nil {
							b.Fatal(err)
						}
					}
				}
				b.StopTimer()
				r.nearP.Finish()
				<-r.done
			})
		}
	}
}
