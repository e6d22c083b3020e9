// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// crossed is two nodes with a client and a server on each.
type crossed struct {
	*cluster.Cluster
	a, b     *cluster.Node
	out, in  netip.AddrPort // servers: out on node b, in on node a
	outgoing *cluster.Pod   // client on node a
	incoming *cluster.Pod   // client on node b
}

func newCrossed(t *testing.T, flags ...string) *crossed {
	t.Helper()
	c := &crossed{Cluster: newCluster(t, func(o *cluster.Options) { o.NodeFlags = flags })}
	c.a, c.b = c.Nodes[0], c.Nodes[1]
	c.outgoing, c.incoming = openPod(t, c.a, "client", lab.Routed), openPod(t, c.b, "client", lab.Bridged)
	serverA, serverB := openPod(t, c.a, "server", lab.Bridged), openPod(t, c.b, "server", lab.Routed)
	serveEcho(t, serverA)
	serveEcho(t, serverB)
	c.out, c.in = netip.AddrPortFrom(serverB.Addr4, echoPort), netip.AddrPortFrom(serverA.Addr6, echoPort)
	return c
}

// refusedInKernel is what the kernel drops while pods are locked or nobody
// listens.
func refusedInKernel(t *testing.T, n *cluster.Node) (sum uint64) {
	t.Helper()
	for reason, count := range drops(t, n) {
		if strings.Contains(reason, "locked") || strings.Contains(reason, "listener") || reason == "pod-unknown" {
			sum += count
		}
	}
	return sum
}

func TestUpgradeUnderLoadFailsNoConnection(t *testing.T) {
	c := newCrossed(t, "--drain=5s", "--instance=first")
	_, outEnded := standing(t, c.outgoing, c.out)
	_, inEnded := standing(t, c.incoming, c.in)
	out, in := startHammer(t, c.outgoing, c.out), startHammer(t, c.incoming, c.in)
	out.mustGoOn(t, 20)
	in.mustGoOn(t, 20)
	before := refusedInKernel(t, c.a)
	mustBeReady(t, c.a, "first", true)

	if err := c.a.Succeed("--instance=second"); err != nil {
		t.Fatal(err)
	}
	if err := c.a.WaitInstance(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	mustBeReady(t, c.a, "second", true)
	mustBeReady(t, c.a, "first", false)
	out.mustGoOn(t, 20)
	in.mustGoOn(t, 20)
	select {
	case err := <-outEnded:
		t.Errorf("an established connection ended too early: %v", err)
	case err := <-inEnded:
		t.Errorf("an established connection ended too early: %v", err)
	default:
	}

	// The drain time ends what does not end by itself, and the old daemon.
	for _, ended := range []<-chan error{outEnded, inEnded} {
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("an established connection ended with %v, want a reset", err)
		}
	}
	waitEnded(t, c.a.Former())
	if code := c.a.Former().ExitCode(); code != 0 || !strings.Contains(c.a.Former().Log(), "the drain time is over") {
		t.Errorf("the old daemon ended with %d:\n%s", code, c.a.Former().Log())
	}
	out.mustGoOn(t, 20)
	in.mustGoOn(t, 20)
	out.mustNotHaveFailed(t, "from the upgraded node")
	in.mustNotHaveFailed(t, "to the upgraded node")
	if after := refusedInKernel(t, c.a); after != before {
		t.Errorf("%d packets were refused: pods were not open all the time", after-before)
	}
	// The pod source is the new daemon's: pods come, and go.
	extra := openPod(t, c.a, "stranger", lab.Routed)
	if err := c.a.RemovePod(extra); err != nil {
		t.Fatal(err)
	}
}

func mustBeReady(t *testing.T, n *cluster.Node, instance string, want bool) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), binary, "node", "ready", "--run-dir", n.RunDir(), "--instance", instance).CombinedOutput()
	if (err == nil) != want {
		t.Errorf("%s is ready: %t, want %t: %s", instance, err == nil, want, out)
	}
}

func waitEnded(t *testing.T, f *cluster.Former) {
	t.Helper()
	for end := time.Now().Add(time.Minute); f.Running(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the old daemon does not end")
		}
	}
}

