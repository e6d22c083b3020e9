// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/bench/fleet"
	"github.com/c8s-dev/c8s/test/bench/load"
)

const (
	aimMixed    = 400  // certificates per second of the server's processor time
	aimRenewals = 1500 // the same, on kept connections: a pod's renewal is its enrolment again
	aimP99      = 50   // ms, at half of the highest rate
	aimPush     = 1000 // ms until the last watcher has it
)

// rates measures how many certificates a server can issue.
func (r *cdsRun) rates(ctx context.Context) error {
	for _, sc := range []struct {
		name string
		aim  float64
		call func(*cdsLoad) load.Call
	}{
		{"nodes, each on a new connection", 0, func(l *cdsLoad) load.Call { return l.alone }},
		{"pods, connection kept", aimRenewals, func(l *cdsLoad) load.Call { return l.pod }},
		{fmt.Sprintf("1 node to %d pods", podsPerNode), aimMixed, func(l *cdsLoad) load.Call { return l.mixed }},
		{"node renewals, connection kept", aimRenewals, func(l *cdsLoad) load.Call { return l.renew }},
	} {
		say("%s", sc.name)
		var core, wall [siteCount][]float64
		for range r.o.Rounds {
			for i, s := range r.sites {
				if s == nil {
					continue
				}
				res, cpu, err := r.rate(ctx, s, sc.call)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", sc.name, s.name, err)
				}
				core[i] = append(core[i], float64(res.Requests)/cpu)
				wall[i] = append(wall[i], res.PerSecond())
			}
		}
		aim, met := "", (func(float64) bool)(nil)
		if sc.aim > 0 {
			aim, met = fmt.Sprintf("≥ %g", sc.aim), atLeast(sc.aim)
		}
		r.add(sc.name, "/s of server CPU", medians(core), aim, met)
		r.add(sc.name, "/s", medians(wall), "", nil)
		if sc.aim == aimMixed {
			for i, s := range r.sites {
				if s != nil {
					s.perSecond = median(wall[i])
				}
			}
		}
	}
	return nil
}

// rate loads one server, and returns what it did and the processor time it took.
func (r *cdsRun) rate(ctx context.Context, s *cdsSite, what func(*cdsLoad) load.Call) (load.RequestResult, float64, error) {
	fail := func(err error) (load.RequestResult, float64, error) { return load.RequestResult{}, 0, err }
	l, err := newCDSLoad(ctx, r.f, s)
	if err != nil {
		return fail(err)
	}
	defer l.close()
	before, err := r.proc.CPUSeconds(s.pid)
	if err != nil {
		return fail(err)
	}
	res, err := load.Calls(ctx, cdsWorkers, r.o.Duration, what(l))
	if err != nil {
		return fail(err)
	}
	after, err := r.proc.CPUSeconds(s.pid)
	if err != nil {
		return fail(err)
	}
	return res, after - before, l.check()
}

// latencies measures how long callers wait at half the rate.
func (r *cdsRun) latencies(ctx context.Context) error {
	say("latency at half the rate")
	var p50, p99, at [siteCount][]float64
	for range r.o.Rounds {
		for i, s := range r.sites {
			if s == nil {
				continue
			}
			l, err := newCDSLoad(ctx, r.f, s)
			if err != nil {
				return err
			}
			res, err := load.CallsAt(ctx, cdsWorkers, s.perSecond/2, r.o.Duration, l.oneOfMixed())
			if err == nil {
				err = l.check()
			}
			l.close()
			if err != nil {
				return fmt.Errorf("latency: %s: %w", s.name, err)
			}
			at[i] = append(at[i], s.perSecond/2)
			p50[i] = append(p50[i], res.Latencies.Quantile(0.5).Seconds()*1e3)
			p99[i] = append(p99[i], res.Latencies.Quantile(0.99).Seconds()*1e3)
		}
	}
	mix := fmt.Sprintf("1 node to %d pods, at half that rate", podsPerNode)
	r.add(mix, "/s", medians(at), "", nil)
	r.add(mix+": p50", "ms", medians(p50), "", nil)
	r.add(mix+": p99", "ms", medians(p99), fmt.Sprintf("≤ %d", aimP99), atMost(aimP99))
	return nil
}

