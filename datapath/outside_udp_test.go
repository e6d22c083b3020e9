// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
)

const (
	timeAddr = "127.96.0.10:5123" // outside of the mesh, as far as the pod sees
	timeApp  = farApp + ":5123"   // where it is served
)

func TestDatagramsReachAnAllowedEndpoint(t *testing.T) {
	o := newOutsider(t, Limits{FlowIdleShort: 200 * time.Millisecond, FlowIdle: 400 * time.Millisecond})
	app := newEchoUDP(t, timeApp)
	c := o.udp(webAddr)
	for i := range 5 {
		c.send(timeAddr, fmt.Sprint(i))
		c.want(timeAddr, fmt.Sprint("re:", i))
	}
	if from := <-app.from; from.Addr().String() == webAddr {
		t.Error("the endpoint sees the pod, not the node")
	}
	r := o.waitFlow(udpFlow(flow.Allowed))
	if r.Rule != "external/time" || r.Dst.String() != timeAddr || r.DstID != "" || r.Pod != o.web.Name {
		t.Errorf("%+v", r)
	}
	r = o.waitFlow(udpFlow(flow.Closed)) // it has become idle
	if r.Rule != "external/time" || r.Reason != "" || r.DatagramsSent != 5 || r.DatagramsReceived != 5 || r.BytesSent != 5 || r.BytesReceived != 20 || r.DatagramsDropped != 0 {
		t.Errorf("%+v", r)
	}
	c.ask(timeAddr, "again", "re:again") // a flow with the same ends
	if s := o.proxy.Stats(); s.External != 2 || s.ExternalSent < 5 || s.Handshakes != 0 {
		t.Errorf("%+v", s)
	}
}

// Whatever the first datagrams of a flow are, they go out in their order.
func TestABurstToAnEndpointKeepsItsOrder(t *testing.T) {
	o := newOutsider(t, Limits{})
	app := newEchoUDP(t, timeApp)
	c := o.udp(webAddr)
	const burst = 50
	for i := range burst {
		c.send(timeAddr, fmt.Sprint(i))
	}
	for i := range burst {
		if got := <-app.text; got != fmt.Sprint(i) {
			t.Fatalf("%q is number %d", got, i)
		}
	}
}

func TestDatagramsThatNoRuleAllowsDoNotLeave(t *testing.T) {
	for dst, reason := range map[string]string{
		"127.96.0.10:5124": "external-port-not-allowed",
		"127.96.0.11:5123": "external-not-allowed",
		farAddr + ":80":    "external-port-not-allowed", // TCP alone
	} {
		o := newOutsider(t, Limits{})
		o.udp(webAddr).send(dst, "x")
		if r := o.wantRefusal(reason); r.Protocol != policy.ProtocolUDP {
			t.Errorf("%+v", r)
		}
		if n := o.dialled.Load(); n != 0 {
			t.Errorf("%s was dialled %d times", dst, n)
		}
	}
}

func TestRecheckEndsFlowsThatLeaveTheMesh(t *testing.T) {
	for name, change := range map[string]func(o *outsider){
		"the rule is gone": func(o *outsider) {
			o.next(func(m *policy.Manifest) { m.Workloads[0].External = m.Workloads[0].External[:1] })
		},
		"the pod is gone": func(o *outsider) { o.remove(webAddr) },
		"somebody claims the address": func(o *outsider) {
			o.w.mu.Lock()
			defer o.w.mu.Unlock()
			o.w.routes[netip.MustParseAddrPort(timeAddr).Addr()] = o.addr
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutsider(t, Limits{})
			app := newEchoUDP(t, timeApp)
			c := o.udp(webAddr)
			c.send(timeAddr, "a")
			c.want(timeAddr, "re:a")
			change(o)
			o.proxy.Recheck()
			if r := o.waitFlow(udpFlow(flow.Closed)); r.Reason != "policy-changed" || r.DatagramsSent != 1 {
				t.Errorf("%+v", r)
			}
			o.refusesDatagrams(c)
			if n := app.got.Load(); n != 1 {
				t.Errorf("%d datagrams have left", n)
			}
		})
	}
}

// refusesDatagrams sends until a refusal is recorded: one that comes while the
// flow ends is lost with it.
func (o *outsider) refusesDatagrams(c *udpClient) {
	o.w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		c.send(timeAddr, "b")
		for key := range o.flows.Counts() {
			if key.Verdict == flow.Refused {
				return
			}
		}
	}
	o.w.t.Fatal("nothing is refused")
}

// A port where nobody listens is answered by ICMP, which ends nothing: the
// endpoint may come.
func TestAFlowOutlivesAnEndpointThatIsNotThereYet(t *testing.T) {
	o := newOutsider(t, Limits{})
	c := o.udp(webAddr)
	c.send(timeAddr, "lost")
	o.waitFlow(udpFlow(flow.Allowed))
	newEchoUDP(t, timeApp)
	for i := 0; ; i++ {
		c.send(timeAddr, fmt.Sprint(i))
		must(t, c.conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		if _, _, err := c.conn.ReadFromUDPAddrPort(make([]byte, 64)); err == nil {
			return
		}
		if i == 50 {
			t.Fatal("nothing comes back")
		}
	}
}
