// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/external"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

const (
	farAddr = "192.0.2.10" // outside of the mesh, served at farApp
	farApp  = "127.40.0.1"
)

// outsider is a node with a web pod and an endpoint outside of the mesh.
type outsider struct {
	*node
	web      *LocalPod
	bindings *external.Bindings
	dialled  atomic.Int64
	ours     atomic.Pointer[netip.Addr] // an address of the node itself
}

func externals(m *policy.Manifest) {
	m.Workloads[0].External = []policy.External{
		{Name: "far", CIDRs: []string{"192.0.2.0/24", "2001:db8::/32"}, Ports: []uint16{80}, Protocol: "tcp"},
		{Name: "named", Names: []string{"api.example.com"}, Ports: []uint16{81}, Protocol: "tcp"},
		{Name: "tls", CIDRs: []string{"192.0.2.0/24"}, Ports: []uint16{443}, Protocol: "tcp", TLS: true},
		{Name: "sni", CIDRs: []string{"192.0.2.0/24"}, Ports: []uint16{444}, Protocol: "tcp", SNI: []string{"api.example.com"}},
		{Name: "all", CIDRs: []string{"0.0.0.0/0"}, Ports: []uint16{9}, Protocol: "tcp"},
		{Name: "time", CIDRs: []string{"127.96.0.10/32"}, Ports: []uint16{5123}, Protocol: "udp"},
		{Name: "exact", CIDRs: []string{"198.51.100.1/32"}, Ports: []uint16{10}, Protocol: "tcp"},
	}
}

func newOutsider(t testing.TB, limits Limits, opts ...policytest.Option) *outsider {
	w := newWorld(t, append([]policytest.Option{policytest.With(externals)}, opts...)...)
	ln, err := Listen(t.Context(), "tcp4", unmarked)
	must(t, err)
	packets, err := ListenTransparentUDP(t.Context(), unmarked)
	must(t, err)
	tunnels, err := ListenTunnels(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), w.port))
	must(t, err)
	o := &outsider{bindings: external.New(external.Config{Now: w.now})}
	o.node = w.nodeOn("127.0.0.1", limits, Listeners{Pods: []*net.TCPListener{ln}, Tunnels: tunnels, Packets: packets}, func(n *node) {
		n.proxy.cfg.Bindings = o.bindings
		n.proxy.ownAddr = func(a netip.Addr) bool { ours := o.ours.Load(); return ours != nil && *ours == a }
		n.proxy.dialOutside = func(ctx context.Context, network string, dst netip.AddrPort) (net.Conn, error) {
			o.dialled.Add(1)
			return dialOutside(ctx, network, netip.AddrPortFrom(netip.MustParseAddr(farApp), dst.Port()))
		}
	})
	o.web = o.pod(policytest.Web, webAddr)
	return o
}

