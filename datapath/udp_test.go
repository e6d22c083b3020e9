// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// On the loopback nothing is steered: the pod sends to the node's socket, and
// the test says what it asked for. That is always a Service, because the flow's
// socket there must not be the application's.
const (
	udpVIP  = "127.96.0.9:6379"
	udpPort = policytest.DBPort
)

// allowUDP adds a rule for datagrams from Web to DB.
func allowUDP(ports ...uint16) policytest.Option {
	return policytest.With(func(m *policy.Manifest) {
		m.Workloads[0].Peers.To = append(m.Workloads[0].Peers.To, policy.PeerRule{Workload: policytest.DB, Ports: ports, Protocol: policy.ProtocolUDP})
		m.Workloads[1].Peers.From = append(m.Workloads[1].Peers.From, policy.PeerRule{Workload: policytest.Web, Ports: ports, Protocol: policy.ProtocolUDP})
	})
}

// udpPair is two nodes, Web on one and DB behind udpVIP on the other.
func udpPair(t *testing.T, limits Limits, opts ...policytest.Option) (w *world, a, b *node) {
	t.Helper()
	if len(opts) == 0 {
		opts = []policytest.Option{allowUDP(udpPort)}
	}
	w = newWorld(t, opts...)
	a, b = w.node("127.0.0.1", limits), w.node("127.0.0.2", limits)
	a.pod(policytest.Web, webAddr)
	b.pod(policytest.DB, dbAddr)
	w.service(udpVIP, dbApp)
	return w, a, b
}

// udpClient is a socket of the pod at an address of its own.
type udpClient struct {
	n    *node
	conn *net.UDPConn
}

func shared(_, _ string, raw syscall.RawConn) (err error) {
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	return err
}

