// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// waitNoFlows waits until the flows that n's pods began have left the table. A
// datagram that comes before that is lost with its flow.
func (n *node) waitNoFlows() {
	n.w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); n.proxy.Stats().FlowsOut != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.w.t.Fatalf("node %s: there are still flows: %+v", n.addr, n.proxy.Stats())
		}
	}
}

func TestPolicyChangeEndsAFlow(t *testing.T) {
	w, a, b := udpPair(t, Limits{})
	app := newEchoUDP(t, dbApp)
	c := a.udp(webAddr)
	c.roundTrip("1")
	w.manifest.Store(w.fixture.Next(t, func(m *policy.Manifest) {
		m.Workloads[0].Peers.To, m.Workloads[1].Peers.From = m.Workloads[0].Peers.To[:1], m.Workloads[1].Peers.From[:1]
	}).Signed)
	a.proxy.Recheck()
	r := a.waitFlow(udpFlow(flow.Closed))
	if r.Reason != "policy-changed" || !strings.Contains(r.Rule, "peers.to") {
		t.Errorf("%+v", r)
	}
	b.waitFlow(udpFlow(flow.Closed))
	a.waitNoFlows()
	before := app.got.Load()
	c.send(udpVIP, "2")
	a.wantRefusal("protocol-not-allowed")
	if app.got.Load() != before {
		t.Error("a datagram arrived")
	}
}

func TestEndOfAPodEndsItsFlows(t *testing.T) {
	_, a, b := udpPair(t, Limits{})
	app := newEchoUDP(t, dbApp)
	c := a.udp(webAddr)
	c.roundTrip("1")
	// Another pod has the address now; the flow is still in the table.
	a.pod(policytest.Web, webAddr).UID = "another"
	before := app.got.Load()
	c.send(udpVIP, "2")
	for a.proxy.Stats().DatagramsRefused != 1 {
		time.Sleep(time.Millisecond)
	}
	a.proxy.Recheck()
	a.waitFlow(udpFlow(flow.Closed))
	b.waitFlow(udpFlow(flow.Closed))
	a.waitNoFlows()
	if app.got.Load() != before {
		t.Error("a datagram passed as the old pod's")
	}
	c.roundTrip("3")
}

// A flow that was cut off is in the table a little longer than its record says.
func TestADatagramThatIsLostWithItsFlowIsCounted(t *testing.T) {
	_, a, b := udpPair(t, Limits{})
	newEchoUDP(t, dbApp)
	c := a.udp(webAddr)
	c.roundTrip("1")
	b.remove(dbAddr)
	lose := func() {
		a.proxy.flows.mu.Lock() // the flow cannot leave the table
		defer a.proxy.flows.mu.Unlock()
		b.proxy.Recheck()
		a.waitFlow(udpFlow(flow.Closed))
		for _, f := range a.proxy.flows.out {
			if f.packets.Hand([]byte("2")) {
				t.Error("a closed flow takes datagrams")
			}
		}
	}
	lose()
	a.waitNoFlows()
	if s := a.proxy.Stats(); s.DatagramsDropped != 1 || s.DatagramsSent != 1 {
		t.Errorf("%+v", s)
	}
}

// A daemon may lose a flow that the other still has.
func TestNewFlowOfTheSameNameReplacesTheOld(t *testing.T) {
	_, a, b := udpPair(t, Limits{})
	newEchoUDP(t, dbApp)
	c := a.udp(webAddr)
	c.roundTrip("1")
	key := flowKey{c.conn.LocalAddr().(*net.UDPAddr).AddrPort(), netip.MustParseAddrPort(udpVIP)}
	a.proxy.flows.mu.Lock()
	old := a.proxy.flows.out[key]
	delete(a.proxy.flows.out, key) // as a successor would not have it
	a.proxy.flows.mu.Unlock()
	c.roundTrip("2")
	a.waitFlow(func(r flow.Record) bool { return udpFlow(flow.Closed)(r) && r.Reason == "reset" })
	for b.proxy.Stats().FlowsIn != 1 {
		time.Sleep(time.Millisecond)
	}
	if old.packets.Hand([]byte("x")) {
		t.Error("the old flow is still open")
	}
	c.roundTrip("3")
}
