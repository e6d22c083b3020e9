// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/client/receipt"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func pointer(s string) *string { return &s }

func TestRedirects(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		d    route.Redirect
		path string
		want string
	}{
		{route.Redirect{}, "/a/b?c=d", "302 https://bank.example/a/b?c=d"},
		{route.Redirect{Status: 301, Host: "shop.example"}, "/a/b", "301 https://shop.example/a/b"},
		{route.Redirect{Scheme: "http"}, "/a/b", "302 http://bank.example/a/b"},
		{route.Redirect{Scheme: "https", Port: 443}, "/a", "302 https://bank.example/a"},
		{route.Redirect{Port: 8443}, "/a", "302 https://bank.example:8443/a"},
		{route.Redirect{Path: &route.PathChange{Full: pointer("/x")}}, "/a/b?c=d", "302 https://bank.example/x?c=d"},
		{route.Redirect{Path: &route.PathChange{Prefix: pointer("/x")}}, "/a/b%2Fc", "302 https://bank.example/x/b%2Fc"},
		{route.Redirect{Path: &route.PathChange{Prefix: pointer("/")}}, "/a", "302 https://bank.example/"},
		{route.Redirect{Path: &route.PathChange{Prefix: pointer("")}}, "/a/b", "302 https://bank.example/b"},
	} {
		w.route(route.Config{Routes: []route.Route{{Source: "r", Hosts: []string{"bank.example"}, Rules: []route.Rule{
			{Matches: []route.Match{{Path: &route.Path{Kind: route.Prefix, Value: "/a"}}}, Redirect: &tc.d},
		}}}})
		res, _ := w.get(w.client(), "https://bank.example"+tc.path)
		if got := fmt.Sprint(res.StatusCode, " ", res.Header.Get("Location")); got != tc.want {
			t.Errorf("%+v %s: %s, want %s", tc.d, tc.path, got, tc.want)
		}
	}
}

func TestRewritesAndHeaders(t *testing.T) {
	w := newWorld(t)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Gone", "1")
		rw.Header().Set("X-Set", "backend")
		echo(rw, r)
	})))
	r := to("web", route.HTTP, "bank.example")
	rule := &r.Rules[0]
	rule.Matches = []route.Match{{Path: &route.Path{Kind: route.Prefix, Value: "/a"}}}
	rule.Rewrite = &route.Rewrite{Host: "inner.example", Path: &route.PathChange{Prefix: pointer("/x y")}}
	rule.Request = &route.Headers{Set: []route.Pair{{Name: "X-Set", Value: "rule"}}, Add: []route.Pair{{Name: "X-Add", Value: "2"}}, Remove: []string{"x-gone"}}
	rule.Response = &route.Headers{Set: []route.Pair{{Name: "X-Set", Value: "rule"}}, Remove: []string{"X-Gone"}}
	rule.Backends[0].Request = &route.Headers{Set: []route.Pair{{Name: "X-Set", Value: "backend"}}}
	w.route(route.Config{Routes: []route.Route{r}})
	res, body := w.get(w.client(), "https://bank.example/a/b%2Fc?d", header("X-Add", "1"), header("X-Gone", "1"))
	if !strings.HasPrefix(body, "HTTP/1.1 GET /x%20y/b%2Fc?d host=inner.example") || !strings.Contains(body, "X-Set: backend\r\n") || strings.Contains(body, "X-Gone") ||
		!strings.Contains(body, "X-Add: 1\r\nX-Add: 2\r\n") || !strings.Contains(body, "X-Forwarded-Host: bank.example") {
		t.Error(body)
	}
	if res.Header.Get("X-Gone") != "" || res.Header.Get("X-Set") != "rule" {
		t.Error(res.Header)
	}
}

func TestBackendsThatCannotBe(t *testing.T) {
	w := newWorld(t)
	r := to("web", route.HTTP, "bank.example")
	r.Rules[0].Backends = []route.Backend{{Refuse: "no Service d/gone", Weight: 1}}
	none := to("web", route.HTTP, "a.bank.example")
	none.Rules[0].Backends[0].Weight = 0
	w.route(route.Config{Routes: []route.Route{r, none}})
	for _, host := range []string{"bank.example", "a.bank.example"} {
		if res, body := w.get(w.client(), "https://"+host+"/"); res.StatusCode != 500 || !strings.Contains(body, codeNoBackend) {
			t.Errorf("%s: %d %s", host, res.StatusCode, body)
		}
	}
	if !strings.Contains(w.records.String(), "no Service d/gone") {
		t.Error(w.records)
	}
}

func TestErrorsForGRPC(t *testing.T) {
	w := newWorld(t)
	res, body := w.get(w.client(h2), "https://bank.example/p.S/M", method("POST"), header("Content-Type", "application/grpc"))
	if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != "14" || res.Header.Get("Grpc-Message") != codeNoEndpoints || body != "" {
		t.Errorf("%d %v %q", res.StatusCode, res.Header, body)
	}
}