// watched is what was measured with many watchers: milliseconds until the last
// had a document, and kilobytes for each.
type watched struct{ manifest, deny, memory float64 }

// pushes measures how long the operators' word takes to reach all watchers of
// a fresh process, and what it keeps for each.
func (r *cdsRun) pushes(ctx context.Context) error {
	say("%d watchers", r.o.Watchers)
	var manifest, deny, memory [siteCount]float64
	for i, store := range [siteCount][]string{
		siteFile: {"--state-dir", r.f.path("watched")}, siteEtcd: r.etcdFlags("/watched/"),
	} {
		if len(store) == 0 {
			continue
		}
		s, err := startCDS(ctx, r.f, r.o, fmt.Sprintf("watched-%d", i), store...)
		if err != nil {
			return err
		}
		got, err := r.watch(ctx, s)
		s.end()
		if err != nil {
			return fmt.Errorf("watchers: %w", err)
		}
		manifest[i], deny[i], memory[i] = got.manifest, got.deny, got.memory
	}
	aim := fmt.Sprintf("≤ %d", aimPush)
	r.add(fmt.Sprintf("manifest of %d KB to %d watchers", len(r.f.Signed.Envelope)/1000, r.o.Watchers), "ms", manifest, aim, atMost(aimPush))
	r.add(fmt.Sprintf("deny list to %d watchers", r.o.Watchers), "ms", deny, aim, atMost(aimPush))
	r.add("memory of a watcher", "KB", memory, "", nil)
	return nil
}

func (r *cdsRun) watch(ctx context.Context, s *cdsSite) (got watched, err error) {
	before, err := r.proc.Memory(s.pid)
	if err != nil {
		return got, err
	}
	w, err := r.f.Watch(ctx, s.addr, r.o.Watchers)
	if err != nil {
		return got, err
	}
	defer w.Close()
	select {
	case <-time.After(r.o.Duration): // rest
	case <-ctx.Done():
		return got, ctx.Err()
	}
	after, err := r.proc.Memory(s.pid)
	if err != nil {
		return got, err
	}
	got.memory = (float64(after.PSS) - float64(before.PSS)) / 1e3 / float64(r.o.Watchers)
	operator, err := r.f.Dial(ctx, s.addr, nil)
	if err != nil {
		return got, err
	}
	defer operator.Close()
	var manifests, denies []float64
	signed, list := r.f.Signed, (*policy.SignedDenyList)(nil)
	for range r.o.Rounds {
		if signed, err = r.f.NextManifest(signed); err != nil {
			return got, err
		}
		took, err := deliver(ctx, w, signed.Envelope, operator.PublishManifest)
		if err != nil {
			return got, fmt.Errorf("manifest: %w", err)
		}
		manifests = append(manifests, took)
		if list, err = r.f.NextDenyList(list); err != nil {
			return got, err
		}
		if took, err = deliver(ctx, w, list.Envelope, operator.PublishDenyList); err != nil {
			return got, fmt.Errorf("deny list: %w", err)
		}
		denies = append(denies, took)
	}
	got.manifest, got.deny = median(manifests), median(denies)
	return got, nil
}

// deliver publishes a document and returns the milliseconds until the last
// watcher had it.
func deliver(ctx context.Context, w *fleet.Watchers, envelope []byte, publish func(context.Context, []byte) error) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	all := w.Expect(envelope)
	began := time.Now()
	if err := publish(ctx, envelope); err != nil {
		return 0, err
	}
	last, err := all(ctx)
	return last.Sub(began).Seconds() * 1e3, err
}

func medians(of [siteCount][]float64) (at [siteCount]float64) {
	for i, v := range of {
		if len(v) > 0 {
			at[i] = median(v)
		}
	}
	return at
}

func (r *cdsRun) startEtcd(ctx context.Context) error {
	cluster, err := startEtcd(ctx, r.disk)
	if err != nil || cluster == nil {
		return err
	}
	r.etcd = cluster.Endpoints()
	context.AfterFunc(ctx, func() { cluster.Close() })
	return nil
}

// etcdFlags are the flags of a CDS that uses etcd under a prefix, none without
// etcd.
func (r *cdsRun) etcdFlags(prefix string) []string {
	if len(r.etcd) == 0 {
		return nil
	}
	return []string{"--etcd", strings.Join(r.etcd, ","), "--etcd-prefix", prefix}
}
