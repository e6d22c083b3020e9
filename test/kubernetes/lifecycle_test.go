// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/policy"
)

// testLife starts the pods of life, which the manifest lists from now on.
func testLife(t *testing.T, s *Site) {
	ctx := t.Context()
	must(t, s.Publish(ctx, func(m *policy.Manifest) { m.Workloads = append(m.Workloads, s.lifeEntries()...) }))
	must(t, s.Apply(ctx, life))
	must(t, s.ready(ctx, "echo"))
	must(t, s.Apply(ctx, clientPod("flood", "flood")+clientPod("intruder", "intruder")))
	must(t, s.ready(ctx, "flood", "intruder"))
	if _, err := s.more(ctx, "flood", tally{}, 20, 0); err != nil {
		t.Error(err)
	}
}

// The kubelet reaches a pod on the ports that its entry lists, and nothing else
// of the node reaches it at all.
func testProbes(t *testing.T, s *Site) {
	ctx := t.Context()
	deaf := strings.NewReplacer("name: echo, namespace: life, labels: {app: echo}", "name: deaf, namespace: life",
		"httpGet: {port: 8080}", "tcpSocket: {port: 9000}").Replace(life[strings.LastIndex(life, "---"):])
	must(t, s.Apply(ctx, deaf))
	must(t, s.event(ctx, "deaf", "Readiness probe failed"))
	if out, err := s.Kubectl(ctx, "get", "pod", "-n", "life", "deaf", "-o", "jsonpath={.status.containerStatuses[0].ready} {.status.containerStatuses[0].started}"); err != nil || out != "false true" {
		t.Errorf("a pod that is probed on a port its entry does not list is ready, started: %s, %v", out, err)
	}
	ip, err := s.Kubectl(ctx, "get", "pod", "-n", "life", "echo", "-o", "jsonpath={.status.podIP}")
	must(t, err)
	for _, port := range []string{"8080", "9000"} {
		if out, err := s.Nodes[0].Run(ctx, "timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/"+ip+"/"+port+" && echo connected"); err == nil {
			t.Errorf("a process of the node connects to port %s: %s", port, out)
		}
	}
	if out, err := s.Kubectl(ctx, "get", "pod", "-n", "life", "echo", "-o", "jsonpath={.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount}"); err != nil || out != "true 0" {
		t.Errorf("the probed pod is ready, restarts: %s, %v", out, err)
	}
	_, err = s.Kubectl(ctx, "delete", "pod", "-n", "life", "deaf", "--wait=false")
	must(t, err)
}

// What talks goes on talking without the API server, and new connections come
// about. When it is back, new pods are followed.
func testWithoutAPI(t *testing.T, s *Site) {
	ctx := t.Context()
	pod, hold, err := s.talking(ctx)
	must(t, err)
	must(t, s.StopAPI())
	started := false
	defer func() {
		if !started {
			must(t, s.StartAPI(context.WithoutCancel(ctx)))
		}
	}()
	flood, err := s.Tally(s.Nodes[1], "flood")
	must(t, err)
	now, err := s.more(ctx, "flood", flood, 60, 0)
	if err != nil || now.Bad != flood.Bad {
		t.Errorf("new connections: %v, %d failed before, %d after: %v", err, flood.Bad, now.Bad, now.Failures)
	}
	if now, err := s.more(ctx, pod, hold, 0, 20); err != nil || now.Lives != hold.Lives {
		t.Errorf("the connection that was there: %v, %d lives before, %d after: %v", err, hold.Lives, now.Lives, now.Failures)
	}
	started = true
	must(t, s.StartAPI(ctx))
	must(t, s.Apply(ctx, strings.Replace(life[strings.LastIndex(life, "---"):], "name: echo,", "name: echo-2,", 1)))
	must(t, s.ready(ctx, "echo-2"))
	ip, err := s.Kubectl(ctx, "get", "pod", "-n", "life", "echo-2", "-o", "jsonpath={.status.podIP}")
	must(t, err)
	must(t, s.until(ctx, "connections to the new pod", func() error {
		records, err := s.Flows(ctx, s.Nodes[1])
		if err != nil {
			return err
		}
		for _, r := range records {
			if r.SrcWorkload == "flood" && r.Endpoint.Addr().String() == ip {
				return nil
			}
		}
		return fmt.Errorf("none to %s", ip)
	}))
	before, err := s.Tally(s.Nodes[1], "flood")
	must(t, err)
	_, err = s.Kubectl(ctx, "delete", "pod", "-n", "life", "echo-2")
	must(t, err)
	_, err = s.more(ctx, "flood", before, 40, 0)
	must(t, err)
}