func TestAPodTalksToAnAllowedEndpoint(t *testing.T) {
	o := newOutsider(t, Limits{})
	peers := echo(t, farApp+":80")
	c := o.dial(webAddr, farAddr+":80")
	talk(t, c)
	if peer := <-peers; peer.Addr().String() == webAddr {
		t.Error("the endpoint sees the pod, not the node")
	}
	r := o.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Allowed })
	if r.Rule != "external/far" || r.Dst.String() != farAddr+":80" || r.Pod != o.web.Name || r.SrcWorkload != policytest.Web || r.DstWorkload != "" || r.DstID != "" {
		t.Errorf("%+v", r)
	}
	must(t, c.CloseWrite())
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v", err)
	}
	r = o.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })
	if r.Rule != "external/far" || r.Reason != "" || r.BytesSent != 4 || r.BytesReceived != 4 || r.Duration <= 0 {
		t.Errorf("%+v", r)
	}
	if s := o.proxy.Stats(); s.External != 1 || s.ExternalSent != 4 || s.ExternalReceived != 4 || s.Handshakes != 0 || s.BytesSent != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWhatNoRuleAllowsDoesNotLeave(t *testing.T) {
	far := netip.MustParseAddr(farAddr)
	verdict := func(v resolve.Verdict, addr string) func(o *outsider) {
		return func(o *outsider) {
			o.w.mu.Lock()
			defer o.w.mu.Unlock()
			o.w.verdicts[netip.MustParseAddr(addr)] = v
		}
	}
	for name, tt := range map[string]struct {
		dst     string
		arrange func(o *outsider)
		reason  string
	}{
		"another address":        {dst: "[2001:db9::1]:80", reason: "external-not-allowed"},
		"another port":           {dst: farAddr + ":82", reason: "external-port-not-allowed"},
		"a name nobody asked":    {dst: "203.0.113.1:81", reason: "external-name-not-answered"},
		"another pod's answer":   {dst: "203.0.113.1:81", reason: "external-name-not-answered", arrange: func(o *outsider) { o.bindings.Learn("other", "api.example.com", addrs("203.0.113.1"), time.Hour) }},
		"another name's address": {dst: "203.0.113.1:81", reason: "external-name-not-answered", arrange: func(o *outsider) { o.bindings.Learn(o.web.UID, "evil.example", addrs("203.0.113.1"), time.Hour) }},
		"an answer that is over": {dst: "203.0.113.1:81", reason: "external-name-not-answered", arrange: func(o *outsider) {
			o.bindings.Learn(o.web.UID, "api.example.com", addrs("203.0.113.1"), time.Minute)
			o.w.ahead.Add(int64(2 * time.Minute))
		}},
		"loopback":                     {dst: "127.40.0.1:9", reason: "external-not-allowed"},
		"metadata":                     {dst: "169.254.169.254:9", reason: "external-not-allowed"},
		"the node, by a wide prefix":   {dst: "198.51.100.1:9", reason: "external-port-not-allowed", arrange: func(o *outsider) { a := netip.MustParseAddr("198.51.100.1"); o.ours.Store(&a) }},
		"a node, by a wide prefix":     {dst: "198.51.100.2:9", reason: "external-not-allowed", arrange: verdict(resolve.HostAddress, "198.51.100.2")},
		"a host's service, widely":     {dst: "198.51.100.2:9", reason: "external-not-allowed", arrange: verdict(resolve.HostService, "198.51.100.2")},
		"a pod without a node":         {dst: "203.0.113.1:9", reason: "no-route", arrange: verdict(resolve.NoNode, "203.0.113.1")},
		"a service without endpoints":  {dst: "203.0.113.1:9", reason: "no-endpoints", arrange: verdict(resolve.NoEndpoints, "203.0.113.1")},
		"a service's other port":       {dst: "203.0.113.1:9", reason: "no-service-port", arrange: verdict(resolve.NoServicePort, "203.0.113.1")},
		"a load balancer's address":    {dst: "203.0.113.1:9", reason: "external-address", arrange: verdict(resolve.ExternalAddress, "203.0.113.1")},
		"an unusable address":          {dst: "203.0.113.1:9", reason: "no-route", arrange: verdict(resolve.Unusable, "203.0.113.1")},
		"an address claimed for a pod": {dst: farAddr + ":80", reason: "node-unreachable", arrange: func(o *outsider) { o.w.routes[far] = netip.MustParseAddr("127.0.0.9") }},
		"an entry without rules": {dst: farAddr + ":80", reason: "no-route", arrange: func(o *outsider) {
			o.remove(webAddr)
			o.pod(policytest.DB, webAddr)
		}},
		"a pod that is not enrolled": {dst: farAddr + ":80", reason: "not-enrolled", arrange: func(o *outsider) { o.podWith(policytest.Web, netip.MustParseAddr(webAddr), nil) }},
		"a pod that is denied": {dst: farAddr + ":80", reason: "denied-workload", arrange: func(o *outsider) {
			o.deny(policy.Denial{Kind: policy.DenyWorkload, Value: policytest.Web, Reason: "test"})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutsider(t, Limits{})
			if tt.arrange != nil {
				tt.arrange(o)
			}
			o.dialRefused(webAddr, tt.dst)
			o.wantRefusal(tt.reason)
			if n := o.dialled.Load(); n != 0 {
				t.Errorf("the endpoint was dialled %d times", n)
			}
		})
	}
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// The node's own address is reached where the operators wrote exactly it.
func TestAnAddressOfTheNodeNeedsAPrefixOfItsOwn(t *testing.T) {
	o := newOutsider(t, Limits{})
	echo(t, farApp+":10")
	ours := netip.MustParseAddr("198.51.100.1")
	o.ours.Store(&ours)
	talk(t, o.dial(webAddr, "198.51.100.1:10"))
	o.w.mu.Lock()
	o.w.verdicts[ours] = resolve.HostAddress
	o.w.mu.Unlock()
	talk(t, o.dial(webAddr, "198.51.100.1:10"))
}

func TestOwnAddrAsksTheKernel(t *testing.T) {
	for addr, ours := range map[string]bool{"127.0.0.1": true, "127.9.9.9": true, "::1": true, "224.0.0.1": true, "255.255.255.255": true} {
		if got := ownAddr(netip.MustParseAddr(addr)); got != ours {
			t.Errorf("%s is the node's: %t", addr, got)
		}
	}
	links, err := net.InterfaceAddrs()
	must(t, err)
	for _, link := range links {
		addr, _ := netip.AddrFromSlice(link.(*net.IPNet).IP)
		if addr = addr.Unmap(); !addr.IsLinkLocalUnicast() && !ownAddr(addr) {
			t.Errorf("%s, which a link of this machine has, is not the node's", addr)
		}
	}
	if ownAddr(netip.MustParseAddr("192.0.2.1")) {
		t.Error("192.0.2.1 is the node's")
	}
}

func TestANameLastsForWhatWasConnected(t *testing.T) {
	o := newOutsider(t, Limits{})
	echo(t, farApp+":81")
	o.bindings.Learn(o.web.UID, "api.example.com", addrs(farAddr), time.Minute)
	c := o.dial(webAddr, farAddr+":81")
	talk(t, c)
	if r := o.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Allowed }); r.Rule != "external/named" || r.DstName != "api.example.com" {
		t.Errorf("%+v", r)
	}
	o.w.ahead.Add(int64(2 * time.Minute))
	o.proxy.Recheck()
	talk(t, c)
	o.dialRefused(webAddr, farAddr+":81")
	o.wantRefusal("external-name-not-answered")
}

