// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/kube/kubetest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// object is a nested part of what the API server says.
type object = kubetest.Object

// told says a Service, then its slice, and waits until every daemon has heard.
func (k *kubernetes) told(pods, endpoints int, service, slice object) {
	k.t.Helper()
	_, none := echoes(nil)
	k.api.Set(service, none) // so that the numbers change
	k.routes(pods, 0)
	k.api.Set(slice)
	k.routes(pods, endpoints)
}

// echoes is the Service and its slice, whose endpoints change is called with.
func echoes(change func(i int, endpoint object), endpoints ...netip.Addr) (service, slice object) {
	var all []string
	for _, a := range endpoints {
		all = append(all, a.String())
	}
	slice = kubetest.Slice("default/echo-4", "echo", echoPort, all...)
	for i, e := range slice["endpoints"].([]object) {
		if change != nil {
			change(i, e)
		}
	}
	return kubetest.Service("default/echo", servicePort, vip4), slice
}

func serviceAddr() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(vip4), servicePort)
}

// reached connects n times, and returns which endpoints it was.
func (k *kubernetes) reached(from *cluster.Pod, n int) map[netip.Addr]int {
	k.t.Helper()
	before := k.allowed(from)
	for i := range n {
		conn, _, err := connect(k.t, from, serviceAddr())
		if err != nil {
			k.t.Fatalf("connection %d: %v", i, err)
		}
		conn.Close()
	}
	got := map[netip.Addr]int{}
	for _, r := range k.allowed(from)[len(before):] {
		got[r.Endpoint.Addr()]++
	}
	return got
}

