// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/bench/load"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// arena is a site whose client has a hostile neighbour. What that attacks, its
// prey, is on the server's node and another pod, as a policy would have it.
type arena struct {
	*site
	hostile *lab.Pod
	prey    *lab.Pod
	poured  atomic.Int64 // bytes that the prey sent
}

// runFair measures what the requests of a well-behaved pod suffer from a
// hostile pod on the same node. The hostile program and the far ends share the
// processors with everything else: what that costs is seen where packets are
// routed, with the same neighbour.
func runFair(ctx context.Context, o options) (part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the labs
	say("building two pairs of nodes")
	routed, err := newRoutedArena(ctx)
	if err != nil {
		return nil, err
	}
	defer routed.close()
	mesh, err := newMeshArena(ctx, o.Binary)
	if err != nil {
		return nil, err
	}
	defer mesh.close()
	arenas := map[*site]*arena{routed.site: routed, mesh.site: mesh}
	var all []experiment
	for _, h := range []hostility{
		{fmt.Sprintf("%d new connections/s tried", floodRate), flood},
		{fmt.Sprintf("%d slow readers", readers), readSlowly},
		{fmt.Sprintf("%d greedy readers", readers), readGreedily},
	} {
		all = append(all, h.experiment(arenas))
	}
	return newGrid(ctx, o, []*site{routed.site, mesh.site}, all)
}

// hostility is what a hostile pod does until ctx ends. It calls ready when it
// is under way.
type hostility struct {
	name string
	do   func(ctx context.Context, a *arena, ready func()) error
}

// experiment measures without and with the neighbour, one right after the
// other.
func (h hostility) experiment(arenas map[*site]*arena) experiment {
	return experiment{
		rows: []gridRow{
			{Scenario: "latency alone: p50", Unit: "ms"},
			{Scenario: "… p99", Unit: "ms"},
			{Scenario: "with " + h.name + ": p50", Unit: "ms"},
			{Scenario: "… p99", Unit: "ms"},
			{Scenario: "… p50, with to alone", Unit: "×"},
			{Scenario: "… p99, with to alone", Unit: "×"},
		},
		measure: func(ctx context.Context, s *site, o options) ([]float64, error) {
			alone, err := politely(ctx, s, o)
			if err != nil {
				return nil, err
			}
			beside, err := h.beside(ctx, arenas[s], o)
			if err != nil {
				return nil, fmt.Errorf("beside a hostile pod: %w", err)
			}
			return []float64{alone[0], alone[1], beside[0], beside[1], beside[0] / alone[0], beside[1] / alone[1]}, nil
		},
	}
}

func (h hostility) beside(ctx context.Context, a *arena, o options) ([2]float64, error) {
	hostile, stop := context.WithCancel(ctx)
	defer stop()
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- h.do(hostile, a, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		return [2]float64{}, err
	}
	got, err := politely(ctx, a.site, o)
	stop()
	return got, errors.Join(err, <-done)
}

// politely is the latency of a well-behaved pod's requests, p50 and p99 in ms.
func politely(ctx context.Context, s *site, o options) ([2]float64, error) {
	r, err := load.OpenLoop(ctx, s.dial(respondPort), 8, fairRate, o.Duration)
	return [2]float64{ms(r.Latencies.Quantile(0.5)), ms(r.Latencies.Quantile(0.99))}, err
}

func newRoutedArena(ctx context.Context) (*arena, error) {
	l, err := newLab(ctx, bothNodes()...)
	if err != nil {
		return nil, err
	}
	a := &arena{}
	if a.site, err = newSite(ctx, "routed", l); err == nil {
		a.hostile, err = l.Node("node-a").AddPod(ctx, lab.PodSpec{Name: "hostile"})
	}
	if err == nil {
		a.prey, err = l.Node("node-b").AddPod(ctx, lab.PodSpec{Name: "prey"})
	}
	if err == nil {
		err = a.servePrey(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return a, nil
}

func newMeshArena(ctx context.Context, binary string) (*arena, error) {
	client, server, hostile, prey := workload("client"), workload("server"), workload("hostile"), workload("prey")
	allow(&client, &server, policy.ProtocolTCP, streamPorts()...)
	allow(&hostile, &prey, policy.ProtocolTCP, oncePort, pourPort)
	c, err := startCluster(ctx, cluster.Options{
		Binary: binary, Name: "bench-fair", Nodes: bothNodes(), Workloads: []policy.Workload{client, server, hostile, prey},
	})
	if err != nil {
		return nil, err
	}
	a, err := meshArena(ctx, c)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return a, nil
}

func meshArena(ctx context.Context, c *cluster.Cluster) (*arena, error) {
	s, err := meshSite(ctx, c)
	if err != nil {
		return nil, err
	}
	hostile, err := openPod(ctx, c.Nodes[0], "hostile")
	if err != nil {
		return nil, err
	}
	prey, err := openPod(ctx, c.Nodes[1], "prey")
	if err != nil {
		return nil, err
	}
	a := &arena{site: s, hostile: hostile.Pod, prey: prey.Pod}
	return a, a.servePrey(ctx)
}

// servePrey starts what the hostile pod attacks.
func (a *arena) servePrey(ctx context.Context) error {
	if err := listen(ctx, a.prey.NS, netip.AddrPortFrom(a.prey.Addr4, oncePort), load.Once); err != nil {
		return err
	}
	return listen(ctx, a.prey.NS, netip.AddrPortFrom(a.prey.Addr4, pourPort), a.pour)
}
