// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	binenc "encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// A game sends its state 60 times a second and looks at how old the answers are.
// What the network between the nodes loses, the tunnel repeats: it costs time,
// never a datagram.
func TestGameLikeStream(t *testing.T) {
	c := newCluster(t, withUDP)
	client, server := openPod(t, c.Nodes[0], "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Bridged)
	serveDatagrams(t, server, echoPort)
	to := netip.AddrPortFrom(server.Addr4, echoPort)
	playGame(t, dialUDP(t, client, to), "a good network")
	for _, n := range c.Nodes {
		loseOneIn(t, n, 100)
	}
	playGame(t, dialUDP(t, client, to), "1 % of all packets lost, each way")
}

// loseOneIn has the node lose every so manieth packet of others' tunnels.
func loseOneIn(t *testing.T, n *cluster.Node, one int) {
	t.Helper()
	rules := fmt.Sprintf("add table inet lossy; add chain inet lossy in { type filter hook prerouting priority 0; }; "+
		"add rule inet lossy in iifname %s meta l4proto tcp numgen random mod %d 0 drop", lab.Uplink, one)
	if out, err := n.Lab.Command(t.Context(), "nft", rules).Output(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func playGame(t *testing.T, conn *net.UDPConn, network string) {
	t.Helper()
	const rate, count, size = 60, 300, 200
	var mu sync.Mutex
	sent := map[uint32]time.Time{}
	ages := []time.Duration{}
	done := make(chan error, 1)
	go func() {
		buf := make([]byte, size+1)
		for next := range uint32(count) {
			n, err := conn.Read(buf)
			if err != nil {
				done <- err
				return
			}
			if seq := binenc.BigEndian.Uint32(buf); n != size || seq != next {
				done <- fmt.Errorf("datagram %d of %d bytes instead of %d", seq, n, next)
				return
			}
			mu.Lock()
			ages = append(ages, time.Since(sent[next]))
			mu.Unlock()
		}
		done <- nil
	}()
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for seq := range uint32(count) {
		<-tick.C
		state := make([]byte, size)
		binenc.BigEndian.PutUint32(state, seq)
		mu.Lock()
		sent[seq] = time.Now()
		mu.Unlock()
		if _, err := conn.Write(state); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
		return
	}
	slices.Sort(ages)
	at := func(percent int) time.Duration { return ages[(len(ages)-1)*percent/100].Round(10 * time.Microsecond) }
	t.Logf("%s: all %d came back in order; median %s, 95 %% within %s, 99 %% within %s, all within %s", network, count, at(50), at(95), at(99), at(100))
}
