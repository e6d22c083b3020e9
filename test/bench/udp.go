// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/c8s-dev/c8s/test/bench/load"
)

// datagramRate is that of the datagrams whose latency is measured.
const datagramRate = 1000

// runUDP compares datagrams that are routed with datagrams that raTLS carries.
func runUDP(ctx context.Context, o options) (part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the labs
	say("building two pairs of nodes")
	routed, err := newRouted(ctx, bothNodes()...)
	if err != nil {
		return nil, err
	}
	defer routed.close()
	mesh, _, err := newMesh(ctx, o.Binary, "bench-udp", bothNodes()...)
	if err != nil {
		return nil, err
	}
	defer mesh.close()
	var all []experiment
	for _, size := range []int{200, 1200} {
		for _, flows := range []int{1, 16} {
			all = append(all, datagrams(flows, size))
		}
	}
	for _, size := range []int{200, 1200} {
		all = append(all, datagramLatency(size))
	}
	return newGrid(ctx, o, []*site{routed, mesh}, all)
}

func datagrams(flows, size int) experiment {
	name := fmt.Sprintf("%d B datagrams, %d flow(s), as fast as possible", size, flows)
	return experiment{
		rows: []gridRow{{Scenario: name + ": arrived", Unit: "/s"}, {Scenario: "… lost", Unit: "%"}},
		measure: func(ctx context.Context, s *site, o options) ([]float64, error) {
			r, err := load.Datagrams(ctx, s.dialUDP, flows, size, o.Duration)
			return []float64{r.PerSecond(), 100 * r.Lost()}, err
		},
	}
}

func datagramLatency(size int) experiment {
	name := fmt.Sprintf("%d B datagrams there and back at %d/s", size, datagramRate)
	return experiment{
		rows: []gridRow{
			{Scenario: name + ": p50", Unit: "ms"},
			{Scenario: "… p99", Unit: "ms"},
			{Scenario: "… lost", Unit: "datagrams", Aim: "0", met: func(at []float64) bool { return at[1] == 0 }},
		},
		measure: func(ctx context.Context, s *site, o options) ([]float64, error) {
			r, err := load.DatagramLatency(ctx, s.dialUDP, size, datagramRate, o.Duration)
			if err == nil && r.Latencies.Count() == 0 {
				err = errors.New("not one datagram came back")
			}
			return []float64{ms(r.Latencies.Quantile(0.5)), ms(r.Latencies.Quantile(0.99)), float64(r.Lost)}, err
		},
	}
}
