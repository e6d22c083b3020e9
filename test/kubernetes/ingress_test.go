// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/stack/image"
	"github.com/c8s-dev/c8s/test/web"
)

// bank is two workloads behind Services, for hosts of their own, a third that is
// for none, and an Ingress. Nothing in it knows of C8s.
const bank = `
apiVersion: v1
kind: Namespace
metadata: {name: bank}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: bank, labels: {app: web}}
spec:
  nodeName: worker1
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "local.test/web:1", imagePullPolicy: Never, args: [-name, web]}]
---
apiVersion: v1
kind: Pod
metadata: {name: shop, namespace: bank, labels: {app: shop}}
spec:
  nodeName: worker2
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "local.test/app:1", imagePullPolicy: Never, args: [serve, -name, shop]}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: bank, labels: {app: stranger}}
spec:
  nodeName: worker1
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "local.test/app:1", imagePullPolicy: Never, args: [serve, -name, stranger]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: bank}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: bank}
spec: {selector: {app: web}, ports: [{port: 9090}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: bank}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: bank}
spec:
  ingressClassName: c8s
  rules:
  - host: bank.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
`

const gatewayObjects = `
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c8s}
spec: {controllerName: c8s.dev/ingress}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: bank}
spec:
  gatewayClassName: c8s
  listeners: [{name: https, port: 443, protocol: HTTPS, tls: {options: {c8s.dev/key: tee}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: bank}
spec:
  parentRefs: [{name: gw}]
  hostnames: [shop.example]
  rules: [{backendRefs: [{name: shop, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: api, namespace: bank}
spec:
  parentRefs: [{name: gw}]
  hostnames: [api.example]
  rules: [{matches: [{method: {service: grpc.testing.TestService}}], backendRefs: [{name: api, port: 9090}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: evil, namespace: bank}
spec:
  parentRefs: [{name: gw}]
  hostnames: [evil.example]
  rules: [{backendRefs: [{name: shop, port: 80}]}]
`

func bankWorkloads(s *Site) []policy.Workload {
	runs := func(name string, img *image.Image, args ...string) policy.Workload {
		return policy.Workload{Name: name, Images: []policy.Image{{
			Name: img.Ref, Digest: policy.Digest(img.Config), Run: &policy.Run{Args: append(args, "-name", name), ServiceEnv: true},
		}}}
	}
	return []policy.Workload{runs("web", s.Web, "/web"), runs("shop", s.App, "/app", "serve"), runs("stranger", s.App, "/app", "serve")}
}

// An ingress that the chart runs has certificates of an ACME CA, is all that a web
// server is to clients that know nothing of C8s, and proves itself to those that
// do. It serves what routes say, as far as the manifest allows it. Whoever may write
// Services cannot have a host answered by another workload, and who owns the
// route sees why.
func TestIngress(t *testing.T) {
	privileged.Require(t)
	rule := func(name, host, workload string, port uint16) policy.IngressRule {
		return policy.IngressRule{Name: name, Hosts: []string{host}, Backends: []policy.IngressBackend{{Workload: workload, Mode: policy.ModeHTTP, Ports: []uint16{port}}}}
	}
	s := New(t, bankWorkloads, WithIngress("worker2",
		rule("web", "bank.example", "web", 8080), rule("shop", "shop.example", "shop", 8080), rule("api", "api.example", "web", 9090)))
	ctx := t.Context()
	must(t, s.Apply(ctx, bank))
	must(t, s.Rollout(ctx, "daemonset/c8s-ingress", "-n", systemNamespace))
	client := s.outside()

	client.gets(t, "bank.example", http.StatusOK, "web")
	client.refused(t, "shop.example")
	if status, _, err := client.ask(ctx, "http://bank.example/x"); err != nil || status != http.StatusPermanentRedirect {
		t.Errorf("plain HTTP: %d, %v", status, err)
	}

	s.plainCurl(t, "bank.example")
	must(t, client.Events(ctx, "bank.example"))
	must(t, client.WebSocket(ctx, "bank.example"))
	s.proves(t, "bank.example")

	// The Gateway API comes when the ingress runs already.
	must(t, s.gatewayAPI(ctx))
	must(t, s.until(ctx, "objects of the Gateway API", func() error { return s.Apply(ctx, gatewayObjects) }))
	client.gets(t, "shop.example", http.StatusOK, "shop")
	must(t, s.until(ctx, "the certificate of api.example", func() error { return client.handshake(ctx, "api.example") }))
	must(t, client.Interop(ctx, "api.example", func(check string) { t.Log(check) }))
	client.refused(t, "evil.example")
	s.describes(t, "httproute/evil", "c8s.dev/ManifestAllows", "IngressHostUnknown", "evil.example")
	s.describes(t, "gateway/gw", "Programmed", "192.0.2.1")
	s.describes(t, "ingress/web", "192.0.2.1")

	// Another workload that is listed, for another host; and one that is for none.
	for _, tt := range []struct{ service, to, host, object string }{
		{"web", "shop", "bank.example", "ingress/web"},
		{"shop", "stranger", "shop.example", "httproute/shop"},
	} {
		s.selects(t, tt.service, tt.to)
		client.gets(t, tt.host, http.StatusBadGateway, "ingress-workload-not-allowed")
		s.describes(t, tt.object, "IngressWorkloadNotAllowed", "expected "+tt.service, "got "+tt.to)
		s.selects(t, tt.service, tt.service)
		client.gets(t, tt.host, http.StatusOK, tt.service)
	}

	// A container that nobody listed does not start, so its Service has nobody.
	must(t, s.Apply(ctx, `
apiVersion: v1
kind: Pod
metadata: {name: unlisted, namespace: bank, labels: {app: unlisted}}
spec:
  containers: [{name: main, image: "local.test/app:1", imagePullPolicy: Never, args: [serve, -name, unlisted]}]
`))
	s.selects(t, "web", "unlisted")
	client.gets(t, "bank.example", http.StatusServiceUnavailable, "no-endpoints")
}

