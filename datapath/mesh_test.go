// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
	"github.com/c8s-dev/c8s/test/freeport"
)

// testCA issues what the CDS would.
type testCA struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	n    int64
}

func newCA(t testing.TB) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &testCA{t: t, key: key, cert: cert, n: 1}
}

func (ca *testCA) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

func (ca *testCA) issue(facts policy.Peer, life time.Duration, addrs ...netip.Addr) *tls.Certificate {
	t := ca.t
	t.Helper()
	ca.n++
	claims := ratls.Claims{
		Role: facts.Role, SubstrateFacts: facts.SubstrateFacts, Workload: facts.Workload,
		WorkloadDigest: facts.WorkloadDigest, ManifestVersion: facts.ManifestVersion, ManifestDigest: facts.ManifestDigest,
		EvidenceHash: [32]byte{1},
	}
	if facts.Role == policy.RoleWorkload {
		claims.Namespace, claims.Pod, claims.PodUID = "default", facts.Workload, fmt.Sprintf("00000000-0000-4000-8000-%012d", ca.n)
	}
	id, err := ratls.NewID(facts.TrustDomain, &claims)
	must(t, err)
	now := time.Now()
	tmpl, err := ratls.Template(facts.Role, id, claims, addrs, now.Add(-time.Minute), now.Add(life))
	must(t, err)
	tmpl.SerialNumber = big.NewInt(ca.n)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// world is what all nodes of a test agree on.
type world struct {
	t        testing.TB
	ca       *testCA
	manifest atomic.Pointer[policy.Signed]
	roots    atomic.Pointer[x509.CertPool]
	fixture  *policytest.Fixture
	port     uint16
	ahead    atomic.Int64 // of the real time, in nanoseconds

	mu       sync.Mutex
	routes   map[netip.Addr]netip.Addr
	services map[netip.AddrPort][]netip.AddrPort
	verdicts map[netip.Addr]resolve.Verdict
}

// unmarked takes packets for captured that carry no mark: on the loopback
// nothing is steered.
var unmarked = Marks{Mask: 0x3000} // constant in all but name

// node is a Proxy with its Mesh. Connections dialled to entry go to target,
// as if the kernel had steered them.
type node struct {
	w      *world
	addr   netip.Addr
	proxy  *Proxy
	flows  *flow.Ring
	entry  string
	target atomic.Pointer[netip.AddrPort]
	denied atomic.Pointer[policy.SignedDenyList]
	cancel context.CancelFunc
	done   chan error

	listeners Listeners

	mu   sync.Mutex
	pods map[netip.Addr]*LocalPod
}

func newWorld(t testing.TB, opts ...policytest.Option) *world {
	w := &world{
		t: t, ca: newCA(t), fixture: policytest.New(t, opts...), routes: map[netip.Addr]netip.Addr{},
		services: map[netip.AddrPort][]netip.AddrPort{}, verdicts: map[netip.Addr]resolve.Verdict{},
	}
	w.manifest.Store(w.fixture.Signed)
	w.roots.Store(w.ca.pool())
	var err error
	w.port, err = freeport.Find()
	must(t, err)
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

func (n *node) Pod(a netip.Addr) (*LocalPod, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p, ok := n.pods[a]
	return p, ok
}

// Resolve is a table of which the tests decide the order of endpoints.
func (n *node) Resolve(q resolve.Query) (resolve.Target, resolve.Verdict) {
	if q.Protocol != resolve.TCP && q.Protocol != resolve.UDP {
		return resolve.Target{}, resolve.Undecided
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if endpoints, ok := n.w.services[q.Dst]; ok {
		left := slices.DeleteFunc(slices.Clone(endpoints), func(e netip.AddrPort) bool {
			return slices.Contains(q.Avoid, e.Addr()) || slices.Contains(q.Avoid, n.w.routes[e.Addr()])
		})
		if len(left) == 0 {
			return resolve.Target{Service: "default/db"}, resolve.NoEndpoints
		}
		return resolve.Target{Pod: left[0], Node: n.w.routes[left[0].Addr()], Service: "default/db", Others: len(left) > 1}, resolve.Found
	}
	if verdict, ok := n.w.verdicts[q.Dst.Addr()]; ok {
		return resolve.Target{}, verdict
	}
	if r, ok := n.w.routes[q.Dst.Addr()]; ok {
		return resolve.Target{Pod: q.Dst, Node: r}, resolve.Found
	}
	return resolve.Target{}, resolve.NoRoute
}

// Node is where pods are carried.
func (n *node) Node(addr netip.Addr) bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	for _, carrier := range n.w.routes {
		if carrier == addr {
			return true
		}
	}
	return false
}

// service puts endpoints behind a Service's address.
func (w *world) service(vip string, endpoints ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := []netip.AddrPort{}
	for _, e := range endpoints {
		all = append(all, netip.MustParseAddrPort(e))
	}
	w.services[netip.MustParseAddrPort(vip)] = all
}
func (n *node) Manifest() *policy.Signed { return n.w.manifest.Load() }
func (n *node) Roots() *x509.CertPool    { return n.w.roots.Load() }
func (n *node) DenyList() *policy.DenyList {
	if signed := n.denied.Load(); signed != nil {
		return signed.List
	}
	return nil
}

// deny puts a deny list in force on this node only, without a Recheck.
func (n *node) deny(entries ...policy.Denial) {
	n.w.t.Helper()
	n.denied.Store(n.w.fixture.DenyList(n.w.t, n.denied.Load(), entries...))
}

func (w *world) node(addr string, limits Limits) *node {
	t := w.t
	t.Helper()
	ln, err := Listen(t.Context(), "tcp4", unmarked)
	must(t, err)
	packets, err := ListenTransparentUDP(t.Context(), unmarked)
	must(t, err)
	tunnels, err := ListenTunnels(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(addr), w.port))
	must(t, err)
	return w.nodeOn(addr, limits, Listeners{Pods: []*net.TCPListener{ln}, Tunnels: tunnels, Packets: packets}, nil)
}

// nodeOn is a node on given sockets; prepare, if not nil, comes before it runs.
func (w *world) nodeOn(addr string, limits Limits, l Listeners, prepare func(n *node)) *node {
	t := w.t
	t.Helper()
	n := &node{w: w, addr: netip.MustParseAddr(addr), flows: flow.NewRing(1000), pods: map[netip.Addr]*LocalPod{}, done: make(chan error, 1), listeners: l}
	n.entry = l.Pods[0].Addr().String()
	var err error
	n.proxy, err = New(Config{
		Mesh: n, NodeAddr: n.addr, NodeName: addr, TunnelPort: w.port, Marks: unmarked,
		Limits: limits, Flows: n.flows, Now: w.now, Log: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	must(t, n.proxy.Listen(l))
	n.proxy.origDst = func(*net.TCPConn) netip.AddrPort { return *n.target.Load() }
	n.proxy.origDstUDP = func([]byte) netip.AddrPort { return *n.target.Load() }
	if prepare != nil {
		prepare(n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.done <- n.proxy.Run(ctx) }()
	t.Cleanup(n.stop)
	return n
}

// packetEntry is where datagrams are sent to as if the kernel had steered them.
func (n *node) packetEntry() netip.AddrPort {
	return n.listeners.Packets[0].LocalAddr().(*net.UDPAddr).AddrPort()
}

func (n *node) stop() {
	n.cancel()
	if err := <-n.done; err != nil {
		n.w.t.Errorf("Run: %v", err)
	}
	n.done <- nil
}

// pod adds an enrolled pod of a workload.
func (n *node) pod(workload, addr string) *LocalPod {
	a := netip.MustParseAddr(addr)
	return n.podWith(workload, a, n.w.ca.issue(policytest.Peer(n.w.fixture.Signed, workload), time.Hour, a))
}

func (n *node) podWith(workload string, addr netip.Addr, cert *tls.Certificate) *LocalPod {
	var cred *Credential
	if cert != nil {
		peer, err := ratls.ParsePeer(cert.Leaf)
		must(n.w.t, err)
		cred = NewCredential(cert, peer)
	}
	p := &LocalPod{Addrs: []netip.Addr{addr}, Workload: workload, Name: "default/" + workload, UID: "uid-" + addr.String(), Credential: func() *Credential { return cred }}
	n.mu.Lock()
	n.pods[addr] = p
	n.mu.Unlock()
	n.w.mu.Lock()
	n.w.routes[addr] = n.addr
	n.w.mu.Unlock()
	return p
}

func (n *node) remove(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pods, netip.MustParseAddr(addr))
}

// dial connects from the pod at src to dst through the mesh.
func (n *node) dial(src, dst string) *net.TCPConn {
	n.w.t.Helper()
	c, err := n.tryDial(src, dst)
	must(n.w.t, err)
	return c
}

func (n *node) tryDial(src, dst string) (*net.TCPConn, error) {
	n.w.t.Helper()
	to := netip.MustParseAddrPort(dst)
	n.target.Store(&to)
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(src)}, Timeout: 5 * time.Second}
	c, err := d.Dial("tcp", n.entry)
	if err != nil {
		return nil, err
	}
	n.w.t.Cleanup(func() { c.Close() })
	must(n.w.t, c.SetDeadline(time.Now().Add(10*time.Second)))
	return c.(*net.TCPConn), nil
}

// dialRefused connects and wants a reset, which may come before the
// connection is seen as made.
func (n *node) dialRefused(src, dst string) {
	n.w.t.Helper()
	c, err := n.tryDial(src, dst)
	if errors.Is(err, syscall.ECONNRESET) {
		return
	}
	must(n.w.t, err)
	wantReset(n.w.t, c)
}

// waitFlow waits for a record that fits.
func (n *node) waitFlow(fits func(flow.Record) bool) flow.Record {
	n.w.t.Helper()
	sub := n.flows.Subscribe(1000, flow.Filter{})
	defer sub.Close()
	for _, r := range sub.History() {
		if fits(r) {
			return r
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for {
		r, err := sub.Next(ctx)
		if err != nil {
			n.w.t.Fatalf("node %s: no such flow record; there are %+v", n.addr, n.flows.Subscribe(100, flow.Filter{}).History())
		}
		if fits(r) {
			return r
		}
	}
}

func (n *node) wantRefusal(reason string) flow.Record {
	n.w.t.Helper()
	return n.waitFlow(func(r flow.Record) bool { return r.Verdict == flow.Refused && r.Reason == reason })
}

// echo is an application that answers with what it gets.
func echo(t *testing.T, addr string) (peers chan netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	must(t, err)
	peers = make(chan netip.AddrPort, 1000)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			peers <- c.RemoteAddr().(*net.TCPAddr).AddrPort()
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return peers
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
