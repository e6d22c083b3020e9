// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/test/stack"
)

// ear is a machine without C8s that would answer, and hears who connects.
type ear struct {
	mu    sync.Mutex
	heard []string // the first bytes of each connection
}

// listen has it listen at these addresses of a node until the test ends.
func (e *ear) listen(t *testing.T, n *stack.Node, addresses ...string) {
	t.Helper()
	for _, address := range addresses {
		l, err := n.Listen(t.Context(), "tcp", address)
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go e.answer(conn)
			}
		}()
	}
}

func (e *ear) answer(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 512)
	n, _ := conn.Read(buf)
	e.mu.Lock()
	e.heard = append(e.heard, string(buf[:n]))
	e.mu.Unlock()
	_, _ = io.WriteString(conn, "HTTP/1.0 200 OK\r\n\r\noutside\n")
}

func (e *ear) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard)
}

// reach is a connection that a pod of the client's entry must not get.
type reach struct {
	what, network, to string
	reason            string // of the flow record
}

// lures are what an administrator can make of Services.
const lures = `
apiVersion: v1
kind: Service
metadata: {name: lure, namespace: attacks}
spec: {clusterIP: 10.96.66.1, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: lure, namespace: attacks, labels: {kubernetes.io/service-name: lure}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP, name: ""}]
endpoints: [{addresses: [%[1]s], nodeName: worker1, conditions: {ready: true}, targetRef: {kind: Pod, namespace: attacks, name: web}}]
---
apiVersion: v1
kind: Service
metadata: {name: lure-node, namespace: attacks}
spec: {clusterIP: 10.96.66.2, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: lure-node, namespace: attacks, labels: {kubernetes.io/service-name: lure-node}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP, name: ""}]
endpoints: [{addresses: [%[2]s], nodeName: worker1, conditions: {ready: true}}]
---
apiVersion: v1
kind: Service
metadata: {name: lure-nobody, namespace: attacks}
spec: {clusterIP: 10.96.66.3, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: lure-nobody, namespace: attacks, labels: {kubernetes.io/service-name: lure-nobody}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP, name: ""}]
endpoints: [{addresses: [%[3]s], nodeName: worker1, conditions: {ready: true}}]
---
apiVersion: v1
kind: Service
metadata: {name: swapped, namespace: attacks}
spec: {clusterIP: 10.96.66.4, selector: {app: victim}, ports: [{port: 80, targetPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: external, namespace: attacks}
spec: {type: LoadBalancer, externalIPs: [203.0.113.7], selector: {app: victim}, ports: [{port: 8080, targetPort: 80, nodePort: 30080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: hosts, namespace: attacks}
spec:
  nodeName: worker2
  terminationGracePeriodSeconds: 1
  hostAliases: [{ip: %[1]s, hostnames: [bank.example]}]
  containers: [{name: client, image: "local.test/app:1", imagePullPolicy: Never, args: [sleep]}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: attacks, labels: {app: stranger}}
spec:
  nodeName: worker1
  terminationGracePeriodSeconds: 1
  containers:
  - name: stranger
    image: local.test/app:1
    imagePullPolicy: Never
    args: [serve, -name, stranger]
    ports: [{containerPort: 8080, hostPort: 18081}]
---
apiVersion: v1
kind: Pod
metadata: {name: probed, namespace: attacks}
spec:
  nodeName: worker1
  terminationGracePeriodSeconds: 1
  containers:
  - name: stranger
    image: local.test/app:1
    imagePullPolicy: Never
    args: [serve, -name, stranger]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`

