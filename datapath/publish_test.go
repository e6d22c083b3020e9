// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

const (
	hostPort   = 30079
	clientAddr = "127.30.0.1"
	dbAddr2    = "127.20.0.2"
)

// publishing has db's port 6379 open on its node for clients of 127.30.0.0/16.
// Addresses of one machine are loopback addresses: the test says otherwise.
func publishing(m *policy.Manifest) {
	m.Workloads[1].Publish = []policy.Publish{{Port: 6379, HostPort: hostPort, From: []string{"127.30.0.0/16"}}}
}

// front is a node with db pods and its published port, at an address of the
// test's choice.
type front struct {
	*world
	*node
	port *net.TCPListener
	addr string
}

func newFront(t *testing.T, limits Limits, pods ...string) *front {
	t.Helper()
	w := newWorld(t, policytest.With(publishing))
	n := w.node("127.0.0.1", limits)
	n.proxy.loopback.Store(true)
	f := &front{world: w, node: n}
	var local []*LocalPod
	for _, addr := range pods {
		local = append(local, n.pod(policytest.DB, addr))
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	f.port, f.addr = ln.(*net.TCPListener), ln.Addr().String()
	f.publish(local...)
	return f
}

func (f *front) publish(pods ...*LocalPod) {
	f.proxy.Publish(map[uint16]Published{hostPort: {Listeners: []*net.TCPListener{f.port}, Pods: pods}})
}

// from dials the published port from an address outside the mesh.
func (f *front) from(t *testing.T, client string) (*net.TCPConn, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	c, err := d.DialContext(t.Context(), "tcp", f.addr)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	return c.(*net.TCPConn), nil
}

func (f *front) refusedFrom(t *testing.T, client, reason string) flow.Record {
	t.Helper()
	c, err := f.from(t, client)
	if err == nil {
		wantReset(t, c)
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return f.wantRefusal(reason)
}

func TestPublishedPortReachesThePodWithTheClientsAddress(t *testing.T) {
	f := newFront(t, Limits{}, dbAddr)
	peers := echo(t, dbApp)
	c, err := f.from(t, clientAddr)
	must(t, err)
	talk(t, c)
	if peer := <-peers; peer.Addr().String() != clientAddr {
		t.Errorf("the application sees %s, not the client", peer)
	}
	if s := f.proxy.Stats(); s.Clients != 1 || s.Incoming != 0 || s.Direct != 1 {
		t.Errorf("while it lasts: %+v", s)
	}
	must(t, c.CloseWrite())
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v", err)
	}
	for _, verdict := range []flow.Verdict{flow.Allowed, flow.Closed} {
		r := f.waitFlow(func(r flow.Record) bool { return r.Verdict == verdict })
		if r.Direction != flow.Ingress || r.Rule != "publish/30079" || r.SrcID != "" || r.DstID != "spiffe://c8s.test/workload/db" ||
			r.Src.Addr().String() != clientAddr || r.Dst.String() != f.addr || r.Endpoint.String() != dbApp || r.Pod != "default/db" || r.Reason != "" {
			t.Errorf("%s: %+v", verdict, r)
		}
	}
}

func TestClientsOfPublishedPortsAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		arrange func(t *testing.T, f *front)
		client  string
		reason  string
	}{
		"client not listed": {client: "127.31.0.1", reason: string(policy.CodePublishClient)},
		"a pod's address":   {client: webAddr, reason: "client-address", arrange: func(_ *testing.T, f *front) { f.pod(policytest.Web, webAddr) }},
		"the address of a pod elsewhere": {client: "127.30.0.7", reason: "client-address", arrange: func(_ *testing.T, f *front) {
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			f.routes[netip.MustParseAddr("127.30.0.7")] = netip.MustParseAddr("127.0.0.9")
		}},
		"the address of a pod on no node": {client: "127.30.0.7", reason: "client-address", arrange: func(_ *testing.T, f *front) {
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			f.verdicts[netip.MustParseAddr("127.30.0.7")] = resolve.NoNode
		}},
		"loopback":       {client: clientAddr, reason: "client-address", arrange: func(_ *testing.T, f *front) { f.proxy.loopback.Store(false) }},
		"nobody listens": {client: clientAddr, reason: "connection-refused"},
		"not published any more": {client: clientAddr, reason: string(policy.CodePublishNotAllowed), arrange: func(t *testing.T, f *front) {
			f.manifest.Store(f.fixture.Next(t, func(m *policy.Manifest) { m.Workloads[1].Publish = nil }).Signed)
		}},
		"pod gone": {client: clientAddr, reason: "destination-not-enrolled", arrange: func(_ *testing.T, f *front) { f.remove(dbAddr) }},
		"no pod":   {client: clientAddr, reason: "no-endpoints", arrange: func(_ *testing.T, f *front) { f.publish() }},
		"pod not enrolled": {client: clientAddr, reason: "not-enrolled", arrange: func(_ *testing.T, f *front) {
			f.publish(f.podWith(policytest.DB, netip.MustParseAddr(dbAddr), nil))
		}},
		"pod denied": {client: clientAddr, reason: "denied-workload", arrange: func(_ *testing.T, f *front) {
			f.deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
		}},
		"pod of another family": {client: clientAddr, reason: "no-endpoints", arrange: func(_ *testing.T, f *front) {
			f.publish(f.pod(policytest.DB, "fd00::1"))
		}},
		"daemon ends": {client: clientAddr, reason: "shutdown", arrange: func(_ *testing.T, f *front) { f.proxy.Refuse() }},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, Limits{}, dbAddr)
			if tt.arrange != nil {
				tt.arrange(t, f)
			}
			r := f.refusedFrom(t, tt.client, tt.reason)
			if r.Src.Addr().String() != tt.client || r.Direction != flow.Ingress || r.SrcID != "" {
				t.Errorf("%+v", r)
			}
			for f.proxy.Stats().Clients > 0 {
				time.Sleep(time.Millisecond)
			}
			if s := f.proxy.Stats(); s.Strangers != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestSeveralPodsShareAPublishedPort(t *testing.T) {
	f := newFront(t, Limits{}, dbAddr, dbAddr2)
	first, second := echo(t, dbApp), echo(t, dbAddr2+":6379")
	for range 6 {
		c, err := f.from(t, clientAddr)
		must(t, err)
		talk(t, c)
	}
	if len(first) != 3 || len(second) != 3 {
		t.Errorf("%d and %d connections, want 3 each", len(first), len(second))
	}
	// One that cannot serve is passed over.
	f.remove(dbAddr2)
	for range 4 {
		c, err := f.from(t, clientAddr)
		must(t, err)
		talk(t, c)
	}
	if len(first) != 7 {
		t.Errorf("%d connections, want 7", len(first))
	}
}

