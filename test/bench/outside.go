// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// outsideHost is the second host outside; the first is the CDS's.
const (
	outsideHost = "outside"
	outsideAddr = "10.80.0.202"
)

// runOutside compares connections to a host outside the mesh, by way of an
// external rule, with connections that the node merely forwards.
func runOutside(ctx context.Context, o options) (part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the labs
	say("building two nodes with a host outside")
	routed, err := newRoutedOutside(ctx)
	if err != nil {
		return nil, err
	}
	defer routed.close()
	rule, err := newExternal(ctx, o.Binary)
	if err != nil {
		return nil, err
	}
	defer rule.close()
	return newGrid(ctx, o, []*site{routed, rule}, streams())
}

// streams are what is measured of TCP where there is nothing to compare with
// but routing.
func streams() []experiment {
	cpu := one("node CPU per GB", "s/GB", cpuPerGB)
	cpu.proxies = true
	return []experiment{
		one("bulk throughput, 1 flow", "Gbit/s", bulk(1)),
		one("bulk throughput, 8 flows", "Gbit/s", bulk(8)),
		cpu,
		one("new connections", "/s", connections),
		one("1 KB requests, 1 connection, closed loop", "/s", closedLoop(1)),
		one("1 KB requests, 16 connections, closed loop", "/s", closedLoop(16)),
	}
}

func newRoutedOutside(ctx context.Context) (*site, error) {
	l, err := lab.New(ctx, lab.Options{Name: "bench-routed", Nodes: []lab.NodeSpec{{Name: "node-a"}}, Outside: []string{outsideHost}})
	if err != nil {
		return nil, err
	}
	client, err := l.Node("node-a").AddPod(ctx, lab.PodSpec{Name: "client"})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	host := l.Outside(outsideHost)
	s := &site{name: "routed", client: client, server: host.NS, addr: host.Addr4, close: l.Close}
	return s, s.serve(ctx)
}

func newExternal(ctx context.Context, binary string) (*site, error) {
	client := workload("client")
	client.External = []policy.External{{
		Name: "bench", CIDRs: []string{outsideAddr + "/32"}, Ports: streamPorts(), Protocol: policy.ProtocolTCP,
	}}
	c, err := startCluster(ctx, cluster.Options{
		Binary: binary, Name: "bench-outside", Nodes: []string{"node-a"}, Outside: []string{outsideHost}, Workloads: []policy.Workload{client},
	})
	if err != nil {
		return nil, err
	}
	p, err := openPod(ctx, c.Nodes[0], "client")
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	host := c.Lab.Outside(outsideHost)
	s := &site{name: "external rule", client: p.Pod, server: host.NS, addr: host.Addr4, pids: []int{c.Nodes[0].PID()}, close: c.Close}
	return s, s.serve(ctx)
}