// testReach: no pod reaches an address without attestation, whatever the API
// server says of it, and nobody without reaches a pod.
func testReach(t *testing.T, s *Site) {
	ctx := t.Context()
	outside := s.ControlPlane.Addr().String()
	silent := new(ear)
	silent.listen(t, s.ControlPlane, outside+":8080", "["+s.ControlPlane.Addr6().String()+"]:8080")
	silent.listen(t, s.Nodes[0], s.Nodes[0].Addr().String()+":8080")
	nobody := s.Nodes[0].PodCIDRs()[0].Addr().Next().Next()
	for range 200 {
		nobody = nobody.Next()
	}
	must(t, s.Apply(ctx, fmt.Sprintf(lures, outside, s.Nodes[0].Addr(), nobody)))
	if out, err := s.Kubectl(ctx, "patch", "-n", attacks, "service", "external", "--subresource=status", "-p", `{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.8"}]}}}`); err != nil {
		t.Fatal(err, out)
	}
	for _, pod := range []string{"hosts", "stranger", "probed"} {
		_, err := s.Kubectl(ctx, "wait", "-n", attacks, "pod/"+pod, "--for=jsonpath={.status.containerStatuses[0].started}=true", "--timeout=1m")
		must(t, err)
	}
	must(t, s.until(ctx, "the victim's Service", func() error {
		_, err := s.Exec(ctx, "client", "/app", "get", "http://10.96.66.4/")
		return err
	}))
	_, err := s.Kubectl(ctx, "patch", "-n", attacks, "service", "swapped", "-p", `{"spec":{"selector":{"app":"stranger"},"ports":[{"port":80,"targetPort":8080}]}}`)
	must(t, err)
	s.unreached(t, []reach{
		{"another machine", "tcp", outside + ":8080", "no-route"},
		{"another machine, IPv6", "tcp", "[" + s.ControlPlane.Addr6().String() + "]:8080", "no-route"},
		{"the API server's own address", "tcp", outside + ":6443", "no-route"},
		{"the API server's Service", "tcp", "10.96.0.1:443", "host-address"},
		{"its own kubelet", "tcp", s.Nodes[1].Addr().String() + ":10250", "host-address"},
		{"another kubelet", "tcp", s.Nodes[0].Addr().String() + ":10250", "host-address"},
		{"another node daemon", "tcp", s.Nodes[0].Addr().String() + ":15008", "host-address"},
		{"the CDS", "tcp", s.Nodes[0].Addr().String() + ":15009", "host-address"},
		{"a program on a node", "tcp", s.Nodes[0].Addr().String() + ":8080", "host-address"},
		{"a node port", "tcp", s.Nodes[0].Addr().String() + ":30080", "host-address"},
		{"a cloud's metadata", "tcp", "169.254.169.254:80", "no-route"},
		{"an external address", "tcp", "203.0.113.7:8080", "external-address"},
		{"a load balancer", "tcp", "203.0.113.8:8080", "external-address"},
		{"a Service that leads out", "tcp", "10.96.66.1:80", "peer-refused-certificate"},
		{"a Service that leads to a node", "tcp", "10.96.66.2:80", "host-address"},
		{"a Service that leads to nobody", "tcp", "10.96.66.3:80", "peer-refused-certificate"},
		{"a Service of others now", "tcp", "10.96.66.4:80", "peer-not-allowed-egress"},
		{"UDP", "udp", outside + ":123", "no-route"},
	})
	if out, err := s.Kubectl(ctx, "exec", "-n", attacks, "hosts", "--", "/app", "get", "http://bank.example:8080/"); err == nil {
		t.Errorf("by a name from hostAliases: %s", out)
	}
	s.untouched(t)
	if heard := silent.all(); len(heard) > 0 {
		t.Errorf("machines without attestation heard %q", heard)
	}
}

// unreached tries from the client, and looks for each refusal among the flows.
func (s *Site) unreached(t *testing.T, attempts []reach) {
	t.Helper()
	ctx := t.Context()
	var tries errgroup.Group
	tries.SetLimit(3)
	for _, a := range attempts {
		tries.Go(func() error {
			if out, err := s.Exec(ctx, "client", "/app", "dial", a.network, a.to, "GET / HTTP/1.0\r\n\r\n"); err == nil {
				t.Errorf("%s (%s) answers: %s", a.what, a.to, out)
			}
			return nil
		})
	}
	_ = tries.Wait()
	records, err := s.Flows(ctx, s.Nodes[1])
	must(t, err)
	for _, a := range attempts {
		to := netip.MustParseAddrPort(a.to)
		var reasons []string
		for _, r := range records {
			same := r.Dst == to || r.Direction == flow.Kernel && r.Dst.Addr() == to.Addr() // of UDP no port is kept
			if same && r.Verdict == flow.Refused && r.SrcWorkload == "client" {
				reasons = append(reasons, r.Reason)
			}
		}
		if !slices.Contains(reasons, a.reason) {
			t.Errorf("%s (%s): refused for %q, want %q", a.what, a.to, reasons, a.reason)
		}
	}
}

// untouched tries to reach the victim, and the stranger's port on its node,
// from machines and nodes.
func (s *Site) untouched(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	ip, err := s.victim(ctx, "{.items[0].status.podIP}")
	must(t, err)
	node := s.Nodes[0].Addr().String()
	var tries errgroup.Group
	for from, n := range map[string]*stack.Node{"another machine": s.ControlPlane, "its own node": s.Nodes[0], "another node": s.Nodes[1]} {
		for _, to := range []string{ip + ":80", node + ":30080", node + ":18081"} {
			tries.Go(func() error {
				if answer := ask(ctx, n, to); answer != "" {
					t.Errorf("%s gets %s: %s", from, to, answer)
				}
				return nil
			})
		}
	}
	_ = tries.Wait()
	status, err := s.Status(ctx, s.Nodes[0])
	must(t, err)
	for _, reason := range []string{"not-from-daemon", "forwarded-to-pod"} {
		if status.Drops[reason] == 0 {
			t.Errorf("nothing was dropped for %s: %v", reason, status.Drops)
		}
	}
	// Its readiness probe is for a port that the entry does not give the kubelet.
	ready, err := s.Kubectl(ctx, "get", "pod", "-n", attacks, "probed", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	if err != nil || ready != "False" {
		t.Errorf("a probe reaches a port that is not listed: ready is %q, %v", ready, err)
	}
}

// ask says what a node gets from an address; nothing if it gets none.
func ask(ctx context.Context, n *stack.Node, to string) string {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := n.Dial(ctx, "tcp", to)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	answer, _ := io.ReadAll(conn)
	return strings.TrimSpace(string(answer))
}
