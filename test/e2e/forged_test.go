// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/kube/kubetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/attacks"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

const forged = "CANARY-forged-on-the-wire"

// forge sends a datagram from a host next door through a node, as if it came
// from a pod.
func forge(t *testing.T, h *lab.Host, through netip.Addr, from, to netip.AddrPort) {
	t.Helper()
	link, err := h.Netlink().LinkByName(lab.Uplink)
	if err != nil {
		t.Fatal(err)
	}
	if to.Addr() != through {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: through.AsSlice(), Dst: &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Addr().BitLen(), to.Addr().BitLen())}}
		if err := h.Netlink().RouteReplace(route); err != nil {
			t.Fatal(err)
		}
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(from), Control: func(_, _ string, raw syscall.RawConn) (err error) {
		level, transparent := unix.SOL_IP, unix.IP_TRANSPARENT
		if to.Addr().Is6() {
			level, transparent = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
		}
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, transparent, 1) }), err)
	}}
	c, err := h.DialWith(t.Context(), &d, "udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(forged)); err != nil {
		t.Fatal(err)
	}
}

// wantNoForged waits until a forged datagram of the other host has come to the
// node, asks over the flow and reads what both ends got until the answer.
func wantNoForged(t *testing.T, on *cluster.Node, conn *net.UDPConn, e *ears, forge func()) {
	t.Helper()
	wire, err := attacks.NewVictim(on.Lab.NS, lab.Uplink, []byte(forged))
	if err != nil {
		t.Fatal(err)
	}
	forge()
	for deadline := time.Now().Add(10 * time.Second); wire.Hits() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the forged datagram did not come to the node")
		}
	}
	if err := wire.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("genuine")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for got := ""; got != "genuine"; {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got = string(buf[:n]); got == forged {
			t.Error("the pod that began the flow got it")
		}
	}
	if all, _ := e.heard(); slices.Contains(all, forged) {
		t.Error("the other pod of the flow got it")
	}
}

// The nodes of the lab do not filter by reverse path (net.ipv4.conf.*.rp_filter
// is 0), which IPv6 does not have.
func TestDatagramsForgedOnTheNetworkEnterNoFlow(t *testing.T) {
	k := newKubernetes(t, withUDP, func(o *cluster.Options) {
		itself := policy.PeerRule{Workload: "server", Ports: []uint16{echoPort}, Protocol: policy.ProtocolUDP}
		o.Workloads[1].Peers.To = append(o.Workloads[1].Peers.To, itself)
		o.Workloads[1].Peers.From = append(o.Workloads[1].Peers.From, itself)
	})
	a, b, outside := k.Nodes[0], k.Nodes[1], k.Lab.Outside("outside")
	client, server := k.pod(a, "client", lab.Routed), k.pod(b, "server", lab.Bridged)
	k.datagramService(server.Addr4, server.Addr6)
	k.routes(2, 2)
	e := hearDatagrams(t, server)
	for _, f := range []struct {
		name                         string
		client, server, nodeA, nodeB netip.Addr
		vip                          string
	}{
		{"IPv4", client.Addr4, server.Addr4, a.Lab.Addr4, b.Lab.Addr4, vip4},
		{"IPv6", client.Addr6, server.Addr6, a.Lab.Addr6, b.Lab.Addr6, vip6},
	} {
		at := netip.AddrPortFrom(f.server, echoPort)
		conn := dialUDP(t, client, at)
		itself := dialUDP(t, server, netip.AddrPortFrom(netip.MustParseAddr(f.vip), servicePort))
		for range 3 { // the kernel remembers the way of what comes on a flow's socket
			for _, c := range []*net.UDPConn{conn, itself} {
				if err := askUDP(c, []byte("x"), 10*time.Second); err != nil {
					t.Fatal(err)
				}
			}
		}
		from := conn.LocalAddr().(*net.UDPAddr).AddrPort()
		_, seen := e.heard()
		if seen.Addr() == f.server {
			t.Fatalf("a pod that talks to itself sees %s, want the node", seen)
		}
		t.Run(f.name+" to another pod", func(t *testing.T) {
			wantNoForged(t, a, conn, e, func() { forge(t, outside, f.nodeA, from, at) })
		})
		t.Run(f.name+" as its answer", func(t *testing.T) {
			wantNoForged(t, b, conn, e, func() { forge(t, outside, f.nodeB, at, from) })
		})
		t.Run(f.name+" to the node's address", func(t *testing.T) {
			wantNoForged(t, b, itself, e, func() { forge(t, outside, seen.Addr(), at, seen) })
		})
	}
}

// datagramService puts the server's UDP port behind the Service.
func (k *kubernetes) datagramService(endpoints ...netip.Addr) {
	port := func(number int) []kubetest.Object {
		return []kubetest.Object{{"name": "main", "protocol": "UDP", "port": number}}
	}
	service := kubetest.Service("default/echo", servicePort, vip4, vip6)
	service["spec"].(kubetest.Object)["ports"] = port(servicePort)
	k.api.Set(service)
	for _, a := range endpoints {
		slice := kubetest.Slice("default/echo-"+map[bool]string{true: "4", false: "6"}[a.Is4()], "echo", echoPort, a.String())
		slice["ports"] = port(echoPort)
		k.api.Set(slice)
	}
}

// ears are what a server of datagrams has got.
type ears struct {
	mu   sync.Mutex
	all  []string
	last netip.AddrPort // who sent the last one
}

func (e *ears) heard() ([]string, netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all), e.last
}

// hearDatagrams echoes datagrams and remembers them.
func hearDatagrams(t *testing.T, p *cluster.Pod) *ears {
	t.Helper()
	e := &ears{}
	for _, addr := range []netip.Addr{p.Addr4, p.Addr6} {
		pc, err := p.ListenPacket("udp", netip.AddrPortFrom(addr, echoPort).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pc.Close() })
		c := pc.(*net.UDPConn)
		go func() {
			buf := make([]byte, 1000)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					continue
				}
				e.mu.Lock()
				e.all, e.last = append(e.all, string(buf[:n])), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
				e.mu.Unlock()
				_, _ = c.WriteToUDPAddrPort(buf[:n], from)
			}
		}()
	}
	return e
}
