// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"
)

var udpHeader = Header{Proto: ProtoUDP, Src: netip.MustParseAddrPort("10.1.0.1:40000"), Dst: netip.MustParseAddrPort("10.2.0.2:53")}

// udpPair returns two UDP sockets that are connected to each other.
func udpPair(tb testing.TB) (a, b *net.UDPConn) {
	tb.Helper()
	lo := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	probe, err := net.ListenUDP("udp4", lo)
	if err != nil {
		tb.Fatal(err)
	}
	addr := probe.LocalAddr().(*net.UDPAddr)
	other, err := net.ListenUDP("udp4", lo)
	if err != nil {
		tb.Fatal(err)
	}
	otherAddr := other.LocalAddr().(*net.UDPAddr)
	probe.Close()
	other.Close()
	if a, err = net.DialUDP("udp4", addr, otherAddr); err != nil {
		tb.Fatal(err)
	}
	if b, err = net.DialUDP("udp4", otherAddr, addr); err != nil {
		tb.Fatal(err)
	}
	for _, c := range []*net.UDPConn{a, b} {
		if err := c.SetReadBuffer(4 << 20); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { c.Close() })
	}
	return a, b
}

// packetRig is a tunnel that carries one flow. near and far are the
// applications' sockets, inner and outer the relays' ends.
type packetRig struct {
	opener, acceptor *Tunnel
	near, far        *net.UDPConn
	nearP, farP      *Packets
	done, farDone    chan Result
	served           chan error
}

func newPackets(tb testing.TB) (*Packets, *net.UDPConn) {
	relay, app := udpPair(tb)
	p, err := NewPackets(relay)
	if err != nil {
		tb.Fatal(err)
	}
	return p, app
}

func newPacketRig(tb testing.TB, useTLS bool) *packetRig {
	r := &packetRig{done: make(chan Result, 1), farDone: make(chan Result, 10), served: make(chan error, 1)}
	r.opener, r.acceptor = tunnelPair(tb, useTLS)
	r.nearP, r.near = newPackets(tb)
	r.farP, r.far = newPackets(tb)
	r.farP.Settle()
	go func() {
		r.served <- r.acceptor.Serve(context.Background(), func(_ context.Context, h Header) (App, func(Result), Reason) {
			if h != udpHeader {
				tb.Errorf("OPEN says %+v", h)
			}
			return r.farP, func(res Result) { r.farDone <- res }, 0
		})
	}()
	return r
}

func (r *packetRig) relay() { go func() { r.done <- r.opener.RelayPackets(r.nearP, udpHeader) }() }

func send(tb testing.TB, c *net.UDPConn, p []byte) {
	tb.Helper()
	if _, err := c.Write(p); err != nil {
		tb.Fatal(err)
	}
}

func recv(tb testing.TB, c *net.UDPConn) []byte {
	tb.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		tb.Fatal(err)
	}
	return b[:n]
}
