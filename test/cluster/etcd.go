// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"

	"github.com/c8s-dev/c8s/test/lab"
)

const (
	etcdClientPort = 2379
	etcdPeerPort   = 2380
)

// Member is one member of the etcd that replicas share, on a host of its own.
// What it stored survives Kill.
type Member struct {
	Host    *lab.Host
	process *process
}

// memberNames are the hosts of n members: etcd, etcd-2, etcd-3 and so on.
func memberNames(n int) []string { return numbered("etcd", n) }

func (c *Cluster) startEtcd(ctx context.Context) error {
	if c.opts.Etcd == 0 {
		return nil
	}
	if c.opts.EtcdBinary == "" {
		return errors.New("starting etcd: the options name no executable")
	}
	var all []string
	for _, name := range memberNames(c.opts.Etcd) {
		m := &Member{Host: c.Lab.Outside(name)}
		c.Etcd = append(c.Etcd, m)
		all = append(all, name+"="+m.url(etcdPeerPort))
	}
	for _, m := range c.Etcd {
		m.process = newProcess(m.Host.Name, c.path(m.Host.Name+".log"), func() *lab.Cmd {
			return m.Host.Command(ctx, c.opts.EtcdBinary,
				"--name", m.Host.Name, "--data-dir", c.path(m.Host.Name), "--log-level", "warn",
				"--listen-client-urls", m.url(etcdClientPort), "--advertise-client-urls", m.url(etcdClientPort),
				"--listen-peer-urls", m.url(etcdPeerPort), "--initial-advertise-peer-urls", m.url(etcdPeerPort),
				"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new",
			)
		})
		if err := m.Start(); err != nil {
			return err
		}
	}
	for _, m := range c.Etcd {
		if err := m.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) etcdURLs() (urls []string) {
	for _, m := range c.Etcd {
		urls = append(urls, m.url(etcdClientPort))
	}
	return urls
}

// EtcdHosts are the hosts of all members, for cutting replicas off.
func (c *Cluster) EtcdHosts() (hosts []*lab.Host) {
	for _, m := range c.Etcd {
		hosts = append(hosts, m.Host)
	}
	return hosts
}

// Leader waits until etcd has a leader that answers, and returns it.
func (c *Cluster) Leader(ctx context.Context) (leader *Member, err error) {
	return leader, until(ctx, "etcd to have a leader", func() error {
		for _, m := range c.Etcd {
			if m.process.running() && m.leads(ctx) {
				leader = m
				return nil
			}
		}
		return errors.New("no member leads")
	})
}

func (m *Member) url(port uint16) string {
	return "http://" + netip.AddrPortFrom(m.Host.Addr4, port).String()
}

// Start starts the process; it does not wait for it.
func (m *Member) Start() error { return m.process.start() }

// Kill ends it with SIGKILL.
func (m *Member) Kill() error { return m.process.kill() }

// WaitReady waits until the member answers and knows of a quorum.
func (m *Member) WaitReady(ctx context.Context) error {
	return until(ctx, m.Host.Name+" to be healthy", func() error {
		if err := m.process.died(); err != nil {
			return err
		}
		_, err := ask(ctx, m.Host, m.url(etcdClientPort)+"/health")
		return err
	})
}

// CutFrom and Heal are those of Replica.
func (m *Member) CutFrom(ctx context.Context, hosts ...*lab.Host) error {
	return cut(ctx, m.Host, hosts)
}

// Heal undoes CutFrom.
func (m *Member) Heal(ctx context.Context) error { return heal(ctx, m.Host) }

func (m *Member) leads(ctx context.Context) bool {
	body, err := post(ctx, m.Host, m.url(etcdClientPort)+"/v3/maintenance/status", "{}")
	if err != nil {
		return false
	}
	var status struct {
		Header struct {
			MemberID string `json:"member_id"`
		} `json:"header"`
		Leader string `json:"leader"`
	}
	return json.Unmarshal([]byte(body), &status) == nil && status.Leader != "" && status.Leader == status.Header.MemberID
}
