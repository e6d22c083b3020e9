// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/c8s-dev/c8s/ingress/daemon"
	"github.com/c8s-dev/c8s/test/lab"
)

// Ingress is an ingress on a host of the lab, at ports 443 and 80.
type Ingress struct {
	Host    *lab.Host
	cluster *Cluster
	dir     string
	process *process
}

// NewIngress prepares an ingress without Services and routes. flags say at
// least where certificates come from.
func (c *Cluster) NewIngress(name string, on *lab.Host, flags ...string) (*Ingress, error) {
	i := &Ingress{Host: on, cluster: c, dir: c.path(name)}
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return nil, err
	}
	pods := map[netip.Prefix]netip.Addr{}
	for _, n := range c.Lab.Nodes() {
		pods[n.PodCIDR4], pods[n.PodCIDR6] = n.Addr4, n.Addr4
	}
	raw, err := json.Marshal(pods)
	if err == nil {
		err = errors.Join(i.write("pods.json", raw), i.SetServices(map[string]map[uint16][]netip.AddrPort{}), i.SetRoutes([]byte(`{"schema": "c8s.dev/ingress-routes/v1", "routes": []}`)))
	}
	if err != nil {
		return nil, err
	}
	i.process = newProcess(name, c.path(name+".log"), func() *lab.Cmd {
		return on.Command(context.Background(), c.opts.Binary, slices.Concat([]string{
			"ingress", "--name", name, "--address", on.Addr4.String(), "--cds", strings.Join(c.cdsAddrs(), ","),
			"--operators", c.OperatorsFile(), "--manifest", c.path("manifest.dsse.json"), "--tee", "sim", "--sim-dir", c.simDir,
			"--no-kubernetes", "--routes", i.path("pods.json"), "--services", i.path("services.json"), "--ingress-routes", i.path("routes.json"),
			"--state-dir", i.path("state"), "--run-dir", i.dir, "--drain", "5s", "--log-level", "debug",
		}, flags)...)
	})
	c.Ingresses = append(c.Ingresses, i)
	return i, nil
}

// OperatorsFile is where the operators' keys are: what clients need.
func (c *Cluster) OperatorsFile() string { return c.path("operators.json") }

func (i *Ingress) path(name string) string { return filepath.Join(i.dir, name) }

// write replaces a file that the ingress follows.
func (i *Ingress) write(name string, raw []byte) error {
	if err := os.WriteFile(i.path(name+".new"), raw, 0o600); err != nil {
		return err
	}
	return os.Rename(i.path(name+".new"), i.path(name))
}

// SetRoutes replaces the file of routes.
func (i *Ingress) SetRoutes(raw []byte) error { return i.write("routes.json", raw) }

// SetServices replaces what is behind Services, by port.
func (i *Ingress) SetServices(services map[string]map[uint16][]netip.AddrPort) error {
	type port struct {
		Port      uint16           `json:"port"`
		Endpoints []netip.AddrPort `json:"endpoints"`
	}
	table := map[string][]port{}
	for name, ports := range services {
		for n, endpoints := range ports {
			table[name] = append(table[name], port{n, endpoints})
		}
	}
	raw, err := json.Marshal(table)
	if err != nil {
		return err
	}
	return i.write("services.json", raw)
}

// Start starts the process; it does not wait for it.
func (i *Ingress) Start() error { return i.process.start() }

// Kill ends it with SIGKILL.
func (i *Ingress) Kill() error { return i.process.kill() }

// Stop ends it with SIGTERM, and returns when it has drained.
func (i *Ingress) Stop() error { return i.process.end(syscall.SIGTERM) }

// Terminate sends SIGTERM and does not wait.
func (i *Ingress) Terminate() error { return i.process.signal(syscall.SIGTERM) }

// ExitCode is how it ended; -1 after a signal or while it runs.
func (i *Ingress) ExitCode() int { return i.process.exitCode() }

// WaitEnd waits until it has ended by itself and returns how.
func (i *Ingress) WaitEnd(ctx context.Context) (code int, err error) {
	err = until(ctx, "the ingress "+i.process.name+" to end", func() error {
		if i.process.running() {
			return errors.New("it runs")
		}
		return nil
	})
	return i.process.exitCode(), err
}

// RunDir is the folder of its admin socket.
func (i *Ingress) RunDir() string { return i.dir }

// StateDir is the folder of what it keeps.
func (i *Ingress) StateDir() string { return i.path("state") }

// Log returns what it has said since it was last started.
func (i *Ingress) Log() string { return string(i.process.tail(1 << 20)) }

// Status asks the ingress.
func (i *Ingress) Status(ctx context.Context) (*daemon.Status, error) {
	if err := i.process.died(); err != nil {
		return nil, err
	}
	return daemon.AskStatus(ctx, i.dir)
}

// WaitReady waits until the ingress can take traffic.
func (i *Ingress) WaitReady(ctx context.Context) error {
	return i.Wait(ctx, "to be ready", func(s *daemon.Status) error {
		if s.NotReady != "" {
			return errors.New(s.NotReady)
		}
		return nil
	})
}

// Wait waits until the ingress's status is as check wants it.
func (i *Ingress) Wait(ctx context.Context, what string, check func(*daemon.Status) error) error {
	return until(ctx, fmt.Sprintf("the ingress %s %s", i.process.name, what), func() error {
		s, err := i.Status(ctx)
		if err != nil {
			return err
		}
		return check(s)
	})
}

// PID is its process.
func (i *Ingress) PID() int { return i.process.pid() }