func TestAnEndpointThatCannotBeReached(t *testing.T) {
	o := newOutsider(t, Limits{ExternalDial: 5 * time.Second})
	o.dialRefused(webAddr, farAddr+":80") // nobody listens
	if r := o.wantRefusal("external-connection-refused"); r.Rule != "external/far" || r.Actual == "" {
		t.Errorf("%+v", r)
	}
	for want, err := range map[string]error{"external-timeout": os.ErrDeadlineExceeded, "external-unreachable": syscall.ENETUNREACH} {
		o := newOutsider(t, Limits{})
		o.proxy.dialOutside = func(context.Context, string, netip.AddrPort) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: err}
		}
		o.dialRefused(webAddr, farAddr+":80")
		o.wantRefusal(want)
	}
}

// Whatever made a connection allowed may end, and the connection with it.
func TestRecheckEndsWhatLeavesTheMesh(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(o *outsider)
		rule   string
		reason string // empty: it goes on
	}{
		"nothing":          {func(*outsider) {}, "", ""},
		"the rule is gone": {func(o *outsider) { o.next(func(m *policy.Manifest) { m.Workloads[0].External = nil }) }, "workloads[web].external", "policy-changed"},
		"the prefix is another": {func(o *outsider) {
			o.next(func(m *policy.Manifest) { m.Workloads[0].External[0].CIDRs = []string{"192.0.2.99/32"} })
		}, "", "policy-changed"},
		"another rule fits": {func(o *outsider) { o.next(func(m *policy.Manifest) { m.Workloads[0].External[0].Name = "renamed" }) }, "", ""},
		"now it wants TLS":  {func(o *outsider) { o.next(func(m *policy.Manifest) { m.Workloads[0].External[0].TLS = true }) }, "external/far", "policy-changed"},
		"the pod is gone":   {func(o *outsider) { o.remove(webAddr) }, "local pods", "policy-changed"},
		"the pod is locked": {func(o *outsider) { o.podWith(policytest.Web, netip.MustParseAddr(webAddr), nil) }, "pod certificate", "policy-changed"},
		"another pod has its address": {func(o *outsider) {
			o.mu.Lock()
			defer o.mu.Unlock()
			next := *o.pods[netip.MustParseAddr(webAddr)]
			next.UID = "uid-next"
			o.pods[netip.MustParseAddr(webAddr)] = &next
		}, "local pods", "policy-changed"},
		"somebody claims the address": {func(o *outsider) {
			o.w.mu.Lock()
			defer o.w.mu.Unlock()
			o.w.routes[netip.MustParseAddr(farAddr)] = o.addr
		}, "routes", "policy-changed"},
		"the workload is denied": {func(o *outsider) {
			o.deny(policy.Denial{Kind: policy.DenyWorkload, Value: policytest.Web, Reason: "test"})
		}, "", "denied-workload"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutsider(t, Limits{})
			echo(t, farApp+":80")
			c := o.dial(webAddr, farAddr+":80")
			talk(t, c)
			tt.change(o)
			o.proxy.Recheck()
			if tt.reason == "" {
				talk(t, c)
				return
			}
			wantReset(t, c)
			r := o.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed })
			if r.Reason != tt.reason || !strings.HasPrefix(r.Rule, tt.rule) {
				t.Errorf("%+v, want %s by %s", r, tt.reason, tt.rule)
			}
		})
	}
}

