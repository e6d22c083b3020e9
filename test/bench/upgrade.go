// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/bench/load"
	"github.com/c8s-dev/c8s/test/cluster"
)

// upgradeWorkers is how many connections are being made at once, each way.
const upgradeWorkers = 2

// crossing is a client and a server on each of two nodes.
type crossing struct {
	*cluster.Cluster
	ways []*site // from the node that is upgraded, and to it
}

// runUpgrade opens connections from and to a node whose daemon is replaced
// meanwhile, and for as long as that takes from and to one that is left alone.
func runUpgrade(ctx context.Context, o options) (part, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	say("building two nodes")
	x, err := newCrossing(ctx, o.Binary)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	var took time.Duration
	var total [2][2]load.ConnectResult // without and with an upgrade; from, to
	for round := range o.Rounds {
		say("upgrade %d of %d", round+1, o.Rounds)
		with, sum, err := x.during(ctx, o.Duration, func(ctx context.Context) error {
			d, err := x.upgrade(ctx, fmt.Sprintf("daemon-%d", round+2))
			took = max(took, d)
			return err
		})
		if err != nil {
			return nil, err
		}
		without, _, err := x.during(ctx, 0, func(ctx context.Context) error { return wait(ctx, sum) })
		if err != nil {
			return nil, err
		}
		for i := range x.ways {
			total[0][i], total[1][i] = worse(total[0][i], without[i]), worse(total[1][i], with[i])
		}
	}
	g := &grid{Columns: []string{"no upgrade", "upgrade"}}
	for i, s := range x.ways {
		row := func(what, unit string, v func(load.ConnectResult) float64) gridRow {
			return gridRow{Scenario: what + ", " + s.name, Unit: unit, At: []float64{v(total[0][i]), v(total[1][i])}}
		}
		g.add(row("new connections tried", "", func(r load.ConnectResult) float64 { return float64(r.Completed + r.Failed) }))
		failed := row("… failed", "", func(r load.ConnectResult) float64 { return float64(r.Failed) })
		failed.Aim, failed.met = "0", func(at []float64) bool { return at[1] == 0 }
		g.add(failed)
		g.add(row("… longest time without one", "ms", func(r load.ConnectResult) float64 { return ms(r.Gap) }))
		if err := total[1][i].FirstErr; err != nil {
			say("the first that failed %s: %v", s.name, err)
		}
	}
	g.add(gridRow{Scenario: "until the new daemon owns the node", Unit: "ms", At: []float64{0, ms(took)}})
	return g, nil
}

// worse adds counts and keeps the longest gap.
func worse(a, b load.ConnectResult) load.ConnectResult {
	a.Completed, a.Failed, a.Gap = a.Completed+b.Completed, a.Failed+b.Failed, max(a.Gap, b.Gap)
	if a.FirstErr == nil {
		a.FirstErr = b.FirstErr
	}
	return a
}

func newCrossing(ctx context.Context, binary string) (*crossing, error) {
	client, server := workload("client"), workload("server")
	allow(&client, &server, policy.ProtocolTCP, streamPorts()...)
	c, err := startCluster(ctx, cluster.Options{
		Binary: binary, Name: "bench-upgrade", Nodes: bothNodes(), Workloads: []policy.Workload{client, server},
		NodeFlags: []string{"--instance", "daemon-1"},
	})
	if err != nil {
		return nil, err
	}
	x := &crossing{Cluster: c}
	for i, name := range []string{"from the node", "to the node"} {
		s, err := x.way(ctx, name, c.Nodes[i], c.Nodes[1-i])
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		x.ways = append(x.ways, s)
	}
	return x, nil
}

func (x *crossing) way(ctx context.Context, name string, from, to *cluster.Node) (*site, error) {
	client, err := openPod(ctx, from, "client")
	if err != nil {
		return nil, err
	}
	server, err := openPod(ctx, to, "server")
	if err != nil {
		return nil, err
	}
	s := &site{name: name, client: client.Pod, server: server.NS, addr: server.Addr4}
	return s, s.serve(ctx)
}

// during opens connections while do runs, and for margin before and after. It
// returns what came of them, and how long it took.
func (x *crossing) during(ctx context.Context, margin time.Duration, do func(context.Context) error) ([]load.ConnectResult, time.Duration, error) {
	began := time.Now()
	results, errs := make([]load.ConnectResult, len(x.ways)), make([]error, len(x.ways))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, s := range x.ways {
		wg.Go(func() { results[i], errs[i] = load.ConnectionsUntil(ctx, s.dial(oncePort), upgradeWorkers, stop) })
	}
	err := wait(ctx, margin)
	if err == nil {
		err = do(ctx)
	}
	err = errors.Join(err, wait(ctx, margin))
	close(stop)
	wg.Wait()
	return results, time.Since(began), errors.Join(append(errs, err)...)
}

// upgrade replaces the daemon of the first node, waits until the old one has
// ended, and says how long the new one took to own the node.
func (x *crossing) upgrade(ctx context.Context, instance string) (time.Duration, error) {
	n, began := x.Nodes[0], time.Now()
	if err := n.Succeed("--instance", instance); err != nil {
		return 0, err
	}
	if err := n.WaitInstance(ctx, instance); err != nil {
		return 0, err
	}
	took := time.Since(began)
	for n.Former().Running() {
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return took, nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
