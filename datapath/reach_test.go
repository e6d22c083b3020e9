// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy/policytest"
)

const vip = "10.96.0.10:80"

func TestServiceLeadsToAPodAtThePodsPort(t *testing.T) {
	w, a, b := pair(t)
	w.service(vip, dbApp)
	peers := echo(t, dbApp)
	c := a.dial(webAddr, vip)
	talk(t, c)
	if peer := <-peers; peer.Addr().String() != webAddr {
		t.Errorf("the application sees %s, not the pod", peer)
	}
	must(t, c.CloseWrite())
	for _, verdict := range []flow.Verdict{flow.Allowed, flow.Closed} {
		r := a.waitFlow(func(r flow.Record) bool { return r.Verdict == verdict })
		if r.Dst.String() != vip || r.Endpoint.String() != dbApp || r.Service != "default/db" || r.DstWorkload != policytest.DB {
			t.Errorf("%+v", r)
		}
	}
	// The accepting side knows of no Service, only of its pod.
	if r := b.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Allowed }); r.Dst.String() != dbApp || r.Service != "" || r.Endpoint.IsValid() {
		t.Errorf("%+v", r)
	}
}

// The manifest speaks of the accepting pod's port: a Service's own number
// neither opens nor closes anything.
func TestServiceCannotChangeWhichPortIsReached(t *testing.T) {
	w, a, _ := pair(t)
	w.service("10.96.0.10:6379", dbAddr+":22")
	a.dialRefused(webAddr, "10.96.0.10:6379")
	if r := a.wantRefusal("port-not-allowed"); r.Endpoint.String() != dbAddr+":22" {
		t.Errorf("%+v", r)
	}
}

// A lying cluster can choose among the peers that the manifest allows, and
// nothing else.
func TestServiceCannotLeadToAnotherPeer(t *testing.T) {
	w, a, b := pair(t)
	b.pod(policytest.Web, "127.20.0.9") // a listed pod that web may not reach
	w.service(vip, "127.20.0.9:6379")
	a.dialRefused(webAddr, vip)
	a.wantRefusal("peer-not-allowed-egress")

	ln, err := net.Listen("tcp", "127.20.0.66:6379") // an address without an attested pod
	must(t, err)
	defer ln.Close()
	w.mu.Lock()
	w.routes[netip.MustParseAddr("127.20.0.66")] = b.addr
	w.mu.Unlock()
	w.service(vip, "127.20.0.66:6379")
	a.dialRefused(webAddr, vip)
	a.wantRefusal(reasonPeerRefused)
	must(t, ln.(*net.TCPListener).SetDeadline(time.Now()))
	if c, err := ln.Accept(); err == nil {
		c.Close()
		t.Error("an unattested address was reached")
	}
}

func TestUnreachableEndpointIsReplacedByAnother(t *testing.T) {
	const gone, other = "127.20.0.66", "127.20.0.77"
	for name, tt := range map[string]struct {
		node string // that carries the first endpoint
		why  string // of the first endpoint alone
	}{
		"node down":            {"127.0.0.77", reasonNodeUnreachable},
		"pod gone":             {"127.0.0.2", reasonPeerRefused},
		"another pod's answer": {"", reasonPeerAddress},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, b := pair(t)
			echo(t, dbApp)
			w.mu.Lock()
			for _, addr := range []string{gone, other} {
				if tt.node != "" {
					w.routes[netip.MustParseAddr(addr)] = netip.MustParseAddr(tt.node)
				}
			}
			w.mu.Unlock()
			if tt.node == "" {
				// It answers under the address, with a certificate for another one.
				b.podWith(policytest.DB, netip.MustParseAddr(gone), w.ca.issue(policytest.Peer(w.fixture.Signed, policytest.DB), time.Hour, netip.MustParseAddr("127.20.0.5")))
			}
			w.service(vip, gone+":6379", dbApp)
			talk(t, a.dial(webAddr, vip))
			if r := a.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Allowed }); r.Endpoint.String() != dbApp {
				t.Errorf("%+v", r)
			}
			w.service(vip, gone+":6379")
			a.dialRefused(webAddr, vip)
			if r := a.wantRefusal(tt.why); r.Endpoint.String() != gone+":6379" || r.Service != "default/db" {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A node that swallows packets takes its share of the time, not all of it.
func TestSilentNodeLeavesTimeForAnotherEndpoint(t *testing.T) {
	w := newWorld(t)
	a, b := w.node("127.0.0.1", Limits{DialTimeout: 1500 * time.Millisecond}), w.node("127.0.0.2", Limits{})
	a.pod(policytest.Web, webAddr)
	b.pod(policytest.DB, dbAddr)
	echo(t, dbApp)
	silent, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.78"), w.port).String())
	must(t, err)
	defer silent.Close() // it takes the connection and never says a word
	w.mu.Lock()
	w.routes[netip.MustParseAddr("127.20.0.66")] = netip.MustParseAddr("127.0.0.78")
	w.mu.Unlock()
	w.service(vip, "127.20.0.66:6379", dbApp)
	talk(t, a.dial(webAddr, vip))
	w.service(vip, "127.20.0.66:6379")
	a.dialRefused(webAddr, vip)
	a.wantRefusal(reasonNodeTimeout)
}

func TestNoMoreEndpointsAreTriedThanAllowed(t *testing.T) {
	w, a, _ := pair(t)
	echo(t, dbApp)
	var endpoints []string
	for _, n := range []string{"6", "7", "8"} {
		addr := "127.20.0.6" + n
		w.routes[netip.MustParseAddr(addr)] = netip.MustParseAddr("127.0.0.7" + n)
		endpoints = append(endpoints, addr+":6379")
	}
	w.service(vip, append(endpoints, dbApp)...)
	a.dialRefused(webAddr, vip)
	if r := a.wantRefusal(reasonNodeUnreachable); r.Endpoint.String() != endpoints[0] {
		t.Errorf("%+v", r)
	}
}

func TestUnresolvedDestinationsSayWhy(t *testing.T) {
	w, a, _ := pair(t)
	w.service(vip)
	w.verdicts[netip.MustParseAddr("10.80.0.7")] = resolve.HostAddress
	w.verdicts[netip.MustParseAddr("10.96.0.11")] = resolve.NoServicePort
	for dst, reason := range map[string]string{
		vip: reasonNoEndpoints, "10.80.0.7:6443": reasonHostAddress, "10.96.0.11:81": reasonNoServicePort, "192.0.2.1:80": reasonNoRoute,
	} {
		a.dialRefused(webAddr, dst)
		if r := a.wantRefusal(reason); r.Dst.String() != dst || r.Endpoint.IsValid() {
			t.Errorf("%+v", r)
		}
	}
}
