// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/kube/kubetest"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// kubernetes is a cluster whose daemons follow an API server next door.
type kubernetes struct {
	*cluster.Cluster
	t    *testing.T
	api  *kubetest.Server
	stop func() // the API server
}

const apiPort = 6443

func newKubernetes(t *testing.T, change ...func(*cluster.Options)) *kubernetes {
	k := &kubernetes{t: t, api: kubetest.New()}
	k.Cluster = newCluster(t, append(change, func(o *cluster.Options) {
		o.Outside = append(o.Outside, "api")
		o.Kubernetes = func(l *lab.Lab) (string, error) {
			at := netip.AddrPortFrom(l.Outside("api").Addr4, apiPort).String()
			ln, err := l.Outside("api").Listen("tcp", at)
			if err != nil {
				return "", err
			}
			srv := &http.Server{Handler: k.api, ReadHeaderTimeout: time.Minute}
			done := make(chan struct{})
			go func() { defer close(done); _ = srv.Serve(ln) }()
			k.stop = func() { srv.Close(); <-done }
			path := filepath.Join(l.Dir(), "kubeconfig")
			return path, os.WriteFile(path, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c",
"clusters":[{"name":"c","cluster":{"server":"http://%s"}}],"contexts":[{"name":"c","context":{"cluster":"c"}}]}`, at), 0o600)
		}
	})...)
	t.Cleanup(func() { k.stop() })
	for _, n := range k.Nodes {
		k.api.Set(kubetest.Node(n.Lab.Name, n.Lab.Addr4.String())) // no podCIDRs: pods are found one by one
	}
	return k
}

// pod opens a pod and has the API server tell of it.
func (k *kubernetes) pod(n *cluster.Node, name string, kind lab.Kind) *cluster.Pod {
	p := openPod(k.t, n, name, kind)
	k.api.Set(kubetest.Pod("default/"+name, n.Lab.Name, p.Addr4.String(), p.Addr6.String()))
	return p
}

const (
	vip4, vip6  = "10.96.0.10", "fd96::10"
	servicePort = 80
)

// service says that endpoints, at the port where servers echo, are behind the
// Service.
func (k *kubernetes) service(endpoints ...netip.Addr) {
	var four, six []string
	for _, a := range endpoints {
		if a.Is4() {
			four = append(four, a.String())
		} else {
			six = append(six, a.String())
		}
	}
	k.api.Set(
		kubetest.Service("default/echo", servicePort, vip4, vip6),
		kubetest.Slice("default/echo-4", "echo", echoPort, four...), kubetest.Slice("default/echo-6", "echo", echoPort, six...),
	)
}

// routes waits until every daemon knows so many pods and endpoints.
func (k *kubernetes) routes(pods, endpoints int) {
	k.t.Helper()
	for _, n := range k.Nodes {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			s, err := n.Status(k.t.Context())
			if err == nil && s.Routes.Pods == pods && s.Routes.Endpoints == endpoints {
				break
			}
			if time.Now().After(deadline) {
				k.t.Fatalf("%s has the routes %+v, %v", n.Lab.Name, s, err)
			}
		}
	}
}

func TestServicesLeadToPods(t *testing.T) {
	k := newKubernetes(t)
	for _, kinds := range [][2]lab.Kind{{lab.Routed, lab.Bridged}, {lab.Bridged, lab.Routed}} {
		client, server := k.pod(k.Nodes[0], "client", kinds[0]), k.pod(k.Nodes[1], "server", kinds[1])
		serveEcho(t, server)
		k.service(server.Addr4, server.Addr6)
		k.routes(2, 2)
		for _, way := range []struct{ src, dst, pod netip.Addr }{
			{client.Addr4, netip.MustParseAddr(vip4), server.Addr4}, {client.Addr6, netip.MustParseAddr(vip6), server.Addr6},
		} {
			t.Run(fmt.Sprintf("%s to %s from %s", kinds[0], kinds[1], way.src), func(t *testing.T) {
				to := netip.AddrPortFrom(way.dst, servicePort)
				conn, seen, err := connect(t, client, to)
				if err != nil {
					t.Fatal(err)
				}
				if seen.Addr() != way.src || conn.RemoteAddr().String() != to.String() {
					t.Errorf("the server sees %s, the client %s", seen, conn.RemoteAddr())
				}
				if got, err := echo(conn, "hello"); err != nil || got != "hello" {
					t.Errorf("%q, %v", got, err)
				}
				flows, err := k.Nodes[0].Flows(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				pod := netip.AddrPortFrom(way.pod, echoPort)
				if !slices.ContainsFunc(flows, func(r flow.Record) bool {
					return r.Verdict == flow.Allowed && r.Dst == to && r.Endpoint == pod && r.Service == "default/echo" && r.DstWorkload == "server"
				}) {
					t.Errorf("no record names %s, the Service and %s", to, pod)
				}
			})
		}
		k.service() // the next round's pods have other addresses
		for _, p := range []*cluster.Pod{client, server} {
			k.api.Delete(kubetest.Pod("default/"+p.Name, ""))
			if err := p.On.RemovePod(p); err != nil {
				t.Fatal(err)
			}
		}
		k.routes(0, 0)
	}
}

// An endpoint that is gone and not yet taken out, as in every rollout, and an
// API server that is away: connections are made all the same.
func TestServicesSurviveLostEndpointsAndALostAPIServer(t *testing.T) {
	k := newKubernetes(t)
	client, server := k.pod(k.Nodes[0], "client", lab.Routed), k.pod(k.Nodes[1], "server", lab.Bridged)
	gone := k.pod(k.Nodes[1], "stranger", lab.Routed)
	serveEcho(t, server)
	k.service(server.Addr4, gone.Addr4)
	k.routes(3, 2)
	if err := k.Nodes[1].RemovePod(gone); err != nil {
		t.Fatal(err)
	}
	k.stop()
	for i := range 8 {
		conn, _, err := connect(t, client, netip.AddrPortFrom(netip.MustParseAddr(vip4), servicePort))
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		conn.Close()
	}
}

func TestLyingAPIServerCannotLeadAnywhereElse(t *testing.T) {
	k := newKubernetes(t)
	client, stranger := k.pod(k.Nodes[0], "client", lab.Routed), k.pod(k.Nodes[1], "stranger", lab.Routed)
	server := openPod(t, k.Nodes[1], "server", lab.Routed) // hidden from the API server
	serveEcho(t, server)
	serveEcho(t, stranger)
	outside := k.Lab.Outside("outside")
	ln, err := outside.Listen("tcp", netip.AddrPortFrom(outside.Addr4, echoPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	unattested := kubetest.Pod("default/unattested", k.Nodes[1].Lab.Name, outside.Addr4.String())
	to := netip.AddrPortFrom(netip.MustParseAddr(vip4), servicePort)
	for _, tt := range []struct {
		name   string
		lie    func()
		pods   int
		to     netip.AddrPort
		reason string
	}{
		{"a Service without endpoints", func() { k.service() }, 2, to, "no-endpoints"},
		{"a pod that the client may not reach", func() { k.service(stranger.Addr4) }, 2, to, "peer-not-allowed-egress"},
		{"a node's own program", func() { k.service(k.Nodes[1].Lab.Addr4) }, 2, to, "host-address"},
		{"a host outside as an endpoint", func() { k.service(outside.Addr4) }, 2, to, "host-address"},
		{"a host outside as a pod", func() { k.api.Set(unattested); k.service(outside.Addr4) }, 3, to, "peer-refused-certificate"},
		{"the same by its address", func() {}, 3, netip.AddrPortFrom(outside.Addr4, echoPort), "peer-refused-certificate"},
		{"another node for a pod", func() {
			k.api.Set(kubetest.Pod("default/hidden", k.Nodes[0].Lab.Name, server.Addr4.String()))
			k.service(server.Addr4)
		}, 4, to, "peer-refused-certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.lie()
			var record flow.Record
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				conn, _, err := connect(t, client, tt.to)
				if err == nil {
					conn.Close()
					t.Fatal("a connection was made")
				}
				if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.ECONNREFUSED) {
					t.Fatalf("the application saw %v, want a reset", err)
				}
				// The lie takes a moment to arrive.
				if record = lastRefusal(t, k.Nodes[0], tt.to); record.Reason == tt.reason || time.Now().After(deadline) {
					break
				}
			}
			if record.Reason != tt.reason {
				t.Errorf("refused with %s, want %s", record.Reason, tt.reason)
			}
		})
	}
	if err := ln.(*net.TCPListener).SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if conn, err := ln.Accept(); err == nil {
		t.Errorf("an unattested host was reached from %s", conn.RemoteAddr())
		conn.Close()
	}
}

// lastRefusal is the latest record of a refused connection to dst.
func lastRefusal(t *testing.T, n *cluster.Node, dst netip.AddrPort) flow.Record {
	t.Helper()
	flows, err := n.Flows(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range slices.Backward(flows) {
		if r.Verdict == flow.Refused && r.Direction == flow.Egress && r.Dst == dst {
			return r
		}
	}
	return flow.Record{}
}
