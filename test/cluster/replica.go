// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"github.com/c8s-dev/c8s/test/lab"
)

// Replica is one replica of the CDS, on a host of its own.
type Replica struct {
	Host    *lab.Host
	cluster *Cluster
	process *process
}

// replicaNames are the hosts of n replicas: cds, cds-2, cds-3 and so on.
func replicaNames(n int) []string { return numbered("cds", n) }

func numbered(first string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%d", first, i+1)
	}
	if n > 0 {
		names[0] = first
	}
	return names
}

// startCDS starts the first replica, which makes the CA, and then the others,
// which join it.
func (c *Cluster) startCDS(ctx context.Context) error {
	for _, name := range replicaNames(c.opts.Replicas) {
		c.CDS = append(c.CDS, c.newReplica(ctx, c.Lab.Outside(name)))
	}
	for i, r := range c.CDS {
		if err := r.Start(); err != nil {
			return err
		}
		if i > 0 {
			continue
		}
		if err := r.WaitReady(ctx); err != nil {
			return err
		}
	}
	for _, r := range c.CDS {
		if err := r.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) newReplica(ctx context.Context, host *lab.Host) *Replica {
	r := &Replica{Host: host, cluster: c}
	r.process = newProcess(host.Name, c.path(host.Name+".log"), func() *lab.Cmd {
		args := []string{
			"cds", "--name", host.Name,
			"--listen", r.Addr(), "--operators", c.path("operators.json"), "--manifest", c.path("manifest.dsse.json"),
			"--tee", "sim", "--sim-dir", c.simDir, "--sim-machine", host.Name,
			"--metrics-address", r.metrics(), "--state-dir", r.StateDir(),
		}
		for _, other := range c.CDS {
			if other != r {
				args = append(args, "--join", other.Addr())
			}
		}
		if len(c.Etcd) > 0 {
			args = append(args, "--etcd", strings.Join(c.etcdURLs(), ","))
		}
		return host.Command(ctx, c.opts.Binary, append(args, c.opts.CDSFlags...)...)
	})
	return r
}

func (c *Cluster) cdsAddrs() (addrs []string) {
	for _, r := range c.CDS {
		addrs = append(addrs, r.Addr())
	}
	return addrs
}

// Addr is where the replica serves.
func (r *Replica) Addr() string { return netip.AddrPortFrom(r.Host.Addr4, CDSPort).String() }

func (r *Replica) metrics() string { return fmt.Sprintf("127.0.0.1:%d", MetricsPort) }

// StateDir is where the replica keeps its file when there is no etcd.
func (r *Replica) StateDir() string { return r.cluster.path(r.Host.Name) }

// Start starts the process; it does not wait for it.
func (r *Replica) Start() error { return r.process.start() }

// Kill ends it with SIGKILL: nothing of its own cleans up.
func (r *Replica) Kill() error { return r.process.kill() }

// Stop ends it with SIGTERM.
func (r *Replica) Stop() error { return r.process.end(syscall.SIGTERM) }

// Running reports whether the process lives.
func (r *Replica) Running() bool { return r.process.running() }

// Log returns what it has logged since it was last started, if that is not
// very long.
func (r *Replica) Log() string { return string(r.process.tail(1 << 20)) }

// Ready asks /readyz: nil if the replica can issue, otherwise what it says.
func (r *Replica) Ready(ctx context.Context) error {
	_, err := r.ask(ctx, "/readyz")
	return err
}

// Metrics returns what /metrics says.
func (r *Replica) Metrics(ctx context.Context) (string, error) { return r.ask(ctx, "/metrics") }

// WaitReady waits until the replica can issue.
func (r *Replica) WaitReady(ctx context.Context) error {
	return until(ctx, r.Host.Name+" to be ready", func() error { return r.Ready(ctx) })
}

// WaitNotReady waits until the replica says that it cannot issue, for a reason
// that contains why.
func (r *Replica) WaitNotReady(ctx context.Context, why string) error {
	return until(ctx, r.Host.Name+" not to be ready: "+why, func() error {
		err := r.Ready(ctx)
		switch {
		case err == nil:
			return errors.New("it is ready")
		case errors.Is(err, errEnded) || strings.Contains(err.Error(), why):
			return nil
		}
		return err
	})
}

// CutFrom drops whatever the replica and etcd, or others of the cluster, send
// each other; without hosts, whatever it and anybody send each other. Heal
// ends that.
func (r *Replica) CutFrom(ctx context.Context, hosts ...*lab.Host) error {
	return cut(ctx, r.Host, hosts)
}

// Heal undoes CutFrom.
func (r *Replica) Heal(ctx context.Context) error { return heal(ctx, r.Host) }

func (r *Replica) ask(ctx context.Context, path string) (string, error) {
	if err := r.process.died(); err != nil {
		return "", err
	}
	return ask(ctx, r.Host, "http://"+r.metrics()+path)
}
