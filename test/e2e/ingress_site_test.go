// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/ingress/certs/pebbletest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/web"
)

const (
	webPort  = 8080
	grpcPort = 9090

	bankHost = "bank.example"
	shopHost = "shop.example" // for another workload
)

// ingressRoutes lead both hosts to the Service default/web, whatever is behind
// it, gRPC to default/api, and CONNECT to default/db.
const ingressRoutes = `{
  "schema": "c8s.dev/ingress-routes/v1",
  "routes": [
    {"name": "bank", "hosts": ["bank.example"], "rules": [
      {"matches": [{"grpc": {"service": "grpc.testing.TestService"}}], "backends": [{"service": "default/api", "port": 9090, "protocol": "h2c", "weight": 1}]},
      {"backends": [{"service": "default/web", "port": 80, "weight": 1}]}
    ]},
    {"name": "shop", "hosts": ["shop.example"], "rules": [{"backends": [{"service": "default/shop", "port": 80, "weight": 1}]}]}
  ],
  "tcp": [{"name": "db", "host": "bank.example", "port": 7000, "backends": [{"service": "default/db", "port": 7000, "weight": 1}]}]
}`

// webSite is a cluster with an ingress that has certificates of a real ACME CA.
type webSite struct {
	*cluster.Cluster
	t       *testing.T
	ingress *cluster.Ingress
	edge    *lab.Host // where the ingress is
	user    *lab.Host // where clients are
	roots   *x509.CertPool
	caFile  string // of roots
	web     *cluster.Pod
	shop    *cluster.Pod
}

// newWebSite starts all of it. The ingress runs on a host of its own, or on the
// node where the pods are.
func newWebSite(t *testing.T, onNode bool) *webSite {
	t.Helper()
	bank, shop, api, db := workload("web"), workload("shop"), workload("api"), workload("db")
	s := &webSite{t: t, Cluster: newCluster(t, func(o *cluster.Options) {
		o.Outside, o.Workloads = []string{"edge", "user"}, []policy.Workload{bank, shop, api, db}
		o.Ingress = []policy.IngressRule{
			{Name: "bank", Hosts: []string{bankHost}, Backends: []policy.IngressBackend{
				{Workload: "web", Mode: policy.ModeHTTP, Ports: []uint16{webPort}},
				{Workload: "api", Mode: policy.ModeHTTP, Ports: []uint16{grpcPort}},
				{Workload: "db", Mode: policy.ModeTCP, Ports: []uint16{echoPort}},
			}},
			{Name: "shop", Hosts: []string{shopHost}, Backends: []policy.IngressBackend{{Workload: "shop", Mode: policy.ModeHTTP, Ports: []uint16{webPort}}}},
		}
	})}
	s.edge, s.user = s.Lab.Outside("edge"), s.Lab.Outside("user")
	if onNode {
		s.edge = &s.Nodes[1].Lab.Host
	}
	ca := pebbletest.Start(t, pebbletest.Options{In: s.edge.NS, HTTPPort: 80, TLSPort: 443})
	acme := filepath.Join(t.TempDir(), "acme.pem")
	s.caFile = filepath.Join(t.TempDir(), "roots.pem")
	for path, raw := range map[string][]byte{acme: ca.Roots, s.caFile: ca.Issuer} {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(ca.Issuer)
	var err error
	if s.ingress, err = s.NewIngress("edge", s.edge, "--acme-directory", ca.Directory, "--acme-ca-file", acme, "--proof-period", "1s", "--access-log"); err != nil {
		t.Fatal(err)
	}
	if err := s.ingress.SetRoutes([]byte(ingressRoutes)); err != nil {
		t.Fatal(err)
	}
	if err := s.ingress.Start(); err != nil {
		t.Fatal(err)
	}
	s.openPods()
	if err := s.ingress.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.waitCertificates(bankHost, shopHost)
	return s
}

// openPods opens the backends while the ingress enrols.
func (s *webSite) openPods() {
	s.t.Helper()
	s.web, s.shop = openPod(s.t, s.Nodes[1], "web", lab.Routed), openPod(s.t, s.Nodes[0], "shop", lab.Bridged)
	api, db := openPod(s.t, s.Nodes[0], "api", lab.Routed), openPod(s.t, s.Nodes[1], "db", lab.Bridged)
	s.serveWeb(s.web, "web")
	s.serveWeb(s.shop, "shop")
	server := web.GRPC()
	ln := listenOn(s.t, api, grpcPort)
	go func() { _ = server.Serve(ln) }()
	s.t.Cleanup(server.Stop)
	serveEcho(s.t, db)
	s.services(map[string]netip.AddrPort{
		"web": netip.AddrPortFrom(s.web.Addr4, webPort), "shop": netip.AddrPortFrom(s.shop.Addr4, webPort),
		"api": netip.AddrPortFrom(api.Addr4, grpcPort), "db": netip.AddrPortFrom(db.Addr4, echoPort),
	})
}

// services says where the Services lead; an endpoint's Service has the port
// that routes name.
func (s *webSite) services(of map[string]netip.AddrPort) {
	s.t.Helper()
	all := map[string]map[uint16][]netip.AddrPort{}
	for name, at := range of {
		port := at.Port()
		if port == webPort {
			port = 80
		}
		all["default/"+name] = map[uint16][]netip.AddrPort{port: {at}}
	}
	if err := s.ingress.SetServices(all); err != nil {
		s.t.Fatal(err)
	}
}

func listenOn(t *testing.T, p *cluster.Pod, port uint16) net.Listener {
	t.Helper()
	ln, err := p.Listen("tcp", netip.AddrPortFrom(p.Addr4, port).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// serveWeb is an application that knows nothing of meshes.
func (s *webSite) serveWeb(p *cluster.Pod, name string) {
	s.t.Helper()
	server := &http.Server{Handler: web.App(name), ReadHeaderTimeout: time.Minute}
	ln := listenOn(s.t, p, webPort)
	go func() { _ = server.Serve(ln) }()
	s.t.Cleanup(func() { server.Close() })
}

// dial connects a user to the ingress, whatever name is meant.
func (s *webSite) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return s.user.Dial(ctx, network, net.JoinHostPort(s.edge.Addr4.String(), port))
}

// client knows the web's CAs and nothing of C8s.
func (s *webSite) client() *web.Client { return &web.Client{Dial: s.dial, Roots: s.roots} }

// browser is such a client's.
func (s *webSite) browser() *http.Client {
	hc := s.client().HTTP()
	s.t.Cleanup(hc.CloseIdleConnections)
	return hc
}

// get asks with a fresh browser, so on a connection of its own.
func (s *webSite) get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	resp, err := s.browser().Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// waitCertificates waits until hosts have certificates of the CA.
func (s *webSite) waitCertificates(hosts ...string) {
	s.t.Helper()
	for _, host := range hosts {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			conn, err := s.dial(s.t.Context(), "tcp", host+":443")
			if err == nil {
				err = tls.Client(conn, &tls.Config{ServerName: host, RootCAs: s.roots}).HandshakeContext(s.t.Context())
				conn.Close()
			}
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				status, statusErr := s.ingress.Status(s.t.Context())
				s.t.Fatalf("no certificate for %s: %v; status %+v %v", host, err, status, statusErr)
			}
		}
	}
}