func TestRecheckEndsWhatIsNoLongerPublished(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, f *front){
		"rule gone": func(t *testing.T, f *front) {
			f.manifest.Store(f.fixture.Next(t, func(m *policy.Manifest) { m.Workloads[1].Publish = nil }).Signed)
		},
		"client not listed any more": func(t *testing.T, f *front) {
			f.manifest.Store(f.fixture.Next(t, func(m *policy.Manifest) { m.Workloads[1].Publish[0].From = []string{"127.31.0.0/16"} }).Signed)
		},
		"another port": func(t *testing.T, f *front) {
			f.manifest.Store(f.fixture.Next(t, func(m *policy.Manifest) { m.Workloads[1].Publish[0].Port++ }).Signed)
		},
		"pod gone":   func(_ *testing.T, f *front) { f.remove(dbAddr) },
		"pod denied": func(_ *testing.T, f *front) { f.deny(policytest.Deny(policy.DenyWorkload, policytest.DB)) },
		"other CA":   func(t *testing.T, f *front) { f.roots.Store(newCA(t).pool()) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, Limits{}, dbAddr)
			echo(t, dbApp)
			c, err := f.from(t, clientAddr)
			must(t, err)
			talk(t, c)
			f.proxy.Recheck()
			talk(t, c)
			change(t, f)
			f.proxy.Recheck()
			wantReset(t, c)
			if r := f.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Closed }); r.Reason == "" || r.Actual == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestClosingAPublishedPortKeepsItsConnections(t *testing.T) {
	f := newFront(t, Limits{}, dbAddr)
	echo(t, dbApp)
	c, err := f.from(t, clientAddr)
	must(t, err)
	talk(t, c)
	f.proxy.Publish(nil)
	if c, err := f.from(t, clientAddr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed port: %v, %v", c, err)
	}
	talk(t, c)
}