func (k *kubernetes) allowed(from *cluster.Pod) (all []flow.Record) {
	k.t.Helper()
	flows, err := from.On.Flows(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	for _, r := range flows {
		if r.Verdict == flow.Allowed && r.Direction == flow.Egress && r.Dst == serviceAddr() && r.Pod == "default/"+from.Name {
			all = append(all, r)
		}
	}
	return all
}

// want fails unless exactly the wanted endpoints were reached.
func (k *kubernetes) want(got map[netip.Addr]int, want ...netip.Addr) {
	k.t.Helper()
	for _, a := range want {
		if got[a] == 0 {
			k.t.Errorf("%s was not reached: %v", a, got)
		}
	}
	if len(got) != len(want) {
		k.t.Errorf("reached %v, want %v", got, want)
	}
}

// twin opens a second pod of a workload.
func (k *kubernetes) twin(n *cluster.Node, name, workload string) *cluster.Pod {
	k.t.Helper()
	p, err := n.AddPod(k.t.Context(), workload, lab.PodSpec{Name: name, Kind: lab.Routed, Images: []string{image(workload)}})
	if err != nil {
		k.t.Fatal(err)
	}
	if err := p.WaitState(k.t.Context(), agent.StateOpen, ""); err != nil {
		k.t.Fatal(err)
	}
	k.api.Set(kubetest.Pod("default/"+name, n.Lab.Name, p.Addr4.String(), p.Addr6.String()))
	return p
}

func TestEndpointsAreChosenAsTheServiceSays(t *testing.T) {
	k := newKubernetes(t)
	client := k.pod(k.Nodes[0], "client", lab.Routed)
	near, far := k.twin(k.Nodes[0], "near", "server"), k.twin(k.Nodes[1], "far", "server")
	serveEcho(t, near)
	serveEcho(t, far)

	t.Run("those on their way out only when there is no other", func(t *testing.T) {
		leaving := func(i int, e object) {
			if i == 0 {
				e["conditions"] = object{"ready": false, "serving": true, "terminating": true}
			}
		}
		service, slice := echoes(leaving, near.Addr4, far.Addr4)
		k.told(3, 1, service, slice)
		k.want(k.reached(client, 8), far.Addr4)
		service, slice = echoes(func(i int, e object) {
			leaving(i, e)
			if i == 1 {
				e["conditions"] = object{"ready": false, "serving": false, "terminating": false}
			}
		}, near.Addr4, far.Addr4)
		k.told(3, 1, service, slice)
		k.want(k.reached(client, 4), near.Addr4)
	})
	t.Run("those of the zone", func(t *testing.T) {
		for i, n := range k.Nodes {
			node := kubetest.Node(n.Lab.Name, n.Lab.Addr4.String())
			node["metadata"].(map[string]any)["labels"] = object{"topology.kubernetes.io/zone": []string{"z0", "z1"}[i]}
			k.api.Set(node)
		}
		service, slice := echoes(func(i int, e object) {
			e["hints"] = object{"forZones": []object{{"name": []string{"z1", "z0"}[i]}}}
		}, near.Addr4, far.Addr4)
		k.told(3, 2, service, slice)
		// The hints give far to this node's zone, once the node's label has arrived too.
		for deadline := time.Now().Add(30 * time.Second); ; {
			got := k.reached(client, 8)
			if got[near.Addr4] == 0 || time.Now().After(deadline) {
				k.want(got, far.Addr4)
				return
			}
		}
	})
	t.Run("the same one for one client", func(t *testing.T) {
		service, slice := echoes(nil, far.Addr4)
		service["spec"].(object)["sessionAffinity"] = "ClientIP"
		k.told(3, 1, service, slice)
		k.want(k.reached(client, 2), far.Addr4)
		_, slice = echoes(nil, far.Addr4, near.Addr4)
		k.told(3, 2, service, slice)
		k.want(k.reached(client, 8), far.Addr4)
		_, slice = echoes(nil, near.Addr4)
		k.told(3, 1, service, slice)
		k.want(k.reached(client, 2), near.Addr4)
		_, slice = echoes(nil, far.Addr4, near.Addr4)
		k.told(3, 2, service, slice)
		k.want(k.reached(client, 8), near.Addr4)
	})
}

// A pod may be its own Service's endpoint.
func TestPodReachesItselfThroughItsService(t *testing.T) {
	k := newKubernetes(t, func(o *cluster.Options) {
		w := workload("loop")
		w.Peers.To, w.Peers.From = []policy.PeerRule{rule("loop", echoPort)}, []policy.PeerRule{rule("loop", echoPort)}
		o.Workloads = append(o.Workloads, w)
	})
	loop := k.pod(k.Nodes[0], "loop", lab.Bridged)
	serveEcho(t, loop)
	service, slice := echoes(nil, loop.Addr4)
	k.told(1, 1, service, slice)
	k.want(k.reached(loop, 3), loop.Addr4)
}

// Endpoints that are dead, attested by nobody or forbidden are passed over and
// named, and cost connections nothing once they are known.
func TestEndpointsThatFailArePassedOver(t *testing.T) {
	k := newKubernetes(t)
	client, server := k.pod(k.Nodes[0], "client", lab.Routed), k.pod(k.Nodes[1], "server", lab.Bridged)
	stranger := k.pod(k.Nodes[1], "stranger", lab.Routed) // attested, and not allowed to the client
	serveEcho(t, server)
	serveEcho(t, stranger)
	outside := k.Lab.Outside("outside")
	ln, err := outside.Listen("tcp", netip.AddrPortFrom(outside.Addr4, echoPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dead := netip.MustParseAddr("10.89.0.9") // a pod on a node that is not there
	k.api.Set(
		kubetest.Node("dead", "10.80.0.99"), kubetest.Pod("default/dead", "dead", dead.String()),
		kubetest.Pod("default/unattested", k.Nodes[1].Lab.Name, outside.Addr4.String()),
	)
	service, slice := echoes(nil, server.Addr4, stranger.Addr4, outside.Addr4, dead)
	k.told(5, 4, service, slice)
	want := map[string]netip.Addr{"peer-not-allowed-egress": stranger.Addr4, "peer-refused-certificate": outside.Addr4, "node-unreachable": dead, "node-timeout": dead}
	avoided := func() (all []flow.Record) {
		flows, err := k.Nodes[0].Flows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(flows, func(r flow.Record) bool { return r.Verdict != flow.Avoided })
	}
	for range 100 { // each finds one at random
		if len(avoided()) == 3 {
			break
		}
		if conn, _, err := connect(t, client, serviceAddr()); err == nil {
			conn.Close()
		}
	}
	// The one that can be reached is first now, whatever was dead before.
	before := len(k.allowed(client))
	for range 10 {
		conn, _, err := connect(t, client, serviceAddr())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if n := len(k.allowed(client)) - before; n != 10 {
		t.Errorf("%d of 10 connections are recorded", n)
	}
	for _, r := range avoided() {
		if a, ok := want[r.Reason]; !ok || r.Endpoint.Addr() != a || r.Service != "default/echo" || r.SrcWorkload != "client" {
			t.Errorf("%+v", r)
		}
	}
	status, err := k.Nodes[0].Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.AddrPort{netip.AddrPortFrom(stranger.Addr4, echoPort), netip.AddrPortFrom(outside.Addr4, echoPort)} {
		if !slices.ContainsFunc(status.Avoided, func(e agent.Avoided) bool { return e.Endpoint == a && e.Workload == "client" }) {
			t.Errorf("the status does not show %s: %+v", a, status.Avoided)
		}
	}
	if !slices.ContainsFunc(status.Avoided, func(e agent.Avoided) bool { return !e.Endpoint.IsValid() && e.Node.String() == "10.80.0.99" }) {
		t.Errorf("the status does not show the dead node: %+v", status.Avoided)
	}
	type deadliner interface{ SetDeadline(time.Time) error }
	if err := ln.(deadliner).SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if conn, err := ln.Accept(); err == nil {
		t.Errorf("an unattested host was reached from %s", conn.RemoteAddr())
		conn.Close()
	}
}
