// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// Addresses of a Service; nothing has them.
var serviceIPs = []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd96::10")}

// serviceNAT does what kube-proxy does: it rewrites the Service's addresses to
// a backend's before routing.
func serviceNAT(t *testing.T, n *lab.Node, backend *lab.Pod) {
	t.Helper()
	rules := fmt.Sprintf(`
table inet services {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr %s tcp dport 80 dnat ip to %s:8080
		ip6 daddr %s tcp dport 80 dnat ip6 to [%s]:8080
	}
}`, serviceIPs[0], backend.Addr4, serviceIPs[1], backend.Addr6)
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

func TestServiceAddressSurvivesTheNodesDNAT(t *testing.T) {
	t.Run("without the lock the rewriting works", func(t *testing.T) {
		lb := labtest.New(t, lab.Options{Nodes: []lab.NodeSpec{{Name: "a"}}})
		n := lb.Node("a")
		client, backend := labtest.Pod(t, n, lab.PodSpec{Name: "client"}), labtest.Pod(t, n, lab.PodSpec{Name: "backend"})
		serviceNAT(t, n, backend)
		for i, service := range serviceIPs {
			ln, err := backend.Listen("tcp", netip.AddrPortFrom(backend.Addrs()[i], 8080).String())
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				if c, err := ln.Accept(); err == nil {
					fmt.Fprintln(c, "backend")
					c.Close()
				}
			}()
			if got, err := hello(t, client.NS, netip.AddrPortFrom(service, 80)); err != nil || got != "backend" {
				t.Errorf("%s: got %q, %v", service, got, err)
			}
		}
	})
	for _, kind := range kinds {
		t.Run("with the lock/"+kind.String(), func(t *testing.T) {
			b := newBench(t, nil)
			b.routing(t)
			b.daemon(t)
			client, backend := b.pod(t, "client", kind, true), b.pod(t, "backend", kind, true)
			serviceNAT(t, b.Node, backend)
			for _, service := range serviceIPs {
				to := netip.AddrPortFrom(service, 80)
				if got, err := hello(t, client.NS, to); err != nil || !strings.HasPrefix(got, to.String()+" ") {
					t.Errorf("the daemon saw %q (%v), want destination %s", got, err, to)
				}
			}
		})
	}
}

// A client may use a port again while the daemon's side of the old connection
// is still in TIME_WAIT.
func TestReusedPortConnectsWhileTheOldConnectionIsInTimeWait(t *testing.T) {
	b := newBench(t, nil)
	b.routing(t)
	for network, addr := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0"} {
		lc := net.ListenConfig{Control: transparent}
		lc.SetMultipathTCP(false)
		err := b.Do(func() error {
			ln, err := lc.Listen(t.Context(), network, addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { ln.Close() })
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					fmt.Fprintln(c, "hello")
					c.Close() // first: TIME_WAIT is on this side
				}
			}()
			return b.l.SetListener(ln.(*net.TCPListener))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	p := b.pod(t, "p", lab.Routed, true)
	for _, src := range p.Addrs() {
		to := netip.AddrPortFrom(same(addrsOf(b.outside), src), 8080)
		for i := range 5 {
			began := time.Now()
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 40123)), Control: reuseAddr}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			c, err := p.DialWith(ctx, &d, "tcp", to.String())
			cancel()
			if err != nil {
				t.Fatalf("connection %d from %s:40123: %v after %s", i, src, err, time.Since(began))
			}
			if _, err := io.ReadAll(c); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
			c.Close()
		}
	}
}

func reuseAddr(_, _ string, c syscall.RawConn) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }); err != nil {
		return err
	}
	return inner
}

func TestStrictReversePathFilterDoesNotMind(t *testing.T) {
	lb := labtest.New(t, lab.Options{Nodes: []lab.NodeSpec{{Name: "a", Sysctls: map[string]string{"net.ipv4.conf.all.rp_filter": "1"}}}, Outside: []string{"stranger"}})
	b := benchIn(t, lb, nil)
	b.routing(t)
	b.daemon(t)
	for _, kind := range kinds {
		p := b.pod(t, kind.String(), kind, true)
		if _, err := hello(t, p.NS, netip.AddrPortFrom(b.outside.Addr4, 8080)); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestReversePathFilterThatUsesMarksIsReported(t *testing.T) {
	for _, mark := range []string{"0", "1"} {
		lb := labtest.New(t, lab.Options{
			Nodes: []lab.NodeSpec{{Name: "a", Sysctls: map[string]string{
				"net.ipv4.conf.all.rp_filter": "1", "net.ipv4.conf.all.src_valid_mark": mark,
			}}}, Outside: []string{"stranger"},
		})
		var log bytes.Buffer
		b := benchIn(t, lb, func(c *loader.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.l.Routing(ctx); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "src_valid_mark"); got != (mark == "1") {
			t.Errorf("src_valid_mark=%s: reported %t", mark, got)
		}
	}
}
