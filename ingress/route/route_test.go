// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"
)

func backends(service string) []Backend {
	return []Backend{{Service: "d/" + service, Port: Port{Number: 80}, Weight: 1}}
}

// leads makes a route whose rule has one match and a backend named after it.
func leads(name string, m Match, hosts ...string) Route {
	return Route{Source: name, Hosts: hosts, Rules: []Rule{{Matches: []Match{m}, Backends: backends(name)}}}
}

func prefix(v string) *Path { return &Path{Prefix, v} }
func exact(v string) *Path  { return &Path{Exact, v} }

func TestLookupFollowsTheGatewayAPIsPrecedence(t *testing.T) {
	old := leads("old", Match{Path: prefix("/age")}, "a.example")
	old.Since = time.Unix(1, 0)
	younger := leads("aaa-younger", Match{Path: prefix("/age")}, "a.example")
	younger.Since = time.Unix(2, 0)
	routes := []Route{
		leads("root", Match{}, "a.example"),
		leads("short", Match{Path: prefix("/a")}, "a.example"),
		leads("long", Match{Path: prefix("/a/b/")}, "a.example"),
		leads("exact", Match{Path: exact("/a/b")}, "a.example"),
		leads("exact-slash", Match{Path: exact("/x/")}, "a.example"),
		leads("post", Match{Path: prefix("/m"), Method: "POST"}, "a.example"),
		leads("one-header", Match{Path: prefix("/m"), Headers: []Pair{{"x-one", "1"}}}, "a.example"),
		leads("two-headers", Match{Path: prefix("/m"), Headers: []Pair{{"x-one", "1"}, {"x-two", "2"}}}, "a.example"),
		leads("query", Match{Path: prefix("/m"), Query: []Pair{{"q", "1"}}}, "a.example"),
		leads("name-b", Match{Path: prefix("/name")}, "a.example"),
		leads("name-a", Match{Path: prefix("/name")}, "a.example"),
		leads("call", Match{GRPC: &GRPC{"p.S", "Do"}}, "a.example"),
		leads("calls", Match{GRPC: &GRPC{Service: "p.S"}}, "a.example"),
		leads("method", Match{GRPC: &GRPC{Method: "Do"}}, "a.example"),
		leads("wild", Match{}, "*.example"),
		leads("wild-only", Match{Path: prefix("/wild")}, "*.example"),
		old, younger,
	}
	grpc := http.Header{"Content-Type": {"application/grpc+proto"}}
	for _, tc := range []struct {
		host, method, path, query string
		header                    http.Header
		want                      string
	}{
		{host: "a.example", path: "/", want: "root"},
		{host: "a.example", path: "/ab", want: "root"},
		{host: "a.example", path: "/a", want: "short"},
		{host: "a.example", path: "/a/", want: "short"},
		{host: "a.example", path: "/a/bc", want: "short"},
		{host: "a.example", path: "/a/b", want: "exact"},
		{host: "a.example", path: "/a/b/", want: "long"},
		{host: "a.example", path: "/a/b/c/d", want: "long"},
		{host: "a.example", path: "/a//b", want: "short"},
		{host: "a.example", path: "/x/", want: "exact-slash"},
		{host: "a.example", path: "/x", want: "root"},
		{host: "a.example", path: "/m", want: "root"},
		{host: "a.example", path: "/m", method: "POST", want: "post"},
		{host: "a.example", path: "/m", method: "POST", header: http.Header{"X-One": {"1"}, "X-Two": {"2"}}, want: "post"},
		{host: "a.example", path: "/m", header: http.Header{"X-One": {"1"}}, want: "one-header"},
		{host: "a.example", path: "/m", header: http.Header{"X-One": {"1"}, "X-Two": {"2"}}, query: "q=1", want: "two-headers"},
		{host: "a.example", path: "/m", header: http.Header{"X-One": {"1", "1"}}, want: "root"},
		{host: "a.example", path: "/m", query: "q=1&q=2", want: "query"},
		{host: "a.example", path: "/m", query: "q=2&q=1", want: "root"},
		{host: "a.example", path: "/m", query: "q=%zz", want: "root"},
		{host: "a.example", path: "/name", want: "name-a"},
		{host: "a.example", path: "/age", want: "old"},
		{host: "a.example", path: "/p.S/Do", method: "POST", header: grpc, want: "call"},
		{host: "a.example", path: "/p.S/Other", method: "POST", header: grpc, want: "calls"},
		{host: "a.example", path: "/q.S/Do", method: "POST", header: grpc, want: "method"},
		{host: "a.example", path: "/p.S/Do", method: "POST", want: "root"},
		{host: "a.example", path: "/p.S/Do", header: grpc, want: "root"},
		{host: "a.example", path: "/p.S/Do", method: "POST", header: http.Header{"Content-Type": {"application/grpc-web"}}, want: "root"},
		{host: "a.example", path: "/wild", want: "root"}, // the exact host has the last word
		{host: "b.example", path: "/wild/x", want: "wild-only"},
		{host: "b.example", path: "/x", want: "wild"},
		{host: "c.b.example", path: "/x"},
		{host: "example", path: "/x"},
		{host: ".example", path: "/x"},
		{host: "", path: "/x"},
	} {
		if tc.method == "" {
			tc.method = "GET"
		}
		// Whatever order the routes came in, the answer is the same.
		for range 4 {
			rand.Shuffle(len(routes), func(i, j int) { routes[i], routes[j] = routes[j], routes[i] })
			tab, err := New(Config{Routes: routes})
			if err != nil {
				t.Fatal(err)
			}
			f, hosted := tab.Lookup(&Request{Host: tc.host, Path: tc.path, Method: tc.method, Header: tc.header, Query: tc.query})
			if f.Source != tc.want || hosted != (tc.want != "") {
				t.Errorf("%+v: %q (hosted %v)", tc, f.Source, hosted)
				break
			}
			if tc.want != "" && f.Rule.Pick(0).Service != "d/"+tc.want {
				t.Errorf("%+v leads to %q", tc, f.Rule.Pick(0).Service)
			}
		}
	}
}