// Whatever becomes of the successor before it confirms, the old daemon serves.
func TestSuccessorThatDiesChangesNothing(t *testing.T) {
	c := newCrossed(t, "--instance=first")
	_, ended := standing(t, c.outgoing, c.out)
	out, in := startHammer(t, c.outgoing, c.out), startHammer(t, c.incoming, c.in)

	// One that has the sockets already.
	s, err := handover.Dial(t.Context(), filepath.Join(c.a.RunDir(), agent.HandoverSocket), "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := s.Take()
	if err != nil {
		t.Fatal(err)
	}
	files := taken.Sockets
	if len(taken.Pods) != 2 || len(taken.Memory) != 0 || files["pods-4"] == nil || files["pods-6"] == nil || files["tunnels"] == nil || files["metrics"] == nil {
		t.Fatalf("got %+v", taken)
	}
	for _, f := range files {
		f.Close()
	}
	s.Close()
	out.mustGoOn(t, 20)
	in.mustGoOn(t, 20)

	// Real ones, killed while they prepare: without the CDS they get no further.
	if err := c.CDS[0].Stop(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := c.a.Succeed("--instance=killed"); err != nil {
			t.Fatal(err)
		}
		former := c.a.Former()
		waitLog(t, former, "a new daemon prepares to take over", 2+i)
		if err := c.a.Kill(); err != nil {
			t.Fatal(err)
		}
		waitLog(t, former, "the new daemon did not take over", 2+i)
		c.a.Take(former)
		mustBeReady(t, c.a, "first", true)
		out.mustGoOn(t, 20)
		in.mustGoOn(t, 20)
	}
	if err := c.CDS[0].Start(); err != nil {
		t.Fatal(err)
	}
	out.mustNotHaveFailed(t, "from the node")
	in.mustNotHaveFailed(t, "to the node")
	select {
	case err := <-ended:
		t.Errorf("an established connection ended: %v", err)
	default:
	}
	// The next one even changes the form of an address that the old one has.
	if err := c.a.Succeed("--instance=second", fmt.Sprintf("--metrics-address=:%d", cluster.MetricsPort)); err != nil {
		t.Fatal(err)
	}
	if err := c.a.WaitInstance(t.Context(), "second"); err != nil {
		t.Error(err)
	}
}

// With the CDS away the successor cannot prepare, and the old daemon serves.
// When it dies, pods are locked until the successor has certificates.
func TestSuccessorOutlivesTheOldDaemon(t *testing.T) {
	c := newCrossed(t, "--instance=first")
	if err := c.CDS[0].Stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.a.Succeed("--instance=second"); err != nil {
		t.Fatal(err)
	}
	former := c.a.Former()
	waitLog(t, former, "a new daemon prepares to take over", 1)
	if conn, err := greeted(t.Context(), c.outgoing, c.out); err != nil {
		t.Errorf("while the successor prepares: %v", err)
	} else {
		conn.Close()
	}
	if err := former.Kill(); err != nil {
		t.Fatal(err)
	}
	mustGetNoAnswer(t, c.outgoing, c.out)
	if err := c.a.WaitInstance(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	mustGetNoAnswer(t, c.outgoing, c.out)
	if err := c.CDS[0].Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.outgoing.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
		t.Fatal(err)
	}
	if conn, err := greeted(t.Context(), c.outgoing, c.out); err != nil {
		t.Errorf("after the successor has enrolled: %v", err)
	} else {
		conn.Close()
	}
}

// waitLog waits until the log says something for the given time.
func waitLog(t *testing.T, f *cluster.Former, text string, times int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); strings.Count(f.Log(), text) < times; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log does not say %q:\n%s", text, f.Log())
		}
	}
}

// A daemon with other marks must not touch the kernel of one that runs.
func TestSuccessorWithOtherTermsIsRefused(t *testing.T) {
	c := newCrossed(t, "--instance=first")
	if err := c.a.Succeed("--instance=second", "--daemon-mark=0x3000"); err != nil {
		t.Fatal(err)
	}
	former := c.a.Former()
	for end := time.Now().Add(time.Minute); c.a.Running(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it goes on")
		}
	}
	if log := c.a.Log(); c.a.ExitCode() != 1 || !strings.Contains(log, "--daemon-mark is 0x2000 here and 0x3000 there") {
		t.Errorf("exit code %d:\n%s", c.a.ExitCode(), log)
	}
	c.a.Take(former)
	for _, way := range []struct {
		from *cluster.Pod
		to   netip.AddrPort
	}{{c.outgoing, c.out}, {c.incoming, c.in}} {
		conn, err := greeted(t.Context(), way.from, way.to)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

// What the old daemon still carries stays under the operators' word.
func TestDrainingDaemonObeysANewManifest(t *testing.T) {
	c := newCrossed(t, "--drain=5m", "--instance=first")
	_, ended := standing(t, c.outgoing, c.in) // both ends are the old daemon's
	if err := c.a.Succeed("--instance=second"); err != nil {
		t.Fatal(err)
	}
	if err := c.a.WaitInstance(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(t.Context(), func(m *policy.Manifest) {
		for i := range m.Workloads {
			m.Workloads[i].Peers.To, m.Workloads[i].Peers.From = nil, nil
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the established connection ended with %v, want a reset", err)
	}
	waitEnded(t, c.a.Former()) // it carries nothing any more
	if code := c.a.Former().ExitCode(); code != 0 || strings.Contains(c.a.Former().Log(), "the drain time is over") {
		t.Errorf("the old daemon ended with %d:\n%s", code, c.a.Former().Log())
	}
}

// Without a successor, new connections hear of the end at once and established
// ones may finish.
func TestTerminatedDaemonLetsConnectionsFinish(t *testing.T) {
	c := newCrossed(t, "--drain=1m")
	conn, ended := standing(t, c.outgoing, c.out)
	stopped := make(chan error, 1)
	go func() { stopped <- c.a.Stop() }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		fresh, err := greeted(t.Context(), c.outgoing, c.out)
		if errors.Is(err, syscall.ECONNRESET) {
			break
		}
		if err == nil {
			fresh.Close()
		}
		if time.Now().After(end) {
			t.Fatalf("new connections are not refused: %v", err)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("the established connection ended with %v", err)
	case <-stopped:
		t.Fatal("the daemon did not wait")
	default:
	}
	conn.Close()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if code := c.a.ExitCode(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, c.a.Log())
	}
	mustGetNoAnswer(t, c.outgoing, c.out)
}
