// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/c8s-dev/c8s/test/bench/load"
)

var (
	smallGet = load.Get{Host: webHost, Path: "/small", Size: smallSize}
	bigGet   = load.Get{Host: webHost, Path: "/big", Size: bigSize}
	eventGet = load.Get{Host: webHost, Path: "/events", Size: eventSize}
)

// Columns of the part.
const (
	atNginx = iota
	atDirect
	atNginxMesh
	atIngress
)

func webExperiments() []experiment {
	var all []experiment
	for _, protocol := range []string{"http/1.1", "h2"} {
		for _, connections := range []int{1, 16, 64} {
			all = append(all, requests(protocol, connections))
		}
	}
	return append(all, handshakes(), firstByte(), download())
}

// requests are small ones on kept-alive connections, one under way on each.
func requests(protocol string, connections int) experiment {
	begin := smallGet.HTTP1
	if protocol == "h2" {
		begin = smallGet.HTTP2
	}
	rate := gridRow{Scenario: fmt.Sprintf("1 KB answers, %s, %d connections", protocol, connections), Unit: "/s", Aim: "≥ 0.6 × nginx"}
	rate.met = func(at []float64) bool { return at[atIngress] >= 0.6*at[atNginx] }
	return experiment{
		rows: []gridRow{rate, {Scenario: "… p50", Unit: "ms"}, {Scenario: "… p99", Unit: "ms"}, {Scenario: "… proxy's CPU", Unit: "µs"}, {Scenario: "… node daemons' CPU", Unit: "µs"}},
		measure: func(ctx context.Context, s *site, o options) ([]float64, error) {
			if s.web.plain && protocol == "h2" {
				return make([]float64, 5), nil
			}
			loop, err := load.NewLoop(ctx, s.web.dial(protocol), connections, begin)
			if err != nil {
				return nil, err
			}
			defer loop.Close()
			var r load.RequestResult
			proxy, daemons, err := s.web.spend(func() (err error) {
				r, err = loop.Run(ctx, o.Duration)
				return err
			})
			each := 1e6 / float64(max(1, r.Requests))
			return []float64{r.PerSecond(), ms(r.Latencies.Quantile(0.5)), ms(r.Latencies.Quantile(0.99)), proxy * each, daemons * each}, err
		},
	}
}

// handshakes are connections with one small answer each; the proxy closes.
func handshakes() experiment {
	last := smallGet
	last.Last = true
	return experiment{
		rows: []gridRow{{Scenario: "new TLS connections, one request each", Unit: "/s"}, {Scenario: "… proxy's CPU", Unit: "µs"}, {Scenario: "… node daemons' CPU", Unit: "µs"}},
		measure: func(ctx context.Context, s *site, o options) ([]float64, error) {
			if s.web.plain {
				return make([]float64, 3), nil
			}
			dial := s.web.dial("http/1.1")
			var r load.RequestResult
			proxy, daemons, err := s.web.spend(func() (err error) {
				r, err = load.Calls(ctx, 4*runtime.NumCPU(), o.Duration, func(ctx context.Context, _ int) (int, error) {
					return 1, onConnection(ctx, dial, last.HTTP1)
				})
				return err
			})
			each := 1e6 / float64(max(1, r.Requests))
			return []float64{r.PerSecond(), proxy * each, daemons * each}, err
		},
	}
}

// onConnection does one exchange on a connection of its own.
func onConnection(ctx context.Context, dial load.Dial, begin func(net.Conn) (load.Exchange, error)) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Minute)); err != nil {
		return err
	}
	exchange, err := begin(c)
	if err != nil {
		return err
	}
	return exchange()
}

func firstByte() experiment {
	row := gridRow{Scenario: "first byte of a stream, p50", Unit: "ms", Aim: "≤ no proxy + 1 ms"}
	row.met = func(at []float64) bool { return at[atIngress] < at[atDirect]+1 }
	return experiment{
		rows: []gridRow{row, {Scenario: "… p99", Unit: "ms"}},
		measure: func(ctx context.Context, s *site, o options) ([]float64, error) {
			l, err := load.FirstByte(ctx, s.web.dial("http/1.1"), eventGet, o.Duration)
			return []float64{ms(l.Quantile(0.5)), ms(l.Quantile(0.99))}, err
		},
	}
}

func download() experiment {
	return experiment{
		rows: []gridRow{{Scenario: "1 GiB download", Unit: "MB/s"}, {Scenario: "… proxy's CPU per GB", Unit: "s"}, {Scenario: "… node daemons' CPU per GB", Unit: "s"}},
		measure: func(ctx context.Context, s *site, _ options) ([]float64, error) {
			began := time.Now()
			proxy, daemons, err := s.web.spend(func() error { return onConnection(ctx, s.web.dial("http/1.1"), bigGet.HTTP1) })
			return []float64{bigSize / 1e6 / time.Since(began).Seconds(), proxy * 1e9 / bigSize, daemons * 1e9 / bigSize}, err
		},
	}
}

// spend is the processor time that something took of the proxy and of the
// mesh's daemons.
func (f *front) spend(on func() error) (proxy, daemons float64, err error) {
	proc := load.NewProc()
	var before, after [2]float64
	read := func(into *[2]float64) (err error) {
		if into[0], err = proc.CPUSeconds(f.proxy...); err == nil {
			into[1], err = proc.CPUSeconds(f.daemons...)
		}
		return err
	}
	if err := read(&before); err != nil {
		return 0, 0, err
	}
	if err := on(); err != nil {
		return 0, 0, err
	}
	err = read(&after)
	return after[0] - before[0], after[1] - before[1], err
}
