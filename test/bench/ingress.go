// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/bench/load"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// runIngress compares the ingress with nginx as a proxy that ends TLS, to the
// same web server in a pod of another machine. Beside it are nginx as a program
// in a pod, whose way to the server is the mesh's, and the server without any
// proxy.
func runIngress(ctx context.Context, o options) (part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the labs
	if o.Before != "" {
		return compareBuilds(ctx, o)
	}
	say("building two nodes with nginx and two with an ingress")
	routed, err := newRoutedWeb(ctx)
	if err != nil {
		return nil, err
	}
	defer routed[0].close()
	proxy := workload("nginx")
	c, mesh, err := newMeshWeb(ctx, o.Binary, "bench-ingress", proxy)
	if err != nil {
		return nil, err
	}
	defer mesh.close()
	nginx, err := nginxInPod(ctx, c, mesh.web.backend)
	if err != nil {
		return nil, err
	}
	return newGrid(ctx, o, append(routed, &site{name: "nginx in the mesh", web: nginx}, mesh), webExperiments())
}

// compareBuilds measures the ingresses of two builds, with the daemons of the
// same build. There are two of each: a difference means something only if it is
// larger than that between two of the same.
func compareBuilds(ctx context.Context, o options) (part, error) {
	say("building four times two nodes with an ingress")
	var sites []*site
	for i, build := range []struct{ name, binary string }{{"before", o.Before}, {"after", o.Binary}, {"before", o.Before}, {"after", o.Binary}} {
		_, s, err := newMeshWeb(ctx, build.binary, "bench-build-"+strconv.Itoa(i))
		if err != nil {
			return nil, err
		}
		defer s.close()
		s.name = build.name
		sites = append(sites, s)
	}
	experiments := webExperiments()
	for _, e := range experiments {
		for i := range e.rows { // aims are against nginx
			e.rows[i].Aim, e.rows[i].met = "", nil
		}
	}
	return newGrid(ctx, o, sites, experiments)
}

// newRoutedWeb is a lab without C8s: nginx first, then no proxy.
func newRoutedWeb(ctx context.Context) ([]*site, error) {
	l, err := lab.New(ctx, lab.Options{
		Name: "bench-nginx", Nodes: []lab.NodeSpec{{Name: "node-a"}, {Name: "node-b"}}, Outside: []string{edgeHost, userHost},
	})
	if err != nil {
		return nil, err
	}
	pod, err := l.Node("node-b").AddPod(ctx, lab.PodSpec{Name: "web"})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	backend, edge, user := netip.AddrPortFrom(pod.Addr4, webPort), l.Outside(edgeHost), l.Outside(userHost)
	at := netip.AddrPortFrom(edge.Addr4, 443)
	pid := 0
	if err = serveWeb(ctx, pod.NS, backend); err == nil {
		pid, err = startNginx(ctx, edge.NS, filepath.Join(l.Dir(), "nginx"), at, backend)
	}
	nginx := &front{client: user.NS, addr: at}
	if err == nil {
		err = nginx.ready(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	nginx.proxy = family(pid)
	direct := &front{client: user.NS, addr: backend, plain: true}
	return []*site{{name: "nginx", web: nginx, close: l.Close}, {name: "no proxy", web: direct, close: l.Close}}, nil
}

// newMeshWeb is C8s with an ingress. Other workloads may reach the web server
// too.
func newMeshWeb(ctx context.Context, binary, name string, others ...policy.Workload) (c *cluster.Cluster, s *site, err error) {
	web := workload("web")
	for i := range others {
		allow(&others[i], &web, policy.ProtocolTCP, webPort)
	}
	c, err = startCluster(ctx, cluster.Options{
		Binary: binary, Name: name, Nodes: bothNodes(), Outside: []string{edgeHost, userHost}, Workloads: append(others, web),
		Ingress: []policy.IngressRule{{
			Name: "bank", Hosts: []string{webHost},
			Backends: []policy.IngressBackend{{Workload: "web", Mode: policy.ModeHTTP, Ports: []uint16{webPort}}},
		}},
	})
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	pod, err := openPod(ctx, c.Nodes[1], "web")
	if err != nil {
		return nil, nil, err
	}
	backend := netip.AddrPortFrom(pod.Addr4, webPort)
	if err := serveWeb(ctx, pod.NS, backend); err != nil {
		return nil, nil, err
	}
	ingress, err := startIngress(ctx, c, backend)
	if err != nil {
		return nil, nil, err
	}
	ingress.backend = backend
	return c, &site{name: "c8s ingress", web: ingress, close: c.Close}, nil
}

// nginxInPod has its clients in the pod: nobody else may connect to it.
func nginxInPod(ctx context.Context, c *cluster.Cluster, backend netip.AddrPort) (*front, error) {
	pod, err := openPod(ctx, c.Nodes[0], "nginx")
	if err != nil {
		return nil, err
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 443)
	pid, err := startNginx(ctx, pod.NS, filepath.Join(c.Lab.Dir(), "nginx"), at, backend)
	if err != nil {
		return nil, err
	}
	f := &front{client: pod.NS, addr: at, daemons: []int{c.Nodes[0].PID(), c.Nodes[1].PID()}}
	if err := f.ready(ctx); err != nil {
		return nil, err
	}
	f.proxy = family(pid)
	return f, nil
}

func startIngress(ctx context.Context, c *cluster.Cluster, backend netip.AddrPort) (*front, error) {
	edge := c.Lab.Outside(edgeHost)
	i, err := c.NewIngress(edgeHost, edge, "--self-signed", "--http-address=", "--log-level", "warn")
	if err != nil {
		return nil, err
	}
	routes := fmt.Sprintf(`{"schema": "c8s.dev/ingress-routes/v1", "routes": [
		{"name": "bank", "hosts": [%q], "rules": [{"backends": [{"service": "default/web", "port": 80, "weight": 1}]}]}]}`, webHost)
	err = errors.Join(
		i.SetServices(map[string]map[uint16][]netip.AddrPort{"default/web": {80: {backend}}}),
		i.SetRoutes([]byte(routes)))
	if err == nil {
		err = i.Start()
	}
	if err == nil {
		err = i.WaitReady(ctx)
	}
	if err != nil {
		return nil, err
	}
	f := &front{client: c.Lab.Outside(userHost).NS, addr: netip.AddrPortFrom(edge.Addr4, 443), proxy: []int{i.PID()}, daemons: []int{c.Nodes[1].PID()}}
	return f, f.ready(ctx)
}

// ready waits until requests are answered.
func (f *front) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		loop, err := load.NewLoop(ctx, f.dial("http/1.1"), 1, smallGet.HTTP1)
		if err == nil {
			loop.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to answer: %w", f.addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
