// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/kube/kubetest"
	"github.com/c8s-dev/c8s/policy"
)

// site is a Watcher and the API server that it follows.
type site struct {
	t   *testing.T
	api *kubetest.Server
	w   *Watcher

	later atomic.Int64 // of the clock, nanoseconds

	mu       sync.Mutex
	table    *route.Table
	services services
	manifest *policy.Manifest
	log      strings.Builder
}

func (s *site) Service(namespace, name string) (resolve.ServiceView, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.services.Service(namespace, name)
}

func (s *site) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func newSite(t *testing.T, api *kubetest.Server) *site { return newSiteWith(t, api, api) }

// newSiteWith has something stand before the API server.
func newSiteWith(t *testing.T, api *kubetest.Server, front http.Handler) *site {
	t.Helper()
	s := &site{t: t, api: api, services: known(), manifest: manifest(t)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{Handler: front, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()
	s.w, err = New(Config{
		API: &rest.Config{Host: "http://" + ln.Addr().String(), QPS: -1}, Name: "ingress-0", HTTPS: 443, HTTP: 80, Addresses: []string{"192.0.2.1"},
		Services: s, Now: func() time.Time { return time.Now().Add(time.Duration(s.later.Load())) }, Log: slog.New(slog.NewTextHandler(s, nil)),
		Manifest: func() *policy.Manifest { s.mu.Lock(); defer s.mu.Unlock(); return s.manifest },
		Set:      func(table *route.Table) { s.mu.Lock(); defer s.mu.Unlock(); s.table = table },
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		srv.Close()
		<-served
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	return s
}

func (s *site) until(what string, check func() (string, bool)) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(40 * time.Second); ; <-tick.C {
		got, ok := check()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waiting for %s: it is %q", what, got)
		}
	}
}

// leads waits until a host leads to a Service, or nowhere.
func (s *site) leads(host, want string) {
	s.t.Helper()
	s.until(host+" to lead to "+want, func() (string, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.table == nil {
			return "no table", false
		}
		got := ""
		if f, _ := s.table.Lookup(&route.Request{Host: host, Path: "/", Method: "GET"}); f.Rule != nil {
			got = f.Rule.Backends[0].Service
		}
		return got, got == want
	})
}

// says waits until an object's status has a text.
func (s *site) says(kind, key, want string) {
	s.t.Helper()
	s.until(kind+" "+key+" to say "+want, func() (string, bool) {
		got := fmt.Sprint(s.api.Get(kind, key)["status"])
		return got, strings.Contains(got, want)
	})
}

func TestTheTableFollowsTheAPIServerAndSaysWhatIsWrong(t *testing.T) {
	api := kubetest.New()
	api.Set(documents(t, base+one("hostnames: [bank.example]\n"+toWeb))...)
	s := newSite(t, api)
	s.leads("bank.example", "d/web")
	s.says("HTTPRoute", "d/r", "reason:Accepted")
	s.says("Gateway", "d/gw", "192.0.2.1")
	s.says("GatewayClass", "c8s", "Accepted")

	api.Set(documents(t, one("hostnames: [evil.example]\n"+toWeb))...)
	s.leads("bank.example", "")
	s.says("HTTPRoute", "d/r", "ingress-host-unknown")

	api.Set(documents(t, one("hostnames: [shop.example]\n"+toWeb))...)
	s.leads("shop.example", "d/web")
	s.w.Tried("d/web", &datapath.Refusal{Decision: policy.Decision{Code: policy.CodeIngressWorkload, Rule: "ingress[shop].backends", Remedy: "point it elsewhere"}})
	s.says("HTTPRoute", "d/r", "IngressWorkloadNotAllowed")
	s.w.Tried("d/web", nil)
	s.later.Store(int64(standsFor + time.Second))
	s.until("the refusal to be forgotten", func() (string, bool) {
		got := fmt.Sprint(api.Get("HTTPRoute", "d/r")["status"])
		return got, !strings.Contains(got, "IngressWorkloadNotAllowed")
	})

	s.mu.Lock() // nobody tells the Watcher of either
	delete(s.services, "d/web")
	s.mu.Unlock()
	s.says("HTTPRoute", "d/r", "BackendNotFound")
	s.mu.Lock()
	s.manifest = nil
	s.mu.Unlock()
	s.leads("shop.example", "")

	api.Delete(documents(t, one(""))[0])
	s.until("the state", func() (string, bool) {
		st := s.w.State()
		return fmt.Sprintf("%+v", st), st.Routes == 0 && st.Problems == 0 && !st.Since.IsZero()
	})
}

// A status is written once for each change, also when writing it is heard of late.
func TestStatusesAreNotWrittenAgainAndAgain(t *testing.T) {
	api := kubetest.New()
	api.Set(documents(t, base+one("hostnames: [bank.example]\n"+toWeb))...)
	s := newSite(t, api)
	s.says("HTTPRoute", "d/r", "Accepted")
	s.says("Gateway", "d/gw", "Accepted")
	s.says("GatewayClass", "c8s", "Accepted")
	before := api.Patches()
	for i := range 3 { // other changes make other tables
		api.Set(kubetest.Object{"kind": "Namespace", "apiVersion": "v1", "metadata": map[string]any{"name": fmt.Sprintf("n%d", i)}})
		made := s.w.State().Since
		s.until("another table", func() (string, bool) { st := s.w.State(); return st.Since.String(), st.Since.After(made) })
	}
	if after := api.Patches(); after != before {
		t.Errorf("%d statuses were written without a reason", after-before)
	}
}

// An API server without the Gateway API is the usual one.
func TestIngressesWorkWithoutGatewayAPI(t *testing.T) {
	api := kubetest.New()
	api.Absent("gateway.networking.k8s.io", true)
	api.Set(documents(t, ourClass+ing("rules: [{host: bank.example, http: {paths: ["+path("/", "web")+"]}}, {host: evil.example, http: {paths: ["+path("/", "web")+"]}}]"))...)
	api.Set(documents(t, base+one("hostnames: [shop.example]\n"+toWeb))...)
	s := newSite(t, api)
	s.leads("bank.example", "d/web")
	s.leads("shop.example", "")
	s.says("Ingress", "d/i", "192.0.2.1")
	s.until("an event", func() (string, bool) {
		all := api.Events()
		got := fmt.Sprint(all)
		return got, len(all) == 1 && strings.Contains(got, "IngressHostUnknown") && strings.Contains(got, "evil.example")
	})
	api.Absent("gateway.networking.k8s.io", false)
	s.leads("shop.example", "d/web")
}

// Routes are served also where statuses may not be written, and that is said
// once.
func TestForbiddenStatusesAreNoReasonNotToServe(t *testing.T) {
	api := kubetest.New()
	api.Set(documents(t, base+one("hostnames: [bank.example]\n"+toWeb))...)
	s := newSiteWith(t, api, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			http.Error(w, "forbidden", http.StatusForbidden)
			return
		}
		api.ServeHTTP(w, r)
	}))
	s.leads("bank.example", "d/web")
	s.until("the log to say so", func() (string, bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		got := s.log.String()
		return got, strings.Count(got, "statuses of routes cannot be written") == 1
	})
}

func TestTheConfigurationMustBeWhole(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration was accepted")
	}
}
