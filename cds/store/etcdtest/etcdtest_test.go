// SPDX-License-Identifier: Apache-2.0

package etcdtest

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/c8s-dev/c8s/test/privileged"
)

func TestNothingOutlivesTheCluster(t *testing.T) {
	binary, err := Binary()
	if err != nil {
		privileged.Missing(t, os.Getenv(privileged.RequireEnv), err.Error())
	}
	c, err := New(t.Context(), Options{Members: 3, Dir: t.TempDir(), Binary: binary})
	if err != nil {
		t.Fatal(err)
	}
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// A paused process must not be left behind either, nor one killed before.
	if err := c.Member(leader).Pause(); err != nil {
		t.Error(err)
	}
	if err := c.Member((leader + 1) % 3).Kill(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, m := range c.members {
		if err := syscall.Kill(m.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s is still there: %v", m.name, err)
		}
	}
}

func TestMemberKeepsItsDataOverARestart(t *testing.T) {
	c := Start(t, 1)
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Put(t.Context(), "k", "x"); err != nil {
		t.Fatal(err)
	}
	m := c.Member(0)
	if err := m.Restart(); err == nil {
		t.Error("restarted while running")
	}
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := m.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Get(t.Context(), "k"); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("after the restart: %v, %v", resp, err)
	}
}

func TestAProgramThatEndsIsReported(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "etcd")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho cannot go on >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), Options{Dir: dir, Binary: path})
	if err == nil || !strings.Contains(err.Error(), "cannot go on") {
		t.Errorf("%v, want what it said", err)
	}
}

// echo is a server behind a proxy, and a connection to it.
func echo(t *testing.T) (*proxy, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	p, err := newProxy(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		p.close()
		l.Close()
	})
	return p, c
}

func TestProxyLosesNothingByHealing(t *testing.T) {
	for _, tc := range []struct {
		name         string
		toward, back bool
	}{{"partitioned", true, true}, {"muted", false, true}, {"deaf", true, false}} {
		t.Run(tc.name, func(t *testing.T) {
			p, c := echo(t)
			got := make(chan string, 2)
			go func() {
				buf := make([]byte, 4)
				for range 2 {
					io.ReadFull(c, buf)
					got <- string(buf)
				}
			}()
			io.WriteString(c, "ping")
			if s := <-got; s != "ping" {
				t.Fatalf("echoed %q", s)
			}
			p.block(tc.toward, tc.back)
			io.WriteString(c, "pong")
			p.block(false, false)
			if s := <-got; s != "pong" {
				t.Errorf("after healing %q, want what was held up", s)
			}
		})
	}
}

func TestProxyDisconnects(t *testing.T) {
	p, c := echo(t)
	io.WriteString(c, "ping")
	io.ReadFull(c, make([]byte, 4))
	p.disconnect()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("still connected")
	}
	again, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	io.WriteString(again, "ping")
	if _, err := io.ReadFull(again, make([]byte, 4)); err != nil {
		t.Errorf("a new connection: %v", err)
	}
}
