// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/c8s-dev/c8s/test/freeport"
)

// probeTimeout is how long a member may take to say how it is.
const probeTimeout = 2 * time.Second

// Member is one etcd process and the proxy in front of it. What it stored
// survives Kill and Stop.
type Member struct {
	cluster            *Cluster
	name, log          string
	clientURL, peerURL string
	args               []string
	proxy              *proxy

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended
}

func newMember(c *Cluster, i int, dir string) (*Member, error) {
	clientAddr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	peerAddr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p, err := newProxy(clientAddr)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("m%d", i)
	m := &Member{
		cluster:   c,
		name:      name,
		log:       filepath.Join(dir, name+".log"),
		clientURL: c.scheme() + "://" + clientAddr,
		peerURL:   "http://" + peerAddr,
		proxy:     p,
	}
	m.args = append([]string{
		"--name", name,
		"--data-dir", filepath.Join(dir, name),
		"--listen-client-urls", m.clientURL,
		"--advertise-client-urls", m.clientURL,
		"--listen-peer-urls", m.peerURL,
		"--initial-advertise-peer-urls", m.peerURL,
		"--initial-cluster-state", "new",
		"--log-level", "warn",
	}, c.opts.Args...)
	return m, os.MkdirAll(dir, 0o700)
}

func (c *Cluster) scheme() string {
	if c.opts.TLS != nil {
		return "https"
	}
	return "http"
}

func freeAddr() (string, error) {
	p, err := freeport.Find()
	return fmt.Sprintf("127.0.0.1:%d", p), err
}

// Endpoint is the member's URL, by way of its proxy.
func (m *Member) Endpoint() string { return m.cluster.scheme() + "://" + m.proxy.addr() }

// Kill ends the process at once, with SIGKILL, also when it is paused.
func (m *Member) Kill() error { return m.end(syscall.SIGKILL) }

// Stop ends it with SIGTERM.
func (m *Member) Stop() error { return m.end(syscall.SIGTERM) }

// Pause stops the process from running, with its connections open.
func (m *Member) Pause() error { return m.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (m *Member) Resume() error { return m.signal(syscall.SIGCONT) }

// Restart starts the process again, at its old addresses and with its data,
// and returns when it is running; Ready waits for it to answer.
func (m *Member) Restart() error {
	if m.running() {
		return fmt.Errorf("restarting etcd %s: it is running", m.name)
	}
	return m.spawn()
}

// Ready waits until the member answers reads, which takes a quorum. It asks
// past the proxy.
func (m *Member) Ready(ctx context.Context) error {
	client, err := m.cluster.client(m.clientURL)
	if err != nil {
		return err
	}
	defer client.Close()
	_, done := m.process()
	for {
		err := probe(ctx, client, done)
		if err == nil {
			return nil
		}
		if !m.running() {
			return fmt.Errorf("etcd %s ended:\n%s", m.name, tail(m.log))
		}
		if pause(ctx) != nil {
			return fmt.Errorf("waiting for etcd %s: %w", m.name, err)
		}
	}
}

// probe reads something, unless the process ends first.
func probe(ctx context.Context, client *clientv3.Client, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	_, err := client.Get(ctx, "etcdtest")
	return err
}

// Partition holds up everything between clients and the member, in both
// directions, and keeps the connections open, as a network that drops packets
// does. Heal delivers what was held up.
func (m *Member) Partition() { m.proxy.block(true, true) }

// Mute holds up only what the member answers: requests reach it.
func (m *Member) Mute() { m.proxy.block(false, true) }

// Heal undoes Partition and Mute.
func (m *Member) Heal() { m.proxy.block(false, false) }

// Disconnect breaks the clients' connections; new ones can be made.
func (m *Member) Disconnect() { m.proxy.disconnect() }

func (m *Member) spawn() error {
	out, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own
	cmd := exec.Command(m.cluster.opts.Binary, m.args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{} // settings of this machine's etcd are not for this one
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cluster.exec(cmd); err != nil {
		return fmt.Errorf("starting etcd: %w", err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait() // by a signal, mostly; the log has what else went wrong
		close(done)
	}()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cmd, m.done = cmd, done
	return nil
}

func (m *Member) process() (*exec.Cmd, chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cmd, m.done
}

func (m *Member) running() bool {
	_, done := m.process()
	if done == nil {
		return false
	}
	select {
	case <-done:
		return false
	default:
		return true
	}
}

func (m *Member) signal(s syscall.Signal) error {
	cmd, _ := m.process()
	if cmd == nil {
		return fmt.Errorf("signalling etcd %s: it never ran", m.name)
	}
	return cmd.Process.Signal(s)
}

// end is no error for a process that has ended before.
func (m *Member) end(s syscall.Signal) error {
	cmd, done := m.process()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending etcd %s: %w", m.name, err)
	}
	<-done
	return nil
}

// leads asks the member whether it leads the cluster.
func (m *Member) leads(ctx context.Context) bool {
	client, err := m.cluster.client(m.clientURL)
	if err != nil {
		return false
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	status, err := client.Status(ctx, m.clientURL)
	return err == nil && status.Leader == status.Header.MemberId
}
