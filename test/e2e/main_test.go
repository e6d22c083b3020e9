// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the whole system from the outside: real daemons (built
// with the race detector), real kernel programs, unmodified clients.
package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/cds/store/etcdtest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/privileged"
)

var (
	binary string
	vendor string // folder of the simulated vendor, for all tests
)

// binaryEnv names a c8s that was built elsewhere, where there is no Go: in the
// guests of test/kernels.
const binaryEnv = "C8S_E2E_BINARY"

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if spec := os.Getenv(dialerEnv); spec != "" {
		if err := runDialer(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	dir, err := os.MkdirTemp("", "c8s-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary, vendor = filepath.Join(dir, "c8s"), filepath.Join(dir, "sim")
	if made := os.Getenv(binaryEnv); made != "" {
		binary = made
		return m.Run()
	}
	build := exec.Command("go", "build", "-race", "-o", binary, "github.com/c8s-dev/c8s/cmd/c8s")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building c8s: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// etcdBinary is the etcd that "make etcd" built.
func etcdBinary(t *testing.T) string {
	t.Helper()
	path, err := etcdtest.Binary()
	if err != nil {
		privileged.Missing(t, os.Getenv(privileged.RequireEnv), err.Error())
	}
	return path
}

const (
	echoPort   = 7000
	closedPort = 7001 // allowed by the manifest, nobody listens
	otherPort  = 7002 // not in the manifest
)

// image returns a digest that stands for the image of that name.
func image(name string) string { return string(policy.DigestOf([]byte("image " + name))) }

func workload(name string) policy.Workload {
	return policy.Workload{Name: name, Images: []policy.Image{{Name: name, Digest: policy.Digest(image(name))}}}
}

func rule(peer string, ports ...uint16) policy.PeerRule {
	return policy.PeerRule{Workload: peer, Ports: ports, Protocol: policy.ProtocolTCP}
}

// workloads: client may reach server; stranger is listed and may reach nobody.
func workloads() []policy.Workload {
	client, server, stranger := workload("client"), workload("server"), workload("stranger")
	client.Peers.To = []policy.PeerRule{rule("server", echoPort, closedPort)}
	server.Peers.From = []policy.PeerRule{rule("client", echoPort, closedPort)}
	return []policy.Workload{client, server, stranger}
}

func newCluster(t *testing.T, change ...func(*cluster.Options)) *cluster.Cluster {
	t.Helper()
	privileged.Require(t)
	o := cluster.Options{
		Binary: binary, Name: "e2e", Nodes: []string{"node-a", "node-b"}, Outside: []string{"outside"}, Workloads: workloads(), SimDir: vendor,
	}
	for _, f := range change {
		f(&o)
	}
	c, err := cluster.New(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for name, log := range c.Logs() {
				t.Logf("log of %s:\n%s", name, log)
			}
		}
		for name, log := range c.Saying("DATA RACE") {
			t.Errorf("the race detector spoke in %s:\n%s", name, log)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func podPrefixes(c *cluster.Cluster) (all []netip.Prefix) {
	for _, n := range c.Lab.Nodes() {
		all = append(all, n.PodCIDR4, n.PodCIDR6)
	}
	return all
}

func addPod(t *testing.T, n *cluster.Node, name string, kind lab.Kind) *cluster.Pod {
	t.Helper()
	p, err := n.AddPod(t.Context(), name, lab.PodSpec{Name: name, Kind: kind, Images: []string{image(name)}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func openPod(t *testing.T, n *cluster.Node, name string, kind lab.Kind) *cluster.Pod {
	t.Helper()
	p := addPod(t, n, name, kind)
	if err := p.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
		t.Fatal(err)
	}
	return p
}

// serveEcho answers with the address it sees, then echoes until the client
// stops sending.
func serveEcho(t *testing.T, p *cluster.Pod) {
	t.Helper()
	for _, addr := range []netip.Addr{p.Addr4, p.Addr6} {
		ln, err := p.Listen("tcp", netip.AddrPortFrom(addr, echoPort).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					fmt.Fprintf(conn, "%s\n", conn.RemoteAddr())
					_, _ = io.Copy(conn, conn)
				}()
			}
		}()
	}
}

// connect dials from a pod and returns the connection and the source address
// the server saw.
func connect(t *testing.T, from *cluster.Pod, to netip.AddrPort) (net.Conn, netip.AddrPort, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var line []byte
	for one := make([]byte, 1); ; {
		if _, err := io.ReadFull(conn, one); err != nil {
			conn.Close()
			return nil, netip.AddrPort{}, err
		}
		if one[0] == '\n' {
			break
		}
		line = append(line, one[0])
	}
	seen, err := netip.ParseAddrPort(string(line))
	if err != nil {
		t.Fatal(err)
	}
	return conn, seen, nil
}

// echo sends data, half-closes, and returns what comes back.
func echo(conn net.Conn, data string) (string, error) {
	defer conn.Close()
	if _, err := io.WriteString(conn, data); err != nil {
		return "", err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	back, err := io.ReadAll(conn)
	return string(back), err
}
