// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// udpPorts is how many ports after echoPort servers take datagrams on.
const udpPorts = 40

func withUDP(o *cluster.Options) {
	ports := []uint16{}
	for i := range udpPorts {
		ports = append(ports, echoPort+uint16(i))
	}
	udp := func(peer string) policy.PeerRule {
		return policy.PeerRule{Workload: peer, Ports: ports, Protocol: policy.ProtocolUDP}
	}
	o.Workloads[0].Peers.To = append(o.Workloads[0].Peers.To, udp("server"))
	o.Workloads[1].Peers.From = append(o.Workloads[1].Peers.From, udp("client"))
}

// serveDatagrams echoes datagrams on a port of both of the pod's addresses, and
// returns a function that says who sent the last one.
func serveDatagrams(t *testing.T, p *cluster.Pod, port uint16) (last func() netip.AddrPort) {
	t.Helper()
	var seen atomic.Pointer[netip.AddrPort]
	for _, addr := range []netip.Addr{p.Addr4, p.Addr6} {
		pc, err := p.ListenPacket("udp", netip.AddrPortFrom(addr, port).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		c := pc.(*net.UDPConn)
		if err := c.SetReadBuffer(4 << 20); err != nil {
			t.Fatal(err)
		}
		go func() {
			buf := make([]byte, 1<<16)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					continue
				}
				from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
				seen.Store(&from)
				_, _ = c.WriteToUDPAddrPort(buf[:n], from)
			}
		}()
	}
	return func() netip.AddrPort { return *seen.Load() }
}

func dialUDP(t *testing.T, from *cluster.Pod, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := from.Dial(t.Context(), "udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UDPConn)
}

// askUDP sends a datagram and waits for its echo.
func askUDP(c *net.UDPConn, payload []byte, within time.Duration) error {
	if _, err := c.Write(payload); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		if bytes.Equal(buf[:n], payload) {
			return nil
		}
	}
}

