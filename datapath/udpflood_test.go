// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestBirthsAreAPodsOwn(t *testing.T) {
	now := time.Unix(1000, 0)
	b := births{perSecond: 2, burst: 3, pods: map[string]*bucket{}}
	take := func(uid string) (n int) {
		for b.take(uid, now) {
			n++
		}
		return n
	}
	for _, step := range []struct {
		uid   string
		after time.Duration
		want  int
	}{{"a", 0, 3}, {"a", 0, 0}, {"b", 0, 3}, {"a", 500 * time.Millisecond, 1}, {"a", time.Hour, 3}, {"b", 0, 3}} {
		now = now.Add(step.after)
		if got := take(step.uid); got != step.want {
			t.Errorf("%+v: %d", step, got)
		}
	}
	if b.refusals() != 6 {
		t.Errorf("%d refusals", b.refusals())
	}
	if b.forget(now); len(b.pods) != 2 {
		t.Errorf("forgot a pod that has used its burst: %d", len(b.pods))
	}
	if b.forget(now.Add(2 * time.Second)); len(b.pods) != 0 {
		t.Errorf("remembers %d pods", len(b.pods))
	}
}

// answered sends until an answer comes, at most tries times, as applications
// over UDP do, and returns how often it had to.
func (c *udpClient) answered(t *testing.T, payload string, tries int) int {
	t.Helper()
	b := make([]byte, 100)
	for n := range tries {
		c.send(udpVIP, payload)
		must(t, c.conn.SetReadDeadline(time.Now().Add(time.Second)))
		k, _, err := c.conn.ReadFromUDPAddrPort(b)
		if err == nil && string(b[:k]) == "re:"+payload {
			return n + 1
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%q, %v", b[:k], err)
		}
	}
	t.Fatalf("%d datagrams of another pod's new flow, and no answer", tries)
	return 0
}

func TestOthersBeginFlowsWhileOnePodFloods(t *testing.T) {
	const burst, clients, tries = 32, 20, 15
	_, a, _ := udpPair(t, Limits{FlowRate: 1, FlowBurst: burst})
	a.pod(policytest.Web, hostileAddr)
	newEchoUDP(t, dbApp)
	to := netip.MustParseAddrPort(udpVIP)
	a.target.Store(&to)
	refused := func() uint64 { return a.proxy.Stats().Limits["new-flows"] }
	var socks []*net.UDPConn
	for range 512 {
		socks = append(socks, bindUDP(t, hostileAddr+":0"))
	}
	// As fast as the node takes them, and all at once: the pod's processor time
	// is the test's own, and what it may take of that is not the question here.
	stop := attack(t, 1, func() {
		before := refused()
		for _, c := range socks {
			_, _ = c.WriteToUDPAddrPort(make([]byte, 1000), a.packetEntry())
		}
		for end := time.Now().Add(time.Second); refused() < before+uint64(len(socks)/2) && time.Now().Before(end); {
			time.Sleep(50 * time.Microsecond)
		}
	})
	defer stop()
	for refused() == 0 {
		time.Sleep(time.Millisecond)
	}
	retries := 0
	for i := range clients {
		retries += a.udp(webAddr).answered(t, fmt.Sprint(i), tries) - 1
	}
	stop()
	s := a.proxy.Stats()
	t.Logf("%d datagrams of new flows were refused; %d flows of another pod were answered with %d retries", refused(), clients, retries)
	if s.FlowsOut > 2*burst+clients {
		t.Errorf("%d flows: the limit of new ones does not hold", s.FlowsOut)
	}
	a.wantRefusal(reasonTooMany)
}

// refusedFlood is a node with a pod that has used up its new flows, and one
// datagram more of it.
func refusedFlood(t testing.TB) (datagram func()) {
	w := newWorld(t, allowUDP(udpPort))
	a := w.node("127.0.0.1", Limits{FlowRate: 1, FlowBurst: 1})
	pod := a.pod(policytest.Web, webAddr)
	a.proxy.births.take(pod.UID, w.now())
	l := a.proxy.packets[0]
	key := flowKey{netip.MustParseAddrPort(webAddr + ":4000"), netip.MustParseAddrPort(udpVIP)}
	payload := make([]byte, 1000)
	a.proxy.Pause() // the caller takes the reader's place
	a.proxy.cfg.Now = func() time.Time { return time.Unix(0, 0) }
	ctx := context.Background()
	datagram = func() { a.proxy.datagram(ctx, l, key, payload) }
	datagram() // makes the record of this second
	return datagram
}

func TestRefusedNewFlowsAllocateNothing(t *testing.T) {
	if n := testing.AllocsPerRun(100, refusedFlood(t)); n != 0 {
		t.Errorf("%v allocations for a datagram that is refused", n)
	}
}

func BenchmarkRefusedNewFlow(b *testing.B) {
	datagram := refusedFlood(b)
	b.ReportAllocs()
	for b.Loop() {
		datagram()
	}
}

func TestBatchesTellWhereEachDatagramIsFromAndTo(t *testing.T) {
	socks, err := ListenTransparentUDP(t.Context(), unmarked)
	must(t, err)
	for _, conn := range socks {
		defer conn.Close()
		self := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		l, err := newFirsts(conn)
		must(t, err)
		must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		var senders [3]*net.UDPConn
		for i := range senders {
			senders[i], err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(self))
			must(t, err)
			defer senders[i].Close()
		}
		sizes := []int{0, 1, 1400, 65507}
		var sent []string // by whom, and how much
		for i := range 2 * batchSize {
			c, size := senders[i%len(senders)], sizes[i%len(sizes)]
			if i >= 8 {
				size = min(size, 1400) // they all fit into the queue
			}
			_, err := c.Write(bytes.Repeat([]byte{byte(i)}, size))
			must(t, err)
			sent = append(sent, fmt.Sprint(c.LocalAddr(), self, size))
		}
		got := 0
		for got < len(sent) {
			must(t, l.read())
			for i := range l.n {
				p := l.payload(i)
				if s := fmt.Sprint(l.source(i), origDstUDP(l.control(i)), len(p)); s != sent[got] {
					t.Fatalf("datagram %d: %s, want %s", got, s, sent[got])
				}
				if len(p) > 0 && (p[0] != byte(got) || p[len(p)-1] != byte(got)) {
					t.Errorf("datagram %d holds another's bytes", got)
				}
				got++
			}
		}
		if l.n > batchSize || got != len(sent) {
			t.Errorf("%d datagrams, the last %d at once", got, l.n)
		}
	}
}
