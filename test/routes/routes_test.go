// SPDX-License-Identifier: Apache-2.0

// Package routes tests what a node daemon learns from a real Kubernetes about
// where pods are, with the rights that docs/kubernetes.md names.
package routes

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/kube"
	"github.com/c8s-dev/c8s/test/stack"
	"github.com/c8s-dev/c8s/test/stack/image"
)

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - {name: web, image: "local.test/app:1", imagePullPolicy: Never, args: [serve]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  clusterIP: 10.96.5.5
  clusterIPs: [10.96.5.5, "fd98::5"]
  ipFamilyPolicy: RequireDualStack
  ports: [{name: http, port: 80, targetPort: 9000}, {name: udp, port: 81, targetPort: 9000, protocol: UDP}]
  trafficDistribution: PreferSameNode
---
apiVersion: v1
kind: Service
metadata: {name: pods}
spec:
  selector: {app: web}
  clusterIP: None
  ipFamilyPolicy: RequireDualStack
  publishNotReadyAddresses: true
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {type: ExternalName, externalName: api.example.com}
`

// binding gives the user the rights that docs/kubernetes.md names.
const binding = `
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: c8s-node}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: c8s-node}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: c8s-node}]
`

// lie is a slice that somebody adds to the Service: a node, and a host outside.
const lie = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: lie, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 22, protocol: TCP}]
endpoints: [{addresses: [%s], conditions: {ready: true}}, {addresses: [192.0.2.7], conditions: {ready: true}}]
`

// follower is a Watcher on the first worker, with its table.
type follower struct {
	t *testing.T
	*stack.Cluster
	watcher *kube.Watcher
	table   *resolve.Table
}

