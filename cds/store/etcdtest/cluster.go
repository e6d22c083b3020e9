// SPDX-License-Identifier: Apache-2.0

// Package etcdtest runs real etcd for tests and benchmarks: members that can
// be killed, stopped, paused and restarted, each behind a proxy that can cut it
// off. No process outlives the cluster, nor the program that made it.
package etcdtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/c8s-dev/c8s/test/privileged"
)

const (
	// BinaryEnv names the etcd program; without it, it is what "make etcd"
	// built.
	BinaryEnv = "C8S_ETCD"
	built     = ".tools/etcd"

	// startTimeout is how long a cluster has until all members answer.
	startTimeout = time.Minute
	// startTries covers ports that were taken between choosing and using them.
	startTries = 3
)

// Options of a cluster.
type Options struct {
	// Members, 1 if zero.
	Members int
	// Dir gets the members' data and logs. It must exist.
	Dir string
	// Binary is the etcd program; empty for what Binary finds.
	Binary string
	// Args are added to every member's.
	Args []string
	// TLS is what clients use; nil for http. The members' side goes to Args.
	TLS *tls.Config
}

// Cluster is a running etcd.
type Cluster struct {
	opts    Options
	members []*Member
	// spawn runs functions on one thread that lasts as long as the cluster: a
	// child that is to die with its parent dies with the parent's thread.
	spawn chan func()
}

// Start runs a cluster for a test and ends it with the test. Without an etcd
// program it skips the test, or fails it where tests that need more than Go
// are required (C8S_REQUIRE_PRIVILEGED).
func Start(t testing.TB, members int) *Cluster {
	t.Helper()
	return StartWith(t, Options{Members: members})
}

// StartWith is Start with options; Dir need not be set.
func StartWith(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Binary == "" {
		binary, err := Binary()
		if err != nil {
			privileged.Missing(t, os.Getenv(privileged.RequireEnv), err.Error())
		}
		o.Binary = binary
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for _, m := range c.members {
				t.Logf("last lines of %s:\n%s", m.log, tail(m.log))
			}
		}
	})
	return c
}

// Binary finds the etcd program: $C8S_ETCD, or .tools/etcd in the checkout
// that the working directory is in.
func Binary() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, built)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil || dir == filepath.Dir(dir) {
			return "", fmt.Errorf("needs etcd: run make etcd, or set %s", BinaryEnv)
		}
	}
}

// New runs a cluster until Close. It returns when every member answers.
func New(ctx context.Context, o Options) (*Cluster, error) {
	o.Members = max(o.Members, 1)
	if o.Binary == "" {
		binary, err := Binary()
		if err != nil {
			return nil, err
		}
		o.Binary = binary
	}
	var err error
	for try := range startTries {
		var c *Cluster
		dir := filepath.Join(o.Dir, fmt.Sprintf("try%d", try))
		if c, err = start(ctx, o, dir); err == nil || ctx.Err() != nil {
			return c, err
		}
	}
	return nil, err
}

func start(ctx context.Context, o Options, dir string) (*Cluster, error) {
	c := &Cluster{opts: o, spawn: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range c.spawn {
			f()
		}
	}()
	if err := c.run(ctx, dir); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) run(ctx context.Context, dir string) error {
	var names []string
	for i := range c.opts.Members {
		m, err := newMember(c, i, dir)
		if err != nil {
			return err
		}
		c.members = append(c.members, m)
		names = append(names, m.name+"="+m.peerURL)
	}
	for _, m := range c.members {
		m.args = append(m.args, "--initial-cluster", strings.Join(names, ","))
		if err := m.spawn(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for _, m := range c.members {
		if err := m.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Endpoints are the members' URLs, by way of their proxies.
func (c *Cluster) Endpoints() []string {
	var urls []string
	for _, m := range c.members {
		urls = append(urls, m.Endpoint())
	}
	return urls
}

// Members is how many there are, running or not.
func (c *Cluster) Members() int { return len(c.members) }

// Member returns one, counted from zero.
func (c *Cluster) Member(i int) *Member { return c.members[i] }

// Leader waits until the running members agree on one, and returns its index.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	for {
		for i, m := range c.members {
			if m.running() && m.leads(ctx) {
				return i, nil
			}
		}
		if err := pause(ctx); err != nil {
			return 0, fmt.Errorf("waiting for a leader: %w", err)
		}
	}
}

// Client is one that no proxy stands between, for what a test does behind the
// back of the code it tests. The caller closes it.
func (c *Cluster) Client() (*clientv3.Client, error) {
	var urls []string
	for _, m := range c.members {
		urls = append(urls, m.clientURL)
	}
	return c.client(urls...)
}

func (c *Cluster) client(urls ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: urls, TLS: c.opts.TLS, Logger: zap.NewNop()})
}

// Close kills the members, by their process ids, and removes nothing.
func (c *Cluster) Close() error {
	var errs []error
	for _, m := range c.members {
		errs = append(errs, m.Kill(), m.proxy.close())
	}
	close(c.spawn)
	return errors.Join(errs...)
}

func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4096):])
}

// pause waits a moment between two looks at a process.
func pause(ctx context.Context) error {
	select {
	case <-time.After(20 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// exec starts a process that dies with this one.
func (c *Cluster) exec(cmd *exec.Cmd) error {
	done := make(chan error)
	c.spawn <- func() { done <- cmd.Start() }
	return <-done
}
