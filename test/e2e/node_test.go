// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

func dialFrom(t *testing.T, h *lab.Host, to netip.AddrPort, within time.Duration) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return h.Dial(ctx, "tcp", to.String())
}

func drops(t *testing.T, n *cluster.Node) map[string]uint64 {
	t.Helper()
	s, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Drops
}

// onNode runs a program in the node's namespace and returns its output.
func onNode(t *testing.T, n *cluster.Node, name string, args ...string) string {
	t.Helper()
	out, err := n.Lab.Command(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// kernelState lists what c8s has in the node's kernel, outside the programs.
func kernelState(t *testing.T, n *cluster.Node) (all []string) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		for _, line := range strings.Split(onNode(t, n, "ip", family, "rule", "show"), "\n") {
			if strings.Contains(line, "15008") {
				all = append(all, "rule "+family+" "+line)
			}
		}
		for _, line := range strings.Split(onNode(t, n, "ip", family, "route", "show", "table", "all"), "\n") {
			if strings.Contains(line, "table 15008") {
				all = append(all, "route "+family+" "+line)
			}
		}
	}
	if tables := onNode(t, n, "nft", "list", "tables"); strings.Contains(tables, "c8s") {
		all = append(all, "nft "+tables)
	}
	if entries, err := os.ReadDir(filepath.Join(n.BPFFS, "c8s")); err == nil && len(entries) > 0 {
		all = append(all, "pins")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return all
}

func TestUninstallLeavesNothingAndOpensThePods(t *testing.T) {
	c := newCluster(t)
	node := c.Nodes[0]
	client := openPod(t, node, "client", lab.Routed)
	outside := c.Lab.Outside("outside")
	to := netip.AddrPortFrom(outside.Addr4, echoPort)
	ln, err := outside.Listen("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if got := kernelState(t, node); len(got) != 6 {
		t.Errorf("a running node has %d things in the kernel, want rule and route twice, a table and pins:\n%s", len(got), strings.Join(got, "\n"))
	}
	if err := node.Stop(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if out, err := node.Lab.Command(t.Context(), binary, "node", "uninstall", "--bpffs", node.BPFFS).CombinedOutput(); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("without --yes: %v, want exit code 2\n%s", err, out)
	}
	if conn, err := client.Dial(timeout(t, time.Second), "tcp", to.String()); err == nil {
		conn.Close()
		t.Error("the pod got out before the lock was removed")
	}
	for range 2 { // repeating it is no error
		onNode(t, node, binary, "node", "uninstall", "--yes", "--bpffs", node.BPFFS, "--uplink", lab.Uplink)
	}
	if got := kernelState(t, node); len(got) != 0 {
		t.Errorf("left behind:\n%s", strings.Join(got, "\n"))
	}
	conn, err := client.Dial(timeout(t, 10*time.Second), "tcp", to.String())
	if err != nil {
		t.Fatalf("an unlocked pod: %v", err)
	}
	conn.Close()
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestFlushedRulesHealAndNothingLeavesInTheClear(t *testing.T) {
	c := newCluster(t)
	node := c.Nodes[0]
	client, server := openPod(t, node, "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Bridged)
	serveEcho(t, server)
	to := netip.AddrPortFrom(server.Addr4, echoPort)
	wire, err := capture.Start(c.Lab.Wire, lab.WireBridge, capture.Options{Pods: podPrefixes(c)})
	if err != nil {
		t.Fatal(err)
	}
	for _, flush := range [][]string{
		{"ip", "rule", "del", "pref", "100"},
		{"ip", "-6", "rule", "del", "pref", "100"},
		{"ip", "route", "flush", "table", "15008"},
		{"nft", "flush", "ruleset"},
	} {
		t.Run(strings.Join(flush, " "), func(t *testing.T) {
			want := kernelState(t, node)
			onNode(t, node, flush[0], flush[1:]...)
			began := time.Now()
			for healed := false; !healed; time.Sleep(20 * time.Millisecond) {
				if conn, _, err := connect(t, client, to); err == nil {
					conn.Close()
					healed = slices.Equal(kernelState(t, node), want)
				}
				if time.Since(began) > 20*time.Second {
					t.Fatalf("not healed: has %v, want %v", kernelState(t, node), want)
				}
			}
			t.Logf("healed after %s", time.Since(began))
		})
	}
	report := wire.Stop()
	if err := report.Complete(); err != nil || report.Tunnel == 0 {
		t.Errorf("capture of %d tunnel packets proves nothing: %v", report.Tunnel, err)
	}
	if len(report.Plain) != 0 {
		t.Errorf("on the wire in the clear: %v", report.Plain)
	}
}

func TestStatusAndFlowsAsJSON(t *testing.T) {
	c := newCluster(t)
	node := c.Nodes[0]
	client, server := openPod(t, node, "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Routed)
	serveEcho(t, server)
	mustBeRefused(t, client, netip.AddrPortFrom(server.Addr4, otherPort))

	var status agent.Status
	if err := json.Unmarshal([]byte(onNode(t, node, binary, "status", "-o", "json", "--run-dir", node.RunDir())), &status); err != nil {
		t.Fatal(err)
	}
	if len(status.Pods) != 1 || status.Pods[0].State != agent.StateOpen || status.Pods[0].UID != client.UID || status.Node.ID == "" || !status.Simulated {
		t.Errorf("status %+v", status)
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(onNode(t, node, binary, "flows", "-o", "json", "-n", "100", "--verdict", "refused", "--reason", "port-not-allowed", "--run-dir", node.RunDir()))))
	dec.DisallowUnknownFields()
	n := 0
	for ; dec.More(); n++ {
		var r flow.Record
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.Reason != "port-not-allowed" || r.SrcWorkload != "client" {
			t.Errorf("record %+v", r)
		}
	}
	if n != 1 {
		t.Errorf("%d records, want 1", n)
	}
	if text := onNode(t, node, binary, "status", "--run-dir", node.RunDir()); !strings.Contains(text, "default/client") {
		t.Errorf("as text:\n%s", text)
	}
	out, err := node.Lab.Command(t.Context(), binary, "status", "--run-dir", t.TempDir()).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "is `c8s node` running") {
		t.Errorf("without a daemon: %v\n%s", err, out)
	}
}

func TestTerminatedDaemonEndsWellWithinSeconds(t *testing.T) {
	c := newCluster(t)
	node := c.Nodes[0]
	client, server := openPod(t, node, "client", lab.Routed), openPod(t, c.Nodes[1], "server", lab.Routed)
	serveEcho(t, server)
	conn, _, err := connect(t, client, netip.AddrPortFrom(server.Addr4, echoPort))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	if err := node.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	if code := node.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, node.Log())
	}
}
