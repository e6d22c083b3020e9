// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/test/stack"
)

// shop is an ordinary Deployment behind a Service, a client on the other node,
// and a stranger. Nothing in it knows of C8s.
const shop = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeName: worker1
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: local.test/nginx:1
        imagePullPolicy: Never
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
        livenessProbe: {tcpSocket: {port: 80}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  clusterIPs: [10.96.7.7, "fd98::7"]
  clusterIP: 10.96.7.7
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 8080, targetPort: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: worker2
  terminationGracePeriodSeconds: 1
  containers: [{name: client, image: "local.test/app:1", imagePullPolicy: Never, args: [sleep]}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: shop}
spec:
  nodeName: worker2
  terminationGracePeriodSeconds: 1
  containers: [{name: stranger, image: "local.test/app:1", imagePullPolicy: Never, args: [serve, -name, stranger]}]
`

// An nginx Deployment behind a Service answers a client pod on the other node
// under its own SPIFFE identity, and nobody else.
func testTraffic(t *testing.T, s *Site) {
	ctx := t.Context()
	must(t, s.Apply(ctx, shop))
	must(t, s.Rollout(ctx, "deployment/web", "-n", "shop"))
	for _, pod := range []string{"pod/client", "pod/stranger"} {
		if out, err := s.Kubectl(ctx, "wait", "-n", "shop", pod, "--for=condition=Ready", "--timeout=2m"); err != nil {
			t.Fatal(err, out)
		}
	}
	for _, service := range []string{"10.96.7.7:8080", "[fd98::7]:8080"} {
		// A ready pod is an endpoint when its controller says so: a moment later,
		// or a second where it has to try again.
		err := stack.Poll(ctx, "the client to get "+service, func(ctx context.Context) error {
			out, err := s.Exec(ctx, "client", "/app", "get", "http://"+service+"/")
			if err == nil && !strings.Contains(out, "200") {
				err = errors.New(out)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if out, err := s.Exec(ctx, "stranger", "/app", "get", "http://"+service+"/"); err == nil {
			t.Errorf("the stranger gets %s: %s", service, out)
		}
	}
	records, err := s.Flows(ctx, s.Nodes[1])
	if err != nil {
		t.Fatal(err)
	}
	through := func(verdict flow.Verdict, src, dst string) bool {
		return slices.ContainsFunc(records, func(r flow.Record) bool {
			return r.Verdict == verdict && r.SrcWorkload == src && r.DstWorkload == dst
		})
	}
	if !through(flow.Allowed, "client", "web") {
		t.Errorf("no record of client to web: %+v", records)
	}
	if through(flow.Allowed, "stranger", "web") || !slices.ContainsFunc(records, func(r flow.Record) bool {
		return r.Verdict == flow.Refused && r.SrcWorkload == "stranger"
	}) {
		t.Errorf("no record of the stranger being refused: %+v", records)
	}
	for n, workload := range map[int]string{0: "web", 1: "client"} {
		status, err := s.Status(ctx, s.Nodes[n])
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, p := range status.Pods {
			found = found || p.ID == "spiffe://kubernetes.c8s.example/workload/"+workload
		}
		if !found {
			t.Errorf("no pod of %s is %s: %+v", s.Nodes[n].Name(), workload, status.Pods)
		}
	}
}
