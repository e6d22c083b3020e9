// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/stack/component"
	"github.com/c8s-dev/c8s/test/stack/image"
)

// web is a server on every worker behind one service, of both IP versions,
// and a client.
const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: local.test/app:1
        imagePullPolicy: Never
        args: [serve]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        resources: {limits: {memory: 64Mi, cpu: 500m}}
        securityContext: {seccompProfile: {type: RuntimeDefault}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  clusterIP: 10.96.5.5
  clusterIPs: [10.96.5.5, "fd98::5"]
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80, targetPort: 9000}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: "local.test/app:1", imagePullPolicy: Never, args: [sleep]}
`

func TestCluster(t *testing.T) {
	c := NewCluster(t, ClusterConfig{})
	ctx := t.Context()
	app, err := image.App(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Import(ctx, app); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(ctx, web); err != nil {
		t.Fatal(err)
	}
	if err := c.Rollout(ctx, "deployment/web"); err != nil {
		t.Fatal(err)
	}
	if out, err := c.Kubectl(ctx, "wait", "pod/client", "--for=condition=Ready", "--timeout=2m"); err != nil {
		t.Fatal(err, out)
	}
	t.Run("service answers from both workers", func(t *testing.T) {
		for _, service := range []string{"10.96.5.5:80", "[fd98::5]:80"} {
			heard := map[string]bool{}
			err := Poll(ctx, "two pods to answer at "+service, func(ctx context.Context) error {
				out, err := c.Kubectl(ctx, "exec", "client", "--", "/app", "dial", "tcp", service, "hello")
				if err != nil {
					return err
				}
				var got struct{ Answer string }
				if err := json.Unmarshal([]byte(out), &got); err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				name, _ := strings.CutSuffix(got.Answer, " hello")
				if heard[name] = true; len(heard) < 2 {
					return fmt.Errorf("only %v so far", heard)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		out, err := c.Kubectl(ctx, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}")
		if err != nil || !strings.Contains(out, "worker1") || !strings.Contains(out, "worker2") {
			t.Errorf("servers run on %q (%v), want one on each worker", out, err)
		}
	})
	t.Run("kubelet has a cgroup of its own", func(t *testing.T) {
		procs, err := os.ReadFile(c.Nodes[0].Cgroup("/system.slice/kubelet.service/cgroup.procs"))
		if err != nil || len(strings.Fields(string(procs))) != 1 {
			t.Errorf("its processes are %q (%v), want only the kubelet", procs, err)
		}
		if pods, err := os.ReadDir(c.Nodes[0].Cgroup("/kubepods")); err != nil || len(pods) == 0 {
			t.Errorf("no pods' cgroups are below /kubepods: %v", err)
		}
	})
	t.Run("pods go on without the API server", func(t *testing.T) {
		if err := c.StopAPI(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(ctx, "/readyz"); err == nil {
			t.Error("the API server still answers")
		}
		cri, err := c.Nodes[0].CRI()
		if err != nil {
			t.Fatal(err)
		}
		if pods, err := cri.ListPods(ctx); err != nil || len(pods) == 0 {
			t.Errorf("worker1 runs %d pods (%v)", len(pods), err)
		}
		if err := c.StartAPI(ctx); err != nil {
			t.Fatal(err)
		}
		if out, err := c.Kubectl(ctx, "rollout", "restart", "deployment/web"); err != nil {
			t.Fatal(err, out)
		}
		if err := c.Rollout(ctx, "deployment/web"); err != nil {
			t.Error(err)
		}
	})
	t.Run("close leaves nothing", func(t *testing.T) {
		var networks []func() []int
		for _, n := range c.machines() {
			networks = append(networks, network(t, n.Pid()))
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.machines() {
			if left := traces(t, n.scratch.id, n.scratch.dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
		for _, processes := range networks {
			if pids := processes(); len(pids) > 0 {
				t.Errorf("processes %v are left", pids)
			}
		}
	})
}

func TestClusterThatCannotComeUpLeavesNothing(t *testing.T) {
	before := NewNode(t, NodeConfig{NoContainerd: true}) // also: needs root
	broken := ClusterConfig{Nodes: 1, Node: NodeConfig{ExtraConfig: map[string]string{"broken.toml": "version = nonsense"}}}
	c, err := UpCluster(t.Context(), broken)
	if err == nil {
		t.Fatal(errors.Join(errors.New("came up with a containerd that cannot"), c.Close()))
	}
	if errors.Is(err, component.ErrNotBuilt) {
		privileged.Missing(t, os.Getenv(privileged.RequireEnv), err.Error())
	}
	if !strings.Contains(err.Error(), "nonsense") && !strings.Contains(err.Error(), "broken.toml") {
		t.Errorf("the error does not say why: %v", err)
	}
	entries, err := os.ReadDir(locks)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != before.scratch.id && strings.HasPrefix(e.Name(), fmt.Sprintf("%s%d-", prefix, os.Getpid())) {
			t.Errorf("%s is left", e.Name())
		}
	}
}