func follow(t *testing.T, c *stack.Cluster) *follower {
	t.Helper()
	raw, err := c.Kubeconfig("c8s-node")
	must(t, err)
	path := filepath.Join(t.TempDir(), "kubeconfig")
	must(t, os.WriteFile(path, raw, 0o600))
	api, err := kube.Connect(path, "c8s-node/test")
	must(t, err)
	api.Dial = c.Nodes[0].Dial
	f := &follower{t: t, Cluster: c}
	f.watcher, err = kube.New(kube.Config{API: api, NodeAddr: c.Nodes[0].Addr(), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	f.table, err = resolve.New(resolve.Config{Node: c.Nodes[0].Addr(), NodeName: c.Nodes[0].Name(), Rand: rand.Uint64, Now: time.Now})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.watcher.Fill(ctx, f.table) }()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// behind returns every answer for a Service's address: pod to node. Those that
// hints prefer here are asked for first, and passed over then.
func (f *follower) behind(dst string, proto resolve.Protocol) (map[netip.AddrPort]netip.Addr, resolve.Verdict) {
	got := map[netip.AddrPort]netip.Addr{}
	q := resolve.Query{Protocol: proto, Src: netip.MustParseAddr("10.100.9.9"), Dst: netip.MustParseAddrPort(dst)}
	for range 50 {
		target, v := f.table.Resolve(q)
		if v == resolve.NoEndpoints && len(got) > 0 {
			break
		}
		q.Avoid = append(q.Avoid, target.Pod.Addr())
		if v != resolve.Found {
			return nil, v
		}
		got[target.Pod] = target.Node
	}
	return got, resolve.Found
}

// pods is what kubectl says of the Deployment's pods, at the port they listen on.
func (f *follower) pods(ipv4 bool) map[netip.AddrPort]netip.Addr {
	f.t.Helper()
	out, err := f.Kubectl(f.t.Context(), "get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "json")
	must(f.t, err)
	var list struct {
		Items []struct {
			Metadata struct{ DeletionTimestamp *string }
			Spec     struct{ NodeName string }
			Status   struct{ PodIPs []struct{ IP netip.Addr } }
		}
	}
	must(f.t, json.Unmarshal([]byte(out), &list))
	want := map[netip.AddrPort]netip.Addr{}
	for _, p := range list.Items {
		i := slices.IndexFunc(f.Nodes, func(n *stack.Node) bool { return n.Name() == p.Spec.NodeName })
		for _, a := range p.Status.PodIPs {
			if a.IP.Is4() == ipv4 && p.Metadata.DeletionTimestamp == nil {
				want[netip.AddrPortFrom(a.IP, 9000)] = f.Nodes[i].Addr()
			}
		}
	}
	return want
}

// same waits until the Service leads to exactly the pods there are, n of them.
func (f *follower) same(n int) {
	f.t.Helper()
	for dst, ipv4 := range map[string]bool{"10.96.5.5:80": true, "[fd98::5]:80": false} {
		must(f.t, stack.Poll(f.t.Context(), dst+" to lead to the pods", func(context.Context) error {
			want := f.pods(ipv4)
			if got, v := f.behind(dst, resolve.TCP); len(want) != n || !maps.Equal(got, want) {
				return fmt.Errorf("it leads to %v (%v), pods are %v", got, v, want)
			}
			return f.named(want)
		}))
	}
}

// named fails unless names lead to pods, among others, as DNS would say.
func (f *follower) named(pods map[netip.AddrPort]netip.Addr) error {
	v, _ := f.table.Service("default", "pods")
	for pod := range pods {
		name, _ := f.table.NameOf(pod.Addr())
		short, ok := strings.CutSuffix(name, ".pods.default.svc")
		named := slices.ContainsFunc(v.Hosts, func(h resolve.HostView) bool { return h.Name == short && slices.Contains(h.Addrs, pod.Addr()) })
		if !ok || !named || !v.Headless || !slices.Contains(v.Addrs, pod.Addr()) || !f.table.PodNamed("default", pod.Addr()) {
			return fmt.Errorf("%s is named %q, the headless Service is %+v", pod, name, v)
		}
	}
	if len(v.Addrs) != 2*len(pods) {
		return fmt.Errorf("the headless Service leads to %v, pods are %v", v.Addrs, pods)
	}
	return nil
}

func (f *follower) connected(want bool) {
	f.t.Helper()
	must(f.t, stack.Poll(f.t.Context(), fmt.Sprint("contact to be ", want), func(context.Context) error {
		if got, since := f.watcher.Contact(); got != want {
			return fmt.Errorf("it is %v since %s", got, since)
		}
		return nil
	}))
}

func TestFollowingARealCluster(t *testing.T) {
	c := stack.NewCluster(t, stack.ClusterConfig{})
	ctx := t.Context()
	f := follow(t, c)
	app, err := image.App(ctx)
	must(t, err)
	must(t, c.Import(ctx, app))
	must(t, c.Apply(ctx, web))
	must(t, c.Rollout(ctx, "deployment/web"))
	if _, since := f.watcher.Contact(); !since.IsZero() {
		t.Error("it follows the API server without any right to")
	}
	page, err := os.ReadFile("../../docs/kubernetes.md")
	must(t, err)
	rights := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)
	if rights == nil {
		t.Fatal("docs/kubernetes.md names no rights")
	}
	must(t, c.Apply(ctx, string(rights[1])+binding))
	f.connected(true)
	f.same(2)

	for dst, want := range map[string]resolve.Verdict{
		"10.96.5.5:81":  resolve.NoServicePort, // over TCP
		"10.96.0.1:443": resolve.HostService,   // the API server is on no node
		netip.AddrPortFrom(c.Nodes[1].Addr(), 10250).String(): resolve.HostAddress,
	} {
		if got, v := f.behind(dst, resolve.TCP); v != want {
			t.Errorf("%s leads to %v (%v), want %v", dst, got, v, want)
		}
	}
	if got, v := f.behind("10.96.5.5:81", resolve.UDP); !maps.Equal(got, f.pods(true)) {
		t.Errorf("over UDP the Service leads to %v (%v)", got, v)
	}
	if v, _ := f.table.Service("default", "far"); v.External != "api.example.com" {
		t.Errorf("%+v", v)
	}
	for range 20 {
		target, _ := f.table.Resolve(resolve.Query{Protocol: resolve.TCP, Dst: netip.MustParseAddrPort("10.96.5.5:80")})
		if target.Node != c.Nodes[0].Addr() {
			t.Errorf("PreferSameNode leads to %+v", target)
		}
	}
	t.Run("pods come and go", func(t *testing.T) {
		f := follower{t, c, f.watcher, f.table}
		for _, n := range []int{1, 4} {
			if out, err := c.Kubectl(ctx, "scale", "deployment/web", fmt.Sprint("--replicas=", n)); err != nil {
				t.Fatal(err, out)
			}
			f.same(n)
		}
	})
	t.Run("lies change nothing", func(t *testing.T) {
		f := follower{t, c, f.watcher, f.table}
		must(t, c.Apply(ctx, fmt.Sprintf(lie, c.Nodes[1].Addr())))
		if out, err := c.Kubectl(ctx, "scale", "deployment/web", "--replicas=2"); err != nil {
			t.Fatal(err, out)
		}
		f.same(2) // the table has heard of the lie by then
	})
	t.Run("the API server goes and comes back", func(t *testing.T) {
		f := follower{t, c, f.watcher, f.table}
		before, _ := f.behind("10.96.5.5:80", resolve.TCP)
		must(t, c.StopAPI())
		f.connected(false)
		if got, v := f.behind("10.96.5.5:80", resolve.TCP); !maps.Equal(got, before) {
			t.Errorf("without it the Service leads to %v (%v), before %v", got, v, before)
		}
		must(t, c.StartAPI(ctx))
		if out, err := c.Kubectl(ctx, "scale", "deployment/web", "--replicas=3"); err != nil {
			t.Fatal(err, out)
		}
		f.same(3)
		f.connected(true)
	})
}
