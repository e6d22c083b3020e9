// SPDX-License-Identifier: Apache-2.0

package files

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

const (
	routesJSON   = `{"10.81.1.0/24": "10.80.0.1", "10.81.2.0/24": "10.80.0.2", "fd81:2::/64": "10.80.0.2"}`
	servicesJSON = `{"default/web": [{"port": 80, "name": "http", "endpoints": ["10.81.1.2:8080", "10.81.2.2:8080"]}], "default/db": [{"port": 5432, "endpoints": ["10.81.2.3:5432"]}]}`
)

func table(t *testing.T) *resolve.Table {
	t.Helper()
	tab, err := resolve.New(resolve.Config{Node: netip.MustParseAddr("10.80.0.1"), Rand: rand.Uint64, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func write(t *testing.T, path, text string) {
	t.Helper()
	tmp := path + ".new"
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Rename(tmp, path)); err != nil {
		t.Fatal(err)
	}
}

func places(t *testing.T) *Places {
	t.Helper()
	dir := t.TempDir()
	p := &Places{Routes: filepath.Join(dir, "routes.json"), Services: filepath.Join(dir, "services.json"), Table: table(t), Log: slog.New(slog.DiscardHandler)}
	write(t, p.Routes, routesJSON)
	write(t, p.Services, servicesJSON)
	return p
}

func behind(tab *resolve.Table, name string, port uint16) (resolve.Target, resolve.Verdict) {
	return tab.Behind(resolve.ServiceQuery{Namespace: "default", Name: name, Port: port})
}

func TestServicesLeadToPodsAndTheirNodes(t *testing.T) {
	p := places(t)
	if err := p.Load(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 100 {
		to, verdict := behind(p.Table, "web", 80)
		if verdict != resolve.Found {
			t.Fatalf("verdict %v", verdict)
		}
		seen[to.Pod.String()+" on "+to.Node.String()] = true
	}
	// One endpoint is on the ingress's own machine: another daemon answers there.
	if !seen["10.81.1.2:8080 on 10.80.0.1"] || !seen["10.81.2.2:8080 on 10.80.0.2"] || len(seen) != 2 {
		t.Errorf("endpoints %v", seen)
	}
	if to, verdict := p.Table.Behind(resolve.ServiceQuery{Namespace: "default", Name: "web", PortName: "http"}); verdict != resolve.Found || to.Pod.Port() != 8080 {
		t.Errorf("by name: %v %v", to, verdict)
	}
	for name, port := range map[string]uint16{"web": 81, "nobody": 80} {
		if to, verdict := behind(p.Table, name, port); verdict == resolve.Found {
			t.Errorf("%s:%d leads to %v", name, port, to)
		}
	}
}

func TestServicesOfKubernetesStayWithoutAFile(t *testing.T) {
	p := places(t)
	p.Services = ""
	p.Table.SetCluster(resolve.Cluster{
		Nodes:    []resolve.Node{{Name: "n", Addr: netip.MustParseAddr("10.80.0.2"), Pods: []netip.Prefix{netip.MustParsePrefix("10.81.2.0/24")}}},
		Services: []resolve.Service{{Name: "default/k", Headless: true, Ports: []resolve.Port{{Protocol: resolve.TCP, Port: 1, Endpoints: []resolve.Endpoint{{Addr: netip.MustParseAddrPort("10.81.2.9:1")}}}}}},
	})
	if err := p.Load(); err != nil {
		t.Fatal(err)
	}
	if _, verdict := behind(p.Table, "k", 1); verdict != resolve.Found || p.Table.Static() != 3 {
		t.Errorf("verdict %v, %d routes", verdict, p.Table.Static())
	}
}

func TestFilesThatAreNotUnderstoodChangeNothing(t *testing.T) {
	for name, bad := range map[string]struct{ routes, services, says string }{
		"no JSON":            {services: "{", says: "want {"},
		"an unknown key":     {services: `{"a/b": [{"port": 1, "endpoint": []}]}`, says: "endpoint"},
		"no namespace":       {services: `{"web": [{"port": 1}]}`, says: "namespace/name"},
		"no port":            {services: `{"a/b": [{"endpoints": []}]}`, says: "without a number"},
		"no ports":           {services: `{"a/b": []}`, says: "no ports"},
		"a port twice":       {services: `{"a/b": [{"port": 1}, {"port": 1}]}`, says: "twice"},
		"a name twice":       {services: `{"a/b": [{"port": 1, "name": "x"}, {"port": 2, "name": "x"}]}`, says: "twice"},
		"the loopback":       {services: `{"a/b": [{"port": 1, "endpoints": ["127.0.0.1:1"]}]}`, says: "127.0.0.1:1"},
		"no endpoint's port": {services: `{"a/b": [{"port": 1, "endpoints": ["10.0.0.1:0"]}]}`, says: "10.0.0.1:0"},
		"more than one":      {services: `{} {}`, says: "follows"},
		"routes":             {routes: `{"10.81.1.5/24": "10.80.0.1"}`, says: "did you mean"},
	} {
		t.Run(name, func(t *testing.T) {
			p := places(t)
			if err := p.Load(); err != nil {
				t.Fatal(err)
			}
			if bad.routes != "" {
				write(t, p.Routes, bad.routes)
			} else {
				write(t, p.Services, bad.services)
			}
			if err := p.Load(); err == nil || !strings.Contains(err.Error(), bad.says) {
				t.Errorf("error %v, want one that says %q", err, bad.says)
			}
			if _, verdict := behind(p.Table, "db", 5432); verdict != resolve.Found {
				t.Errorf("the last good file is gone: %v", verdict)
			}
		})
	}
}

func TestTooLargeFileIsNotRead(t *testing.T) {
	p := places(t)
	write(t, p.Services, "{"+strings.Repeat(" ", MaxServices)+"}")
	if err := p.Load(); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

func TestChangedFileIsInForce(t *testing.T) {
	p := places(t)
	ctx, cancel := context.WithCancel(t.Context())
	loaded := make(chan error, 16)
	done := make(chan error)
	go func() {
		done <- Watch(ctx, p.Log, func() error { err := p.Load(); loaded <- err; return err }, p.Routes, p.Services)
	}()
	if err := <-loaded; err != nil {
		t.Fatal(err)
	}
	write(t, p.Services, `{"default/new": [{"port": 1, "endpoints": ["10.81.2.2:1"]}]}`)
	for {
		if err := <-loaded; err != nil {
			t.Fatal(err)
		}
		if _, verdict := behind(p.Table, "new", 1); verdict == resolve.Found {
			break
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzParseServices(f *testing.F) {
	f.Add([]byte(servicesJSON))
	f.Add([]byte(`{"a/b": [{"port": 1, "endpoints": ["[fd81::1]:1"]}]}`))
	f.Add([]byte(`{"a/b": [{"port": 1, "endpoints": ["[::ffff:10.0.0.1]:1", "[fe80::1%eth0]:1"]}]}`))
	f.Add([]byte(`{"a/b": null} x`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		services, err := ParseServices(raw)
		if err != nil {
			return
		}
		if bytes.TrimSpace(raw) == nil {
			t.Fatal("nothing was taken for Services")
		}
		for _, s := range services {
			if strings.Count(s.Name, "/") != 1 || len(s.Ports) == 0 {
				t.Fatalf("%+v", s)
			}
			for _, p := range s.Ports {
				for _, e := range p.Endpoints {
					if p.Port == 0 || !e.Addr.IsValid() || !e.Addr.Addr().IsGlobalUnicast() || e.Addr.Addr().Is4In6() {
						t.Fatalf("%+v", p)
					}
				}
			}
		}
	})
}
