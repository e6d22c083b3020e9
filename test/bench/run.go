// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/c8s-dev/c8s/test/bench/load"
)

type options struct {
	Binary   string
	Before   string // another build, which part ingress compares Binary with
	Duration time.Duration
	Rounds   int
	Idle     int

	Machines, Watchers int
	Dir                string
	Pods, Connections  int // of part memory
}

// scenario is one thing measured at every site.
type scenario struct {
	name, unit string
	less       bool // less is better
	proxies    bool // means nothing without proxies
	once       bool // not repeated
	// aim is what raTLS is to reach against the proxies without TLS: a ratio,
	// or a difference when absolute is set. 0 sets no aim.
	aim      float64
	absolute bool
	measure  func(ctx context.Context, s *site, o options) (float64, error)
}

func scenarios() []scenario {
	return []scenario{
		{name: "bulk throughput, 1 flow", unit: "Gbit/s", aim: 0.55, measure: bulk(1)},
		{name: "bulk throughput, 8 flows", unit: "Gbit/s", aim: 0.55, measure: bulk(8)},
		{name: "proxy CPU per GB, 1 flow", unit: "s/GB", aim: 1.9, less: true, proxies: true, measure: cpuPerGB},
		{name: "new connections, pool warm", unit: "/s", aim: 0.8, measure: connections},
		{name: "1 KB requests, 1 connection, closed loop", unit: "/s", aim: 0.9, measure: closedLoop(1)},
		{name: "1 KB requests, 16 connections, closed loop", unit: "/s", aim: 0.9, measure: closedLoop(16)},
		{name: "latency p50 at 2,000 requests/s", unit: "ms", less: true, measure: openLoop(0.5)},
		{name: "latency p99 at 2,000 requests/s", unit: "ms", less: true, aim: 0.1, absolute: true, measure: openLoop(0.99)},
		{name: "proxy memory per idle connection", unit: "KB", less: true, proxies: true, once: true, aim: 60, absolute: true, measure: idle},
	}
}

func bulk(flows int) func(context.Context, *site, options) (float64, error) {
	return func(ctx context.Context, s *site, o options) (float64, error) {
		r, err := load.Bulk(ctx, s.dial(sinkPort), flows, o.Duration)
		return r.BitsPerSecond() / 1e9, err
	}
}

// cpuPerGB counts user and system time of both proxies, and what the kernel
// did on their behalf; not the programs in the pods.
func cpuPerGB(ctx context.Context, s *site, o options) (float64, error) {
	proc := load.NewProc()
	before, err := proc.CPUSeconds(s.pids...)
	if err != nil {
		return 0, err
	}
	r, err := load.Bulk(ctx, s.dial(sinkPort), 1, o.Duration)
	if err != nil {
		return 0, err
	}
	after, err := proc.CPUSeconds(s.pids...)
	return (after - before) / (float64(r.Bytes) / 1e9), err
}

func connections(ctx context.Context, s *site, o options) (float64, error) {
	r, err := load.Connections(ctx, s.dial(oncePort), 4, o.Duration)
	if err == nil && r.Failed > 0 {
		err = fmt.Errorf("%d of %d connections failed: %w", r.Failed, r.Failed+r.Completed, r.FirstErr)
	}
	return r.PerSecond(), err
}

func closedLoop(conns int) func(context.Context, *site, options) (float64, error) {
	return func(ctx context.Context, s *site, o options) (float64, error) {
		r, err := load.ClosedLoop(ctx, s.dial(respondPort), conns, o.Duration)
		return r.PerSecond(), err
	}
}

func openLoop(quantile float64) func(context.Context, *site, options) (float64, error) {
	return func(ctx context.Context, s *site, o options) (float64, error) {
		r, err := load.OpenLoop(ctx, s.dial(respondPort), 8, load.Rate, o.Duration)
		return r.Latencies.Quantile(quantile).Seconds() * 1e3, err
	}
}

func idle(ctx context.Context, s *site, o options) (float64, error) {
	r, err := load.Idle(ctx, s.dial(echoPort), o.Idle, o.Duration, load.NewProc(), s.pids...)
	return r.PerConnection() / 1e3, err
}