func TestHostWithoutAMatchIsHosted(t *testing.T) {
	tab, err := New(Config{Routes: []Route{leads("a", Match{Path: exact("/a")}, "a.example")}, Hosts: []Host{{Name: "*.b.example", Limits: Limits{Connections: 3}}}})
	if err != nil {
		t.Fatal(err)
	}
	if f, hosted := tab.Lookup(&Request{Host: "a.example", Path: "/b", Method: "GET"}); f.Rule != nil || !hosted {
		t.Errorf("%+v %v", f, hosted)
	}
	if name, ok := tab.Host("x.b.example"); name != "*.b.example" || tab.LimitsOf(name).Connections != 3 || !ok {
		t.Error(name, ok)
	}
	if got := fmt.Sprint(tab.Hosts()); got != "[*.b.example a.example]" {
		t.Error(got)
	}
	if (&Table{}).find("a.example") != nil {
		t.Error("the empty table knows a host")
	}
}

func TestPickSharesByWeight(t *testing.T) {
	r := Rule{Backends: []Backend{{Service: "d/a", Weight: 3}, {Service: "d/none"}, {Service: "d/b", Weight: 1}}}
	r.weights = total(r.Backends)
	got := map[string]int{}
	for i := range uint64(400) {
		got[r.Pick(i).Service]++
	}
	if got["d/a"] != 300 || got["d/b"] != 100 || len(got) != 2 {
		t.Error(got)
	}
	if (&Rule{Backends: []Backend{{Service: "d/a"}}}).Pick(7) != nil {
		t.Error("weight 0 was picked")
	}
}

func TestTCPTakesTheOlderRoute(t *testing.T) {
	young := TCP{Source: "a", Since: time.Unix(9, 0), Host: "db.example", Port: 5432, Backends: backends("young")}
	old := TCP{Source: "b", Since: time.Unix(1, 0), Host: "db.example", Port: 5432, Backends: backends("old")}
	for _, list := range [][]TCP{{young, old}, {old, young}} {
		tab, err := New(Config{TCP: list})
		if err != nil {
			t.Fatal(err)
		}
		if r := tab.TCP("db.example", 5432); r == nil || r.Source != "b" || r.Pick(1).Service != "d/old" {
			t.Errorf("%+v", r)
		}
		if tab.TCP("db.example", 5433) != nil || tab.TCP("x.example", 5432) != nil {
			t.Error("another port or host leads somewhere")
		}
	}
}

func TestDotSegments(t *testing.T) {
	for p, want := range map[string]bool{
		"/": false, "/a/b": false, "/.well-known/x": false, "/a..b/..c": false, "/a/...": false,
		"/..": true, "/a/../b": true, "/./": true, "/a/.": true, "/a/..;x=1/b": true, `/a\..\b`: true, `/a/..\b`: true,
	} {
		if HasDots(p) != want {
			t.Errorf("%q: %v", p, !want)
		}
	}
}

func manyHosts(tb testing.TB) *Table {
	tb.Helper()
	var cfg Config
	for i := range 10_000 {
		cfg.Routes = append(cfg.Routes, Route{
			Source: fmt.Sprint("r", i), Hosts: []string{fmt.Sprintf("h%d.example", i)},
			Rules: []Rule{
				{Backends: backends("a")},
				{Matches: []Match{{Path: prefix("/api/v1")}}, Backends: backends("b")},
				{Matches: []Match{{Path: prefix("/api/v1"), Method: "PUT", Headers: []Pair{{"X-A", "1"}}}}, Backends: backends("c")},
			},
		})
	}
	tab, err := New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return tab
}

func TestLookupTakesNoMemory(t *testing.T) {
	tab := manyHosts(t)
	r := &Request{Host: "h77.example", Path: "/api/v1/users/7/cart", Method: "GET", Header: http.Header{"X-A": {"1"}}}
	if n := testing.AllocsPerRun(100, func() { tab.Lookup(r) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	tab := manyHosts(b)
	r := &Request{Path: "/api/v1/users/7/cart", Method: "GET", Header: http.Header{"X-A": {"1"}}}
	hosts := tab.Hosts()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i = (i + 7919) % len(hosts)
		r.Host = hosts[i]
		if f, _ := tab.Lookup(r); f.Rule == nil {
			b.Fatal("not found")
		}
	}
}