func TestActiveChecksKeepSickEndpointsAway(t *testing.T) {
	w := newWorld(t)
	var sick atomic.Bool
	sick.Store(true)
	pod := func(name string) {
		w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/healthz" && name == "one" && sick.Load() {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
			rw.Header().Set("X-Pod", name)
		})))
	}
	pod("one")
	pod("two")
	r := to("web", route.HTTP, "*.bank.example")
	r.Rules[0].Backends[0].Health = &route.Health{Path: "/healthz", Interval: time.Second}
	w.route(route.Config{Routes: []route.Route{r}})
	c := w.client()
	answers := func(name string) func() bool {
		return func() bool {
			res, _ := w.get(c, "https://a.bank.example/")
			return res.Header.Get("X-Pod") == name
		}
	}
	w.until("the sick endpoint to be passed over", answers("two"))
	sick.Store(false)
	w.until("the endpoint to be well", answers("one")) // the double takes the first that it may
	sick.Store(true)
	w.until("the endpoint to be sick again", answers("two"))
	w.route(route.Config{Routes: []route.Route{to("web", route.HTTP, "*.bank.example")}})
	w.until("the endpoint to be trusted without checks", answers("one"))
}

func TestHealthPassesOverWhatFails(t *testing.T) {
	now := time.Unix(0, 0)
	h := newHealth(func() time.Time { return now })
	a, b := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")
	if h.avoid() != nil {
		t.Error("something is avoided from the start")
	}
	h.failed(a)
	h.failed(b)
	h.failed(b)
	for _, tc := range []struct {
		after time.Duration
		want  int
	}{{0, 2}, {firstPause, 1}, {2 * firstPause, 0}} {
		now = time.Unix(0, 0).Add(tc.after)
		if got := h.avoid(); len(got) != tc.want {
			t.Errorf("after %s: %v", tc.after, got)
		}
	}
	h.failed(b)
	h.well(b)
	if got := h.avoid(); len(got) != 0 {
		t.Error(got)
	}
	h.probed(a, false)
	now = now.Add(time.Hour)
	if got := h.avoid(); len(got) != 1 {
		t.Error("what a check found is forgotten:", got)
	}
	h.probed(a, true)
	now = now.Add(time.Hour)
	h.avoid()
	if h.quick.Load() != nil || len(h.sick) != 0 {
		t.Error("memory of", h.sick)
	}
}

func TestLogIndexComesLater(t *testing.T) {
	var asked atomic.Int32
	w := newWorld(t, func(c *Config) {
		c.LogIndex = func(_ context.Context, leaf policy.Digest) (int64, error) {
			if !leaf.Valid() {
				return 0, errors.New("no digest")
			}
			asked.Add(1)
			return 77, nil
		}
	})
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	c := w.client()
	w.until("the index", func() bool {
		res, _ := w.get(c, "https://bank.example/")
		return res.Header.Get("C8s-Log") == "77"
	})
	w.get(c, "https://bank.example/")
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestReceiptsForThoseWhoAsk(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *Config) { c.Receipts = receipt.NewSigner(private, time.Now) })
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("C8s-Workload", "a lie")
		rw.Header().Set("Signature", "c8s=:AAAA:")
	})))
	r := to("web", route.HTTP, "bank.example")
	r.Rules[0].Rewrite = &route.Rewrite{Path: &route.PathChange{Full: pointer("/b")}, Host: "inner.example"}
	w.route(route.Config{Routes: []route.Route{r}})
	if res, _ := w.get(w.client(), "https://bank.example/a"); res.Header.Get("Signature-Input") != "" {
		t.Error("signed without being asked")
	}
	for name, c := range map[string]*http.Client{"h1": w.client(), "h2": w.client(h2)} {
		var req *http.Request
		res, _ := w.get(c, "https://bank.example/a?b=c", func(r *http.Request) { receipt.Ask(r.Header, nil); req = r })
		res.Request = req
		got, err := receipt.Verify(res, public, time.Now())
		if err != nil || got.Workload != "web" || got.Path != "/a" || got.Authority != "bank.example" {
			t.Errorf("%s: %+v %v %v", name, got, err, res.Header)
		}
	}
}

func TestMetricsCountByCode(t *testing.T) {
	w := newWorld(t)
	w.get(w.client(), "https://bank.example/")
	w.get(w.client(), "https://nobody.example/")
	w.stop()
	got := gather(t, w.server)
	for _, want := range []string{`c8s_ingress_failures_total{code="no-endpoints"} 1`, `c8s_ingress_failures_total{code="host-unknown"} 1`, `c8s_ingress_requests_total{class="5xx"} 1`, "c8s_ingress_connections 0"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is not in\n%s", want, got)
		}
	}
}