// row is a scenario's medians: routed, without TLS, raTLS.
type row struct {
	Scenario string  `json:"scenario"`
	Unit     string  `json:"unit"`
	Routed   float64 `json:"routed,omitempty"`
	Plain    float64 `json:"withoutTLS"`
	Mesh     float64 `json:"raTLS"`
	ToRouted float64 `json:"raTLSToRouted,omitempty"`
	ToPlain  float64 `json:"raTLSToWithoutTLS"`
	Aim      string  `json:"aim,omitempty"`
	Met      *bool   `json:"met,omitempty"`
	sc       scenario
}

type results []row

func runMesh(ctx context.Context, o options) (part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the labs
	say("building three pairs of nodes")
	var sites []*site
	for _, build := range []func(context.Context) (*site, error){
		func(ctx context.Context) (*site, error) { return newRouted(ctx, bothNodes()...) },
		newPlain,
		func(ctx context.Context) (*site, error) {
			s, _, err := newMesh(ctx, o.Binary, "bench-mesh", bothNodes()...)
			return s, err
		},
	} {
		s, err := build(ctx)
		if err != nil {
			return nil, err
		}
		defer s.close()
		sites = append(sites, s)
	}
	var out results
	for _, sc := range scenarios() {
		say("%s", sc.name)
		r, err := compare(ctx, sc, sites, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sc.name, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// compare measures the sites in turn, round after round, so that a change of
// the machine's mood meets all of them.
func compare(ctx context.Context, sc scenario, sites []*site, o options) (row, error) {
	all := make([][]float64, len(sites))
	rounds := o.Rounds
	if sc.once {
		rounds = 1
	}
	for range rounds {
		for i, s := range sites {
			if sc.proxies && len(s.pids) == 0 {
				all[i] = append(all[i], 0)
				continue
			}
			v, err := sc.measure(ctx, s, o)
			if err != nil {
				return row{}, fmt.Errorf("%s: %w", s.name, err)
			}
			all[i] = append(all[i], v)
		}
	}
	r := row{Scenario: sc.name, Unit: sc.unit, Routed: median(all[0]), Plain: median(all[1]), Mesh: median(all[2]), sc: sc}
	if r.Routed > 0 {
		r.ToRouted = r.Mesh / r.Routed
	}
	r.ToPlain = r.Mesh / r.Plain
	r.judge()
	return r, nil
}

func (r *row) judge() {
	sc := r.sc
	var met bool
	switch {
	case sc.aim == 0:
		return
	case sc.proxies && sc.absolute:
		r.Aim, met = fmt.Sprintf("≤ %g %s", sc.aim, sc.unit), r.Mesh <= sc.aim
	case sc.absolute:
		r.Aim, met = fmt.Sprintf("≤ without TLS + %g %s", sc.aim, sc.unit), r.Mesh <= r.Plain+sc.aim
	case sc.less:
		r.Aim, met = fmt.Sprintf("≤ %g × without TLS", sc.aim), r.ToPlain <= sc.aim
	default:
		r.Aim, met = fmt.Sprintf("≥ %g × without TLS", sc.aim), r.ToPlain >= sc.aim
	}
	r.Met = &met
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func (rs results) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "SCENARIO\tUNIT\tROUTED\tWITHOUT TLS\tRATLS\tTO ROUTED\tTO WITHOUT TLS\tAIM\t")
	for _, r := range rs {
		routed, ratio, verdict := "-", "-", ""
		if r.Routed > 0 {
			routed, ratio = fmt.Sprintf("%.4g", r.Routed), fmt.Sprintf("%.2f", r.ToRouted)
		}
		if r.Met != nil {
			verdict = r.Aim + ": missed"
			if *r.Met {
				verdict = r.Aim + ": met"
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%.4g\t%.4g\t%s\t%.2f\t%s\t\n", r.Scenario, r.Unit, routed, r.Plain, r.Mesh, ratio, r.ToPlain, verdict)
	}
	return tw.Flush()
}
