// SPDX-License-Identifier: Apache-2.0

package nri_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
)

const kubernetesPod = `apiVersion: v1
kind: ConfigMap
metadata: {name: cfg}
data: {app.conf: "x"}
---
apiVersion: v1
kind: Pod
metadata: {name: listed}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: local.test/app:1
    imagePullPolicy: Never
    args: [sleep]
    securityContext: {seccompProfile: {type: RuntimeDefault}}
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: disk, mountPath: /disk}
    - {name: fast, mountPath: /fast}
    - {name: cfg, mountPath: /etc/app.conf, subPath: app.conf}
  volumes:
  - {name: disk, emptyDir: {}}
  - {name: fast, emptyDir: {medium: Memory}}
  - {name: cfg, configMap: {name: cfg}}
---
apiVersion: v1
kind: Pod
metadata: {name: unlisted}
spec:
  restartPolicy: Never
  containers: [{name: main, image: "local.test/app:1", imagePullPolicy: Never, args: [env]}]
`

// What a real kubelet adds to every pod is known for what it is, and the reason
// of a refusal reaches whoever looks at the pod.
func TestPodsOfARealKubelet(t *testing.T) {
	runtime := builtRuntime(t)
	c := stack.NewCluster(t, stack.ClusterConfig{Nodes: 1, Node: stack.NodeConfig{RuntimeBinary: runtime}})
	n := onNode(t, c.Nodes[0])
	d, _ := n.serve(n.manifest(func(m *policy.Manifest) {
		m.Workloads[0].Images[0].Run.User = "65535:0" // the kubelet passes on the uid alone, and the image has no passwd file
		m.Workloads[0].Images[0].Run.Mounts = []policy.MountRule{
			{Destination: "/disk", Source: policy.MountEmptyDir}, {Destination: "/fast", Source: policy.MountMemory}, {Destination: "/etc/app.conf", Source: policy.MountConfigMap},
		}
	}))
	events := n.watch(d)
	if err := c.Apply(t.Context(), kubernetesPod); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(t.Context(), "wait", "--for=condition=Ready", "pod/listed", "--timeout=120s"); err != nil {
		text, _ := c.Kubectl(t.Context(), "describe", "pod", "listed")
		t.Fatalf("%v\n%s", err, text)
	}
	if e := <-events; e.Pod.Name != "listed" || e.Pod.Cgroup == "" {
		t.Errorf("%+v", e)
	}
	n.eventually("the reason stands in the pod's status", func() bool {
		text, err := c.Kubectl(t.Context(), "get", "pod", "unlisted", "-o", "json")
		if err != nil {
			return false
		}
		var pod struct {
			Status struct {
				ContainerStatuses []struct {
					State struct {
						Waiting struct{ Message string }
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(text), &pod); err != nil {
			t.Fatal(err)
		}
		for _, s := range pod.Status.ContainerStatuses {
			if s.State.Waiting.Message != "" {
				return strings.Contains(s.State.Waiting.Message, "args-not-allowed")
			}
		}
		return false
	})
}
