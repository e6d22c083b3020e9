// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
)

// A pod on a bridge sends from whatever MAC address it likes, and the bridge
// believes the last sender.
func TestPodCannotTakeItsNeighboursAddressOnTheBridge(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	b.daemon(t)
	victim, thief := b.pod(t, "victim", lab.Bridged, true), b.pod(t, "thief", lab.Bridged, true)
	ln, err := victim.Listen("tcp", "0.0.0.0:80")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	dial := func(ns *lab.NS, d net.Dialer, to netip.Addr) error {
		d.Timeout = 2 * time.Second
		d.SetMultipathTCP(false)
		c, err := ns.DialWith(t.Context(), &d, "tcp", netip.AddrPortFrom(to, 80).String())
		if err == nil {
			c.Close()
		}
		return err
	}
	reached := func(when string) {
		t.Helper()
		if err := dial(b.NS, net.Dialer{Control: marked(loader.DefaultDaemonMark)}, victim.Addr4); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	// speak has the thief send something from an address, and be opened with it.
	speak := func(mac net.HardwareAddr) {
		t.Helper()
		link, err := thief.Netlink().LinkByName(thief.Interface)
		if err == nil {
			err = thief.Netlink().LinkSetHardwareAddr(link, mac)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = dial(thief.NS, net.Dialer{}, b.outside.Addr4) // it may get no answer
		b.set(t, thief, true, false)
		_ = dial(thief.NS, net.Dialer{}, b.outside.Addr4)
	}
	reached("at first")
	link, err := victim.Netlink().LinkByName(victim.Interface)
	if err != nil {
		t.Fatal(err)
	}
	speak(link.Attrs().HardwareAddr)
	reached("with the victim's address")
	host, err := b.Netlink().LinkByIndex(victim.HostIfindex)
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := b.Netlink().LinkByIndex(host.Attrs().MasterIndex)
	if err != nil {
		t.Fatal(err)
	}
	speak(bridge.Attrs().HardwareAddr)
	reached("with the bridge's address")
	own := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	speak(own)
	if err := dial(thief.NS, net.Dialer{}, b.outside.Addr4); err != nil {
		t.Errorf("a pod with an address of its own: %v", err)
	}
}