// next puts a successor of the manifest in force, without a Recheck.
func (o *outsider) next(edit func(m *policy.Manifest)) {
	o.w.manifest.Store(o.w.fixture.Next(o.w.t, edit).Signed)
}

func TestResetsPassBothWays(t *testing.T) {
	o := newOutsider(t, Limits{})
	ln, err := net.Listen("tcp", farApp+":80")
	must(t, err)
	defer ln.Close()
	next := func() (app, far *net.TCPConn) {
		app = o.dial(webAddr, farAddr+":80")
		c, err := ln.Accept()
		must(t, err)
		t.Cleanup(func() { c.Close() })
		must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
		return app, c.(*net.TCPConn)
	}
	app, far := next()
	must(t, errors.Join(app.SetLinger(0), app.Close()))
	wantReset(t, far)
	app, far = next()
	must(t, errors.Join(far.SetLinger(0), far.Close()))
	wantReset(t, app)
}

func TestIdleConnectionsOutsideAreReset(t *testing.T) {
	o := newOutsider(t, Limits{Idle: 100 * time.Millisecond})
	echo(t, farApp+":80")
	c := o.dial(webAddr, farAddr+":80")
	talk(t, c)
	o.w.ahead.Add(int64(time.Hour))
	wantReset(t, c)
	o.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed && r.Reason == "idle-timeout" })
}

func TestConnectionsOutsideCountAgainstThePodsLimit(t *testing.T) {
	o := newOutsider(t, Limits{ConnectionsPerPod: 2})
	echo(t, farApp+":80")
	talk(t, o.dial(webAddr, farAddr+":80"))
	talk(t, o.dial(webAddr, farAddr+":80"))
	o.dialRefused(webAddr, farAddr+":80")
	o.wantRefusal("too-many-connections")
}

// BenchmarkOutside compares a request over a new connection, and bytes in bulk,
// with what a process of the node has.
func BenchmarkOutside(b *testing.B) {
	for _, way := range []string{"node", "pod"} {
		b.Run("bulk/"+way, func(b *testing.B) { benchOutside(b, way == "pod") })
	}
}

func benchOutside(b *testing.B, throughMesh bool) {
	o := newOutsider(b, Limits{})
	ln, err := net.Listen("tcp", farApp+":80")
	must(b, err)
	defer ln.Close()
	var c net.Conn
	if throughMesh {
		c = o.dial(webAddr, farAddr+":80")
	} else {
		c, err = net.Dial("tcp", farApp+":80")
		must(b, err)
		defer c.Close()
	}
	must(b, c.SetDeadline(time.Now().Add(time.Minute)))
	far, err := ln.Accept()
	must(b, err)
	defer far.Close()
	chunk := make([]byte, 1<<20)
	b.SetBytes(int64(len(chunk)))
	go func() {
		for {
			if _, err := c.Write(chunk); err != nil {
				return
			}
		}
	}()
	sink := make([]byte, 1<<20)
	for b.Loop() {
		if _, err := io.ReadFull(far, sink); err != nil {
			b.Fatal(err)
		}
	}
}