func TestPausedPublishedPortsLeaveConnectionsInTheQueue(t *testing.T) {
	f := newFront(t, Limits{}, dbAddr)
	echo(t, dbApp)
	file, err := f.port.File() // what a successor has
	must(t, err)
	defer file.Close()
	f.proxy.Pause()
	waiting, err := f.from(t, clientAddr)
	must(t, err)
	f.proxy.Resume()
	talk(t, waiting)

	f.proxy.Pause()
	waiting, err = f.from(t, clientAddr)
	must(t, err)
	f.proxy.Leave()
	ln, err := net.FileListener(file)
	must(t, err)
	b := f.nodeOn("127.0.0.1", Limits{}, f.spare(t), nil)
	b.proxy.loopback.Store(true)
	pod := b.pod(policytest.DB, dbAddr)
	b.proxy.Publish(map[uint16]Published{hostPort: {Listeners: []*net.TCPListener{ln.(*net.TCPListener)}, Pods: []*LocalPod{pod}}})
	talk(t, waiting)
}

// spare is sockets for another proxy on the same node.
func (f *front) spare(t *testing.T) Listeners {
	t.Helper()
	pods, err := Listen(t.Context(), "tcp4", unmarked)
	must(t, err)
	tunnels, err := ListenTunnels(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	must(t, err)
	return Listeners{Pods: []*net.TCPListener{pods}, Tunnels: tunnels}
}

func TestClientsAreLimitedByAddressAndTakeNoPlaceOfPeers(t *testing.T) {
	f := newFront(t, Limits{ClientsPerAddress: 2, ConnectionsPerPod: 3}, dbAddr)
	f.pod(policytest.Web, webAddr)
	echo(t, dbApp)
	for _, client := range []string{clientAddr, clientAddr, "127.30.0.2"} {
		c, err := f.from(t, client)
		must(t, err)
		talk(t, c)
	}
	f.refusedFrom(t, clientAddr, "too-many-connections") // of this address
	for f.proxy.Stats().Strangers < 1 {
		time.Sleep(time.Millisecond)
	}
	f.refusedFrom(t, "127.30.0.3", "too-many-connections") // of the pod
	for range 3 {
		talk(t, f.dial(webAddr, dbApp))
	}
}

func TestRecordsAboutStrangersHaveABudget(t *testing.T) {
	b := budget{perSecond: 10, burst: 2}
	now := time.Unix(1000, 0)
	for i, want := range []bool{true, true, false, false, false} {
		if _, ok := b.take(now); ok != want {
			t.Errorf("at once, %d: %t", i, ok)
		}
	}
	if n, ok := b.take(now.Add(100 * time.Millisecond)); !ok || n != 3 {
		t.Errorf("later: %t, %d suppressed, want 3", ok, n)
	}
	if _, ok := b.take(now.Add(100 * time.Millisecond)); ok {
		t.Error("the budget did not run out again")
	}
	if _, ok := b.take(now); ok { // a clock that goes back
		t.Error("time that passes backwards fills the budget")
	}
}

func TestPublishedPortIsOpenOnBothFamilies(t *testing.T) {
	for _, family := range []string{"tcp4", "tcp6"} {
		first, err := ListenPublished(t.Context(), family, 0)
		must(t, err)
		defer first.Close()
		port := uint16(first.Addr().(*net.TCPAddr).Port)
		if _, err := ListenPublished(context.Background(), family, port); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a port that is taken: %v", err)
		}
	}
}