func bindUDP(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	lc := net.ListenConfig{Control: shared}
	c, err := lc.ListenPacket(t.Context(), "udp4", addr)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func (n *node) udp(src string) *udpClient {
	return &udpClient{n: n, conn: bindUDP(n.w.t.(*testing.T), src+":0")}
}

// send sends to what dst names. Only one destination may be under way.
func (c *udpClient) send(dst, payload string) {
	c.n.w.t.Helper()
	to := netip.MustParseAddrPort(dst)
	c.n.target.Store(&to)
	_, err := c.conn.WriteToUDPAddrPort([]byte(payload), c.n.packetEntry())
	must(c.n.w.t, err)
}

// want waits for a datagram from dst.
func (c *udpClient) want(dst, payload string) {
	c.n.w.t.Helper()
	must(c.n.w.t, c.conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	b := make([]byte, 1<<16)
	n, from, err := c.conn.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != payload || from.String() != dst {
		c.n.w.t.Fatalf("%q from %s, %v; want %q from %s", b[:n], from, err, payload, dst)
	}
}

// ask repeats a question until it is answered: a datagram that comes while its
// flow ends is lost with it.
func (c *udpClient) ask(dst, payload, want string) {
	c.n.w.t.Helper()
	b := make([]byte, 1<<16)
	for range 50 {
		c.send(dst, payload)
		must(c.n.w.t, c.conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		if n, from, err := c.conn.ReadFromUDPAddrPort(b); err == nil && string(b[:n]) == want && from.String() == dst {
			return
		}
	}
	c.n.w.t.Fatalf("%q to %s is not answered by %q", payload, dst, want)
}

func (c *udpClient) roundTrip(payload string) {
	c.n.w.t.Helper()
	c.send(udpVIP, payload)
	c.want(udpVIP, "re:"+payload)
}

// echoUDP is an application that answers with "re:" and what it gets. It counts
// what arrived, and says who sent it.
type echoUDP struct {
	conn *net.UDPConn
	got  atomic.Int64
	from chan netip.AddrPort
	text chan string
}

func newEchoUDP(t *testing.T, addr string) *echoUDP {
	e := &echoUDP{conn: bindUDP(t, addr), from: make(chan netip.AddrPort, 10000), text: make(chan string, 10000)}
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := e.conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			e.got.Add(1)
			e.from <- from
			e.text <- string(b[:n])
			_, _ = e.conn.WriteToUDPAddrPort(append([]byte("re:"), b[:n]...), from)
		}
	}()
	return e
}

func udpFlow(v flow.Verdict) func(flow.Record) bool {
	return func(r flow.Record) bool { return r.Verdict == v && r.Protocol == "udp" }
}

func TestDatagramsPassBetweenAllowedPods(t *testing.T) {
	_, a, b := udpPair(t, Limits{FlowIdleShort: 200 * time.Millisecond, FlowIdle: 400 * time.Millisecond})
	app := newEchoUDP(t, dbApp)
	c := a.udp(webAddr)
	for i := range 5 {
		c.roundTrip(fmt.Sprint(i))
	}
	if from := <-app.from; from != c.conn.LocalAddr().(*net.UDPAddr).AddrPort() {
		t.Errorf("the application sees %s", from)
	}
	for name, n := range map[string]*node{"a": a, "b": b} {
		r := n.waitFlow(udpFlow(flow.Allowed))
		if r.SrcID != "spiffe://c8s.test/workload/web" || r.DstID != "spiffe://c8s.test/workload/db" || r.Src.Addr().String() != webAddr {
			t.Errorf("%s: %+v", name, r)
		}
		r = n.waitFlow(udpFlow(flow.Closed)) // it has become idle
		if r.Reason != "" || r.DatagramsSent != 5 || r.DatagramsReceived != 5 || r.BytesSent != 5 || r.BytesReceived != 20 || r.DatagramsDropped != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if r := a.waitFlow(udpFlow(flow.Closed)); r.Service != "default/db" || r.Dst.String() != udpVIP || r.Endpoint.String() != dbApp {
		t.Errorf("%+v", r)
	}
	c.roundTrip("again") // a flow with the same ends
	if s := a.proxy.Stats(); s.Reused == 0 || s.FlowsOut != 1 || s.DatagramsSent < 5 {
		t.Errorf("%+v", s)
	}
}

// The first datagrams wait for the tunnel, in order.
func TestBurstOfAFirstFlowArrivesWholeAndInOrder(t *testing.T) {
	_, a, _ := udpPair(t, Limits{})
	app := newEchoUDP(t, dbApp)
	c := a.udp(webAddr)
	const burst = 50
	for i := range burst {
		c.send(udpVIP, fmt.Sprint(i))
	}
	for i := range burst {
		if got := <-app.text; got != fmt.Sprint(i) {
			t.Fatalf("%q is number %d", got, i)
		}
	}
}

func TestDatagramsAreRefusedWithAReason(t *testing.T) {
	for name, tt := range map[string]struct {
		opts    []policytest.Option
		src     string
		dst     string
		limits  Limits
		prepare func(a, b *node)
		reason  string
	}{
		"TCP is allowed, UDP is not": {opts: []policytest.Option{allowUDP(1)}, reason: "port-not-allowed"},
		"no rule for UDP":            {opts: []policytest.Option{policytest.With(func(*policy.Manifest) {})}, reason: "protocol-not-allowed"},
		"unknown source":             {src: "127.10.0.99", reason: "unknown-source"},
		"no route":                   {dst: "127.99.0.1:6379", reason: "no-route"},
		"not enrolled":               {prepare: func(a, _ *node) { a.podWith(policytest.Web, netip.MustParseAddr(webAddr), nil) }, reason: "not-enrolled"},
		"daemon ends":                {prepare: func(a, _ *node) { a.proxy.Refuse() }, reason: "shutdown"},
		"other daemon ends":          {prepare: func(_, b *node) { b.proxy.Refuse() }, reason: "shutdown"},
		"destination gone":           {prepare: func(_, b *node) { b.remove(dbAddr) }, reason: "peer-refused-certificate"},
		"too big for the wire":       {reason: "datagram-too-big"},
	} {
		t.Run(name, func(t *testing.T) {
			_, a, b := udpPair(t, tt.limits, tt.opts...)
			app := newEchoUDP(t, dbApp)
			if tt.prepare != nil {
				tt.prepare(a, b)
			}
			src, dst, payload := webAddr, udpVIP, "x"
			if tt.src != "" {
				src = tt.src
			}
			if tt.dst != "" {
				dst = tt.dst
			}
			if tt.reason == "datagram-too-big" {
				// IPv4 has no larger ones; IPv6 has.
				l := a.proxy.packets[0]
				to := netip.MustParseAddrPort(dst)
				a.target.Store(&to)
				a.proxy.Pause() // the test takes the reader's place
				a.proxy.datagram(t.Context(), l, flowKey{netip.MustParseAddrPort(webAddr + ":4000"), to}, make([]byte, 65508))
			} else {
				a.udp(src).send(dst, payload)
			}
			r := a.wantRefusal(tt.reason)
			if r.Protocol != "udp" || r.Src.Addr().String() != src || r.Dst.String() != dst {
				t.Errorf("%+v", r)
			}
			if n := app.got.Load(); n != 0 {
				t.Errorf("%d datagrams arrived", n)
			}
		})
	}
}

// A pod that sends what nobody lets pass does not fill the records.
func TestRefusedDatagramsAreRecordedAtALimitedRate(t *testing.T) {
	w, a, _ := udpPair(t, Limits{}, allowUDP(1))
	c := a.udp(webAddr)
	for range 500 {
		c.send("127.99.0.1:6379", "x")
	}
	for a.proxy.Stats().DatagramsRefused < 500 {
		time.Sleep(time.Millisecond)
	}
	w.ahead.Store(int64(2 * noteEvery))
	c.send("127.99.0.1:6379", "x")
	r := a.waitFlow(func(r flow.Record) bool { return r.Suppressed > 0 })
	if r.Reason != "no-route" || r.Suppressed < 490 {
		t.Errorf("%+v", r)
	}
	// The refusal of a flow that needs the other end stands for a while too.
	for range 500 {
		c.send(udpVIP, "x")
	}
	a.wantRefusal("port-not-allowed")
	if n := a.proxy.Stats().Busy + a.proxy.Stats().Idle; n > 2 {
		t.Errorf("%d tunnels", n)
	}
}

func TestFlowsAreLimited(t *testing.T) {
	_, a, b := udpPair(t, Limits{FlowsPerPod: 2})
	newEchoUDP(t, dbApp)
	one, two, three := a.udp(webAddr), a.udp(webAddr), a.udp(webAddr)
	one.roundTrip("1")
	two.roundTrip("2")
	three.send(udpVIP, "3")
	a.wantRefusal("too-many-connections")
	one.roundTrip("the others go on")
	if s := b.proxy.Stats(); s.FlowsIn != 2 {
		t.Errorf("%+v", s)
	}
}

func TestOtherNodesLimitOfFlowsCountsToo(t *testing.T) {
	_, a, b := udpPair(t, Limits{})
	newEchoUDP(t, dbApp)
	b.proxy.udpIn.mu.Lock()
	b.proxy.udpIn.perPod = 1
	b.proxy.udpIn.mu.Unlock()
	one, two := a.udp(webAddr), a.udp(webAddr)
	one.roundTrip("1")
	two.send(udpVIP, "2")
	b.wantRefusal("too-many-connections")
	a.wantRefusal("too-many-connections")
	one.roundTrip("the other goes on")
}

// A program of the node may have the port that a pod sends to.
func TestFlowToAPortThatANodesProgramHas(t *testing.T) {
	_, a, _ := udpPair(t, Limits{FlowIdleShort: 100 * time.Millisecond, FlowIdle: 200 * time.Millisecond}, allowUDP(udpPort))
	a.w.service("127.96.0.9:123", dbApp)
	program, err := net.ListenPacket("udp4", "0.0.0.0:123")
	must(t, err)
	defer program.Close()
	app := newEchoUDP(t, dbApp)
	c := a.udp(webAddr)
	for _, size := range []int{1, 3000, 60000} {
		payload := strings.Repeat("x", size)
		c.send("127.96.0.9:123", payload)
		c.want("127.96.0.9:123", "re:"+payload)
		if got := <-app.text; len(got) != size {
			t.Errorf("%d bytes of %d", len(got), size)
		}
	}
	if r := a.waitFlow(udpFlow(flow.Closed)); r.DatagramsReceived == 0 {
		t.Errorf("%+v", r)
	}
}

func TestSuccessorTakesNewFlowsAndTheOldKeepsItsOwn(t *testing.T) {
	_, a, _ := udpPair(t, Limits{})
	newEchoUDP(t, dbApp)
	standing := a.udp(webAddr)
	standing.roundTrip("1")
	a.proxy.Pause()
	waiting := a.udp(webAddr)
	waiting.send(udpVIP, "2")
	if s := a.proxy.Stats(); s.FlowsOut != 1 {
		t.Errorf("%+v", s)
	}
	next := a.successor()
	a.proxy.Leave()
	waiting.want(udpVIP, "re:2")
	if s := next.proxy.Stats(); s.FlowsOut != 1 {
		t.Errorf("the successor has %d flows", s.FlowsOut)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if left := a.proxy.Drain(ctx, 0); left != 1 {
		t.Errorf("%d flows are left, want 1", left)
	}
	a.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Reason == "shutdown" })
	standing.n = next
	standing.roundTrip("3") // goes on with the successor
}

func TestPausedNodeTakesNothingAndGoesOn(t *testing.T) {
	_, a, _ := udpPair(t, Limits{})
	newEchoUDP(t, dbApp)
	a.proxy.Pause()
	c := a.udp(webAddr)
	c.send(udpVIP, "1")
	a.proxy.Resume()
	c.want(udpVIP, "re:1")
}