// gatewayAPI installs the CRDs of the release whose types the ingress uses.
func (s *Site) gatewayAPI(ctx context.Context) error {
	dir, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return fmt.Errorf("finding the CRDs of the Gateway API: %w", err)
	}
	args := []string{"apply", "--server-side"}
	for _, kind := range []string{"gatewayclasses", "gateways", "httproutes", "grpcroutes", "referencegrants"} {
		args = append(args, "-f", filepath.Join(strings.TrimSpace(string(dir)), "config/crd/standard/gateway.networking.k8s.io_"+kind+".yaml"))
	}
	_, err = s.Kubectl(ctx, args...)
	return err
}

// selects points a Service at other pods.
func (s *Site) selects(t *testing.T, service, app string) {
	t.Helper()
	if out, err := s.Kubectl(t.Context(), "patch", "service", service, "-n", "bank", "-p", `{"spec":{"selector":{"app":"`+app+`"}}}`); err != nil {
		t.Fatal(err, out)
	}
}

// describes waits until kubectl describe says all of these.
func (s *Site) describes(t *testing.T, object string, want ...string) {
	t.Helper()
	must(t, s.until(t.Context(), object+" to say what is wrong", func() error {
		out, err := s.Kubectl(t.Context(), "describe", object, "-n", "bank")
		for _, w := range want {
			if err == nil && !strings.Contains(out, w) {
				err = fmt.Errorf("it lacks %q: %s", w, out)
			}
		}
		return err
	}))
}

// plainCurl is what everybody has: it needs the web's CA, and nothing of C8s.
func (s *Site) plainCurl(t *testing.T, host string) {
	t.Helper()
	out, err := s.ControlPlane.Run(t.Context(), "curl", "--disable", "--noproxy", "*", "-sS", "--fail", "--max-time", "30",
		"--cacert", s.path("web-roots.pem"), "--resolve", host+":443:"+s.node(s.edge).Addr().String(), "https://"+host+"/plain")
	if err != nil || !strings.Contains(out, "web for "+host+" at /plain") {
		t.Errorf("curl: %v: %s", err, out)
	}
}

// proves has who checks first find what the chart runs to be attested: with
// simulated hardware all is right and the hardware proves nothing, so the answer
// is "partly proven", exit code 3.
func (s *Site) proves(t *testing.T, host string) {
	t.Helper()
	run := func(args ...string) (code int, out string) {
		out, err := s.ControlPlane.Run(t.Context(), append(append([]string{s.program("c8s")}, args...), "--operators", s.path("operators.json"),
			"--cacert", s.path("web-roots.pem"), "--connect", s.node(s.edge).Addr().String()+":443", "--state", s.path("client"))...)
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			return exit.ExitCode(), out
		}
		must(t, err)
		return 0, out
	}
	must(t, s.until(t.Context(), "a proof with everything logged", func() error {
		code, out := run("verify", "https://"+host, "-o", "json")
		err := web.Simulated(out)
		if code != 3 {
			err = errors.Join(fmt.Errorf("exit code %d: %s", code, out), err)
		}
		return err
	}))
	if code, out := run("curl", "https://"+host+"/hello", "--allow-simulated"); code != 0 || !strings.Contains(out, "web for "+host+" at /hello") {
		t.Errorf("c8s curl: exit code %d: %s", code, out)
	}
}

// outsider is a client outside the cluster's nodes, which knows the CA of the web
// and nothing of C8s.
type outsider struct {
	web.Client
	site *Site
	http *http.Client
}

func (s *Site) outside() *outsider {
	o := &outsider{site: s, Client: web.Client{Roots: s.webRoots, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		return s.ControlPlane.Dial(ctx, network, s.node(s.edge).Addr().String()+address[strings.LastIndexByte(address, ':'):])
	}}}
	o.http = o.HTTP()
	return o
}

func (o *outsider) ask(ctx context.Context, url string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := o.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(raw), err
}

// gets waits until a host is answered so.
func (o *outsider) gets(t *testing.T, host string, status int, want string) {
	t.Helper()
	must(t, o.site.until(t.Context(), fmt.Sprintf("%s to be answered by %d %s", host, status, want), func() error {
		got, body, err := o.ask(t.Context(), "https://"+host+"/")
		if err == nil && (got != status || !strings.Contains(body, want)) {
			err = fmt.Errorf("%d %s", got, body)
		}
		return err
	}))
}

// handshake wants a certificate for the host, of the web's CA.
func (o *outsider) handshake(ctx context.Context, host string) error {
	conn, err := o.Dial(ctx, "tcp", host+":443")
	if err != nil {
		return err
	}
	defer conn.Close()
	return tls.Client(conn, &tls.Config{ServerName: host, RootCAs: o.Roots}).HandshakeContext(ctx)
}

// refused wants a host to have no certificate here: it is the server that ends
// the handshake.
func (o *outsider) refused(t *testing.T, host string) {
	t.Helper()
	if err := o.handshake(t.Context(), host); err == nil || !strings.HasPrefix(err.Error(), "remote error: tls: ") {
		t.Errorf("%s is served: %v", host, err)
	}
}
