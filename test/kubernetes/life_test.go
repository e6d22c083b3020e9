// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
)

// life has a server, a client that makes connections all the time, one that
// keeps its only one, and one that nobody lets in.
const life = `
apiVersion: v1
kind: Namespace
metadata: {name: life}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: life}
spec:
  selector: {app: echo}
  clusterIP: 10.96.8.8
  ports: [{port: 9000}]
---
apiVersion: v1
kind: Pod
metadata: {name: echo, namespace: life, labels: {app: echo}}
spec:
  nodeName: worker1
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: local.test/app:1
    imagePullPolicy: Never
    args: [serve, -name, echo]
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`

// clients are those of life, each with its own command line.
var clients = map[string][]string{
	"flood":    {"flood", "10.96.8.8:9000", "20ms"},
	"hold":     {"hold", "10.96.8.8:9000", "50ms"},
	"intruder": {"flood", "10.96.8.8:9000", "50ms"},
}

// clientPod is one of them as YAML, under a name of its own.
func clientPod(name, entry string) string {
	args, _ := json.Marshal(clients[entry])
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: life, annotations: {c8s.dev/workload: %s}}
spec:
  nodeName: worker2
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "local.test/app:1", imagePullPolicy: Never, args: %s}]
`, name, entry, args)
}

// lifeEntries are those of life. The intruder is listed, and allowed nothing.
func (s *Site) lifeEntries() []policy.Workload {
	of := func(name string, args []string) policy.Workload {
		return policy.Workload{Name: name, Namespaces: []string{"life"}, Images: []policy.Image{{
			Name: s.App.Ref, Digest: policy.Digest(s.App.Config), Run: &policy.Run{Args: append([]string{"/app"}, args...), ServiceEnv: true},
		}}}
	}
	echo := of("echo", []string{"serve", "-name", "echo"})
	echo.Probes = []uint16{8080}
	entries := []policy.Workload{echo}
	for name, args := range clients {
		w := of(name, args)
		if name != "intruder" {
			w.Peers.To = []policy.PeerRule{{Workload: "echo", Ports: []uint16{9000}, Protocol: policy.ProtocolTCP}}
			entries[0].Peers.From = append(entries[0].Peers.From, policy.PeerRule{Workload: name, Ports: []uint16{9000}, Protocol: policy.ProtocolTCP})
		}
		entries = append(entries, w)
	}
	return entries
}

// tally is what a client has said so far, in all its lives.
type tally struct {
	Good, Bad, Held, Lives int
	Millis                 []int // the longest connection of each 20
	Failures               []string
}

// Tally reads what a pod of life said, without the API server.
func (s *Site) Tally(n *stack.Node, pod string) (t tally, err error) {
	files, err := filepath.Glob(n.Path("/var/log/pods/life_" + pod + "_*/main/*.log"))
	if err != nil {
		return t, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return t, err
		}
		t.Lives++
		var last tally
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			_, said, ok := strings.Cut(lines.Text(), " F ") // the kubelet's log format: time, stream, full line
			if !ok {
				continue
			}
			var line struct {
				Good, Bad, Held int
				LongestMillis   int
				Failed          string
			}
			if err := json.Unmarshal([]byte(said), &line); err != nil {
				last.Failures = append(last.Failures, said)
				continue
			}
			if line.Good+line.Bad > 0 {
				last.Good, last.Bad = line.Good, line.Bad
				t.Millis = append(t.Millis, line.LongestMillis)
			}
			if line.Failed != "" {
				last.Failures = append(last.Failures, line.Failed)
			}
			last.Held = max(last.Held, line.Held)
		}
		t.Good, t.Bad, t.Held = t.Good+last.Good, t.Bad+last.Bad, t.Held+last.Held
		t.Failures = append(t.Failures, last.Failures...)
	}
	return t, nil
}

// more waits until a client of life has done that much more than it had.
func (s *Site) more(ctx context.Context, pod string, since tally, good, held int) (now tally, err error) {
	err = s.until(ctx, pod+" to go on", func() error {
		var err error
		if now, err = s.Tally(s.Nodes[1], pod); err != nil {
			return err
		}
		if now.Good < since.Good+good || now.Held < since.Held+held {
			return fmt.Errorf("it has %d good, %d held, and had %d and %d; failures: %v", now.Good, now.Held, since.Good, since.Held, now.Failures)
		}
		return nil
	})
	return now, err
}

// talking starts a pod that keeps a connection, and waits until it has one: the
// pod of an earlier connection that was lost would wait before it tries again.
func (s *Site) talking(ctx context.Context) (pod string, now tally, err error) {
	s.holds++
	pod = fmt.Sprintf("hold-%d", s.holds)
	if err := s.Apply(ctx, clientPod(pod, "hold")); err != nil {
		return pod, now, err
	}
	if err := s.ready(ctx, pod); err != nil {
		return pod, now, err
	}
	now, err = s.more(ctx, pod, now, 0, 1)
	return pod, now, err
}

// daemons are the processes of node daemons on a node.
func (s *Site) daemons(n *stack.Node) (pids []int, err error) {
	err = filepath.WalkDir(n.Cgroup("/kubepods"), func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil || d.Name() != "cgroup.procs" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		for _, field := range strings.Fields(string(text)) {
			args, err := os.ReadFile("/proc/" + field + "/cmdline")
			if err != nil || !bytes.HasPrefix(args, []byte("/c8s\x00node\x00--")) {
				continue
			}
			pid, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			pids = append(pids, pid)
		}
		return nil
	})
	return pids, err
}

// owner waits for a node daemon that can take pods, and is another one than
// before.
func (s *Site) owner(ctx context.Context, n *stack.Node, before string) (instance string, err error) {
	err = s.until(ctx, "a node daemon on "+n.Name(), func() error {
		status, err := s.Status(ctx, n)
		switch {
		case err != nil:
			return err
		case status.Node.NotReady != "":
			return errors.New(status.Node.NotReady)
		case status.Node.Instance == before:
			return fmt.Errorf("it is still %s", before)
		}
		instance = status.Node.Instance
		return nil
	})
	return instance, err
}

// podStatus is what a node says of a pod, nil if it does not know it.
func podStatus(s *agent.Status, pod string) *agent.PodStatus {
	for i := range s.Pods {
		if s.Pods[i].Pod == pod {
			return &s.Pods[i]
		}
	}
	return nil
}

// ready waits for pods of life.
func (s *Site) ready(ctx context.Context, pods ...string) error {
	for _, pod := range pods {
		if out, err := s.Kubectl(ctx, "wait", "-n", "life", "pod/"+pod, "--for=condition=Ready", "--timeout=2m"); err != nil {
			events, _ := s.Kubectl(ctx, "get", "events", "-n", "life", "--field-selector=involvedObject.name="+pod)
			return fmt.Errorf("%w: %s: %s", err, out, events)
		}
	}
	return nil
}

// event waits until an event of a pod of life says something.
func (s *Site) event(ctx context.Context, pod, text string) error {
	return s.until(ctx, fmt.Sprintf("an event of %s with %q", pod, text), func() error {
		out, err := s.Kubectl(ctx, "get", "events", "-n", "life", "--field-selector=involvedObject.name="+pod, "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}")
		if err == nil && !strings.Contains(out, text) {
			err = fmt.Errorf("they say: %s", out)
		}
		return err
	})
}