func TestDatagramsPassBetweenPodsOverTheTunnelOnly(t *testing.T) {
	c := newCluster(t, withUDP)
	const canary = "CANARY-udp-must-not-be-on-the-wire"
	wire, err := capture.Start(c.Lab.Wire, lab.WireBridge, capture.Options{Canary: []byte(canary), Pods: podPrefixes(c)})
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.Nodes[0], c.Nodes[1]
	for _, kinds := range [][2]lab.Kind{{lab.Routed, lab.Bridged}, {lab.Bridged, lab.Routed}} {
		client := openPod(t, a, "client", kinds[0])
		for _, node := range []*cluster.Node{a, b} {
			server := openPod(t, node, "server", kinds[1])
			last := serveDatagrams(t, server, echoPort)
			for _, to := range []netip.Addr{server.Addr4, server.Addr6} {
				t.Run(fmt.Sprintf("%s on node-a to %s on %s at %s", kinds[0], kinds[1], node.Lab.Name, to), func(t *testing.T) {
					conn := dialUDP(t, client, netip.AddrPortFrom(to, echoPort))
					for _, size := range []int{len(canary), 0, 1, 1200, 1473, 3000, 9000, 60_000, 65_507} {
						payload := []byte(strings.Repeat(canary, size/len(canary)+1)[:size])
						if err := askUDP(conn, payload, 5*time.Second); err != nil {
							t.Errorf("%d bytes: %v", size, err)
						}
					}
					if want := conn.LocalAddr().(*net.UDPAddr).AddrPort(); last() != want {
						t.Errorf("the server saw %s, want the pod's own address %s", last(), want)
					}
				})
			}
			if err := node.RemovePod(server); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.RemovePod(client); err != nil {
			t.Fatal(err)
		}
	}
	onlyTunnels(t, wire)
}

func TestManyFlowsFromOnePort(t *testing.T) {
	c := newCluster(t, withUDP)
	client := openPod(t, c.Nodes[0], "client", lab.Routed)
	servers := []*cluster.Pod{openPod(t, c.Nodes[0], "server", lab.Bridged), openPod(t, c.Nodes[1], "server", lab.Routed)}
	for _, s := range servers {
		for i := range uint16(udpPorts) {
			serveDatagrams(t, s, echoPort+i)
		}
	}
	pc, err := client.ListenPacket("udp", netip.AddrPortFrom(client.Addr4, 5000).String())
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	conn := pc.(*net.UDPConn)
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	const rounds = 5
	for round := range rounds {
		for _, s := range servers {
			for i := range uint16(udpPorts) {
				to := netip.AddrPortFrom(s.Addr4, echoPort+i)
				if _, err := conn.WriteToUDPAddrPort(fmt.Appendf(nil, "%d %s", round, to), to); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	next := map[netip.AddrPort]int{}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for range rounds * len(servers) * udpPorts {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatalf("%v; %d flows have answered", err, len(next))
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if want := fmt.Sprintf("%d %s", next[from], from); string(buf[:n]) != want {
			t.Errorf("%q from %s, want %q", buf[:n], from, want)
		}
		next[from]++
	}
}

func TestRefusedDatagramsVanishAndAreRecorded(t *testing.T) {
	c := newCluster(t, withUDP)
	client, server := openPod(t, c.Nodes[0], "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Routed)
	stranger := openPod(t, c.Nodes[0], "stranger", lab.Bridged)
	const unlisted = echoPort + udpPorts
	for _, port := range []uint16{echoPort, unlisted} {
		serveDatagrams(t, server, port)
	}
	for _, tt := range []struct {
		name   string
		from   *cluster.Pod
		to     netip.AddrPort
		reason string
	}{
		{"port not listed", client, netip.AddrPortFrom(server.Addr4, unlisted), "port-not-allowed"},
		{"IPv6, port not listed", client, netip.AddrPortFrom(server.Addr6, unlisted), "port-not-allowed"},
		{"peer not listed", stranger, netip.AddrPortFrom(server.Addr4, echoPort), "peer-not-allowed-egress"},
		{"outside the cluster", client, netip.AddrPortFrom(c.Lab.Outside("outside").Addr4, echoPort), "no-route"},
		{"the node itself", client, netip.AddrPortFrom(c.Nodes[0].Lab.Addr4, echoPort), "host-address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := askUDP(dialUDP(t, tt.from, tt.to), []byte("x"), time.Second)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("the application saw %v, want nothing", err)
			}
			if r := refusal(t, tt.from.On, tt.to); r.Reason != tt.reason || r.Protocol != "udp" {
				t.Errorf("%+v, want reason %q", r, tt.reason)
			}
		})
	}
}

func TestManifestChangeEndsFlows(t *testing.T) {
	c := newCluster(t, withUDP)
	client, server := openPod(t, c.Nodes[0], "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Bridged)
	serveDatagrams(t, server, echoPort)
	to := netip.AddrPortFrom(server.Addr4, echoPort)
	conn := dialUDP(t, client, to)
	if err := askUDP(conn, []byte("x"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context(), func(m *policy.Manifest) { m.Workloads[1].Peers.From = m.Workloads[1].Peers.From[:1] }); err != nil {
		t.Fatal(err)
	}
	waitRecord(t, c.Nodes[0], func(r flow.Record) bool {
		return r.Verdict == flow.Closed && r.Protocol == "udp" && r.Dst == to
	})
	if err := askUDP(conn, []byte("x"), time.Second); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the application saw %v, want nothing", err)
	}
	refusal(t, c.Nodes[0], to)
}

// datagramLoad is a stream over one flow, and a new flow each time, until it is
// stopped.
type datagramLoad struct {
	done        sync.WaitGroup
	cancel      context.CancelFunc
	sent, back  atomic.Int64
	fresh, lost atomic.Int64
}

func startDatagrams(t *testing.T, from *cluster.Pod, to netip.AddrPort) *datagramLoad {
	t.Helper()
	standing := dialUDP(t, from, to)
	if err := askUDP(standing, []byte("first"), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &datagramLoad{cancel: cancel}
	l.done.Go(func() {
		buf := make([]byte, 100)
		for ctx.Err() == nil {
			_ = standing.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if _, err := standing.Read(buf); err == nil {
				l.back.Add(1)
			}
		}
	})
	l.done.Go(func() {
		for tick := time.Tick(5 * time.Millisecond); ctx.Err() == nil; <-tick {
			if _, err := standing.Write([]byte("standing")); err == nil {
				l.sent.Add(1)
			}
		}
	})
	l.done.Go(func() {
		for tick := time.Tick(20 * time.Millisecond); ctx.Err() == nil; <-tick {
			conn, err := from.Dial(ctx, "udp", to.String())
			if err != nil {
				continue
			}
			l.fresh.Add(1)
			if err := askUDP(conn.(*net.UDPConn), []byte("fresh"), 5*time.Second); err != nil && ctx.Err() == nil {
				l.lost.Add(1)
			}
			conn.Close()
		}
	})
	t.Cleanup(func() { cancel(); l.done.Wait() })
	return l
}

func (l *datagramLoad) stop() {
	l.cancel()
	l.done.Wait()
}

// goOn waits until both kinds have gone on for a while.
func (l *datagramLoad) goOn(t *testing.T) {
	t.Helper()
	sent, fresh := l.back.Load()+100, l.fresh.Load()+20
	for deadline := time.Now().Add(30 * time.Second); l.back.Load() < sent || l.fresh.Load() < fresh; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("datagrams do not go on: %d of %d back, %d of %d new flows lost", l.back.Load(), l.sent.Load(), l.lost.Load(), l.fresh.Load())
		}
	}
}

func TestUpgradeUnderDatagramLoad(t *testing.T) {
	c := newCluster(t, withUDP, func(o *cluster.Options) { o.NodeFlags = []string{"--drain=3s", "--instance=first"} })
	a, b := c.Nodes[0], c.Nodes[1]
	clientA, clientB := openPod(t, a, "client", lab.Routed), openPod(t, b, "client", lab.Bridged)
	serverA, serverB := openPod(t, a, "server", lab.Bridged), openPod(t, b, "server", lab.Routed)
	serveDatagrams(t, serverA, echoPort)
	serveDatagrams(t, serverB, echoPort)
	loads := map[string]*datagramLoad{
		"from the upgraded node": startDatagrams(t, clientA, netip.AddrPortFrom(serverB.Addr4, echoPort)),
		"to the upgraded node":   startDatagrams(t, clientB, netip.AddrPortFrom(serverA.Addr6, echoPort)),
	}
	for _, l := range loads {
		l.goOn(t)
	}
	if err := a.Succeed("--instance=second"); err != nil {
		t.Fatal(err)
	}
	if err := a.WaitInstance(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	for name, l := range loads {
		l.goOn(t)
		if lost := l.sent.Load() - l.back.Load(); lost > 5 { // on their way
			t.Errorf("%s: %d datagrams of a flow that the old daemon has are missing", name, lost)
		}
	}
	waitEnded(t, a.Former()) // its flows begin anew with the successor
	for name, l := range loads {
		l.goOn(t)
		l.stop()
		lost := l.sent.Load() - l.back.Load()
		t.Logf("%s: %d of %d datagrams of the standing flow lost, %d of %d new flows", name, lost, l.sent.Load(), l.lost.Load(), l.fresh.Load())
		if lost > l.sent.Load()/20 {
			t.Errorf("%s: too many lost", name)
		}
		if l.lost.Load() > 0 {
			t.Errorf("%s: %d of %d new flows had no answer", name, l.lost.Load(), l.fresh.Load())
		}
	}
}

// waitRecord waits for a record that fits.
func waitRecord(t *testing.T, n *cluster.Node, fits func(flow.Record) bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		flows, err := n.Flows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(flows, fits) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no such flow record")
		}
	}
}
