// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"
)

// serveDatagrams runs the server, behind a relay that loses some datagrams
// where lose says so.
func serveDatagrams(t *testing.T, lose func(i int, datagram []byte) bool) Dial {
	t.Helper()
	listen := func() *net.UDPConn {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	server := listen()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ServeDatagrams(ctx, server) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ServeDatagrams: %v", err)
		}
	})
	front := server
	if lose != nil {
		front = listen()
		go relayDatagrams(front, server.LocalAddr().(*net.UDPAddr).AddrPort(), lose)
	}
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", front.LocalAddr().String())
	}
}

// relayDatagrams serves a single client.
func relayDatagrams(front *net.UDPConn, server netip.AddrPort, lose func(int, []byte) bool) {
	var client netip.AddrPort
	buf := make([]byte, maxDatagram)
	for i := 0; ; {
		n, from, err := front.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		to := client
		if from != server {
			client, to = from, server
			if buf[0] != datagramReport {
				i++
				if lose(i, buf[:n]) {
					continue
				}
			}
		}
		_, _ = front.WriteToUDPAddrPort(buf[:n], to)
	}
}

func TestDatagramsCountsWhatTheServerReceived(t *testing.T) {
	for _, flows := range []int{1, 4} {
		r, err := Datagrams(t.Context(), serveDatagrams(t, nil), flows, 200, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if r.Received == 0 || r.Received > r.Sent || r.PerSecond() <= 0 || r.Lost() < 0 || r.Lost() >= 1 {
			t.Errorf("%d flows: %+v", flows, r)
		}
	}
}

func TestDatagramsCountsLoss(t *testing.T) {
	r, err := Datagrams(t.Context(), serveDatagrams(t, func(i int, _ []byte) bool { return i%2 == 0 }), 1, 200, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.Lost() < 0.5 { // the queue in front of the relay may lose more
		t.Errorf("%+v: lost %g, want at least half", r, r.Lost())
	}
}

func TestDatagramsThatNeverArriveFail(t *testing.T) {
	if r, err := Datagrams(t.Context(), serveDatagrams(t, func(int, []byte) bool { return true }), 1, 200, 10*time.Millisecond); err == nil {
		t.Errorf("got %+v", r)
	}
	if _, err := Datagrams(t.Context(), nil, 1, datagramHeader-1, time.Second); err == nil {
		t.Error("a size without room for the number was taken")
	}
}

func TestDatagramLatencyCountsEachOnceAndTheLost(t *testing.T) {
	const total = 100
	r, err := DatagramLatency(t.Context(), serveDatagrams(t, func(i int, _ []byte) bool { return i%10 == 0 }), 64, 1000, total*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if r.Sent != total || r.Lost != total/10 || r.Latencies.Count() != total-total/10 || r.Pacing.Count() != total {
		t.Errorf("%d sent, %d lost, %d back, %d paced", r.Sent, r.Lost, r.Latencies.Count(), r.Pacing.Count())
	}
	t.Logf("p50 %s, p99 %s", r.Latencies.Quantile(0.5), r.Latencies.Quantile(0.99))
	if _, err := DatagramLatency(t.Context(), nil, 64, 0, time.Second); err == nil {
		t.Error("no rate was taken")
	}
}

func TestDatagramsEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dial := serveDatagrams(t, func(int, []byte) bool { cancel(); return false })
	if _, err := Datagrams(ctx, dial, 1, 64, time.Hour); err == nil {
		t.Error("no error")
	}
}