// A daemon that dies leaves pods locked, comes back by itself, and so does the
// traffic.
func testDaemonKilled(t *testing.T, s *Site) {
	ctx := t.Context()
	n := s.Nodes[1]
	packets, stop := watchLeaks(t, s, n)
	for _, how := range []struct {
		name string
		end  func() error
	}{
		{"killed", func() error {
			pids, err := s.daemons(n)
			if err != nil || len(pids) != 1 {
				return fmt.Errorf("daemons: %v, %v", pids, err)
			}
			return syscall.Kill(pids[0], syscall.SIGKILL)
		}},
		{"pod deleted", func() error {
			status, err := s.Status(ctx, n)
			if err != nil {
				return err
			}
			_, err = s.Kubectl(ctx, "delete", "pod", "-n", systemNamespace, status.Node.Instance, "--wait=false")
			return err
		}},
	} {
		pids, err := s.daemons(n)
		must(t, err)
		began := time.Now()
		must(t, how.end())
		must(t, s.until(ctx, "another daemon", func() error {
			now, err := s.daemons(n)
			if err == nil && (len(now) != 1 || now[0] == pids[0]) {
				err = fmt.Errorf("there are %v", now)
			}
			return err
		}))
		_, err = s.owner(ctx, n, "")
		must(t, err)
		before, err := s.Tally(n, "flood")
		must(t, err)
		now, err := s.more(ctx, "flood", before, 40, 0)
		must(t, err)
		t.Logf("%s: traffic again after %s; %d connections failed so far", how.name, time.Since(began).Round(time.Millisecond), now.Bad)
	}
	stop()
	if count, seen := packets.found(); count != 0 {
		t.Errorf("%d packets left the node in the clear: %v", count, seen)
	}
	if intruder, err := s.Tally(n, "intruder"); err != nil || intruder.Good != 0 || intruder.Bad == 0 {
		t.Errorf("the intruder got through: %+v, %v", intruder, err)
	}
}

// Restarts of containerd and the kubelet disturb no pod.
func testRestarts(t *testing.T, s *Site) {
	ctx := t.Context()
	n := s.Nodes[1]
	flood, err := s.Tally(n, "flood")
	must(t, err)
	pod, hold, err := s.talking(ctx)
	must(t, err)
	must(t, n.RestartContainerd(ctx))
	_, err = s.owner(ctx, n, "")
	must(t, err)
	must(t, n.Process("kubelet").Kill())
	must(t, s.StartKubelet(ctx, n))
	late := strings.NewReplacer("name: echo, namespace: life, labels: {app: echo}", "name: late, namespace: life", "worker1", "worker2").Replace(life[strings.LastIndex(life, "---"):])
	must(t, s.Apply(ctx, late))
	must(t, s.ready(ctx, "late")) // by the new kubelet's probe
	if now, err := s.more(ctx, "flood", flood, 20, 0); err != nil || now.Bad != flood.Bad {
		t.Errorf("new connections: %v, %d failed before, %d after: %v", err, flood.Bad, now.Bad, now.Failures)
	}
	if now, err := s.more(ctx, pod, hold, 0, 20); err != nil || now.Lives != hold.Lives {
		t.Errorf("the connection that was there: %v, %d lives before, %d after: %v", err, hold.Lives, now.Lives, now.Failures)
	}
	_, err = s.Kubectl(ctx, "delete", "pod", "-n", "life", "late")
	must(t, err)
}

// Without the CDS pods go on, and a new one waits and says why.
func testWithoutCDS(t *testing.T, s *Site) {
	ctx := t.Context()
	n := s.Nodes[1]
	_, err := s.Kubectl(ctx, "scale", "-n", systemNamespace, "statefulset/c8s-cds", "--replicas=0")
	must(t, err)
	must(t, s.gone(ctx, systemNamespace, "pod/c8s-cds-0"))
	flood, err := s.Tally(n, "flood")
	must(t, err)
	late := strings.NewReplacer("name: echo, namespace: life, labels: {app: echo}", "name: waits, namespace: life", "worker1", "worker2").Replace(life[strings.LastIndex(life, "---"):])
	must(t, s.Apply(ctx, late))
	must(t, s.until(ctx, "the reason in the node's status", func() error {
		status, err := s.Status(ctx, n)
		if err != nil {
			return err
		}
		if p := podStatus(status, "life/waits"); p == nil || p.State != agent.StateAdmitted || p.Reason == "" {
			return fmt.Errorf("it says %+v", p)
		}
		return nil
	}))
	metrics, err := s.metrics(ctx, n)
	if err != nil || !strings.Contains(metrics, `c8s_pods{state="admitted"} 1`) {
		t.Errorf("metrics: %v, %.2000s", err, metrics)
	}
	must(t, s.event(ctx, "waits", "pod-not-open"))
	must(t, s.event(ctx, "waits", "reaching the CDS"))
	if now, err := s.more(ctx, "flood", flood, 40, 0); err != nil || now.Bad != flood.Bad {
		t.Errorf("new connections: %v, %d failed before, %d after: %v", err, flood.Bad, now.Bad, now.Failures)
	}
	_, err = s.Kubectl(ctx, "scale", "-n", systemNamespace, "statefulset/c8s-cds", "--replicas=1")
	must(t, err)
	must(t, s.ready(ctx, "waits"))
	_, err = s.Kubectl(ctx, "delete", "pod", "-n", "life", "waits")
	must(t, err)
}

// gone waits until an object is not there any more.
func (s *Site) gone(ctx context.Context, namespace, object string) error {
	_, err := s.Kubectl(ctx, "wait", "-n", namespace, object, "--for=delete", "--timeout=2m")
	return err
}

// metrics are those of a node's daemon.
func (s *Site) metrics(ctx context.Context, n interface {
	Run(context.Context, ...string) (string, error)
},
) (string, error) {
	return n.Run(ctx, "bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/15020 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && cat <&3`)
}

// Every guarantee holds on a node with everything running, and what people look
// at is readable.
func testNodeCheck(t *testing.T, s *Site) {
	ctx := t.Context()
	for _, n := range s.Nodes {
		out, err := n.Run(ctx, s.program("c8s"), "node", "check", "--try")
		if err != nil || strings.Contains(out, "FAIL") || strings.Contains(out, "UNKNOWN") || strings.Count(out, "tried: ") < 3 {
			t.Errorf("%v\n%s", err, out)
		}
	}
	for command, words := range map[string][]string{
		"status": {"worker2", "life/flood", "open", "SIMULATED"},
		"flows":  {"(flood)", "[life/echo]", "(echo)", "allowed", "(intruder)", "peer-not-allowed"},
	} {
		out, err := s.Nodes[1].Run(ctx, s.program("c8s"), command)
		must(t, err)
		for _, word := range words {
			if !strings.Contains(out, word) {
				t.Errorf("c8s %s does not say %q:\n%s", command, word, out)
			}
		}
		if os.Getenv("C8S_SHOW") != "" {
			t.Log(out)
		}
	}
}
