// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// echo answers with what it got.
func echo(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("C8s-Workload", "a lie")
	rw.Header()["c8s-Log"] = []string{"a lie"}
	rw.Header().Set("Alt-Svc", `h3="elsewhere.example:443"`)
	rw.Header().Set("Keep-Alive", "timeout=5")
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(rw, "%s %s %s host=%s len=%d\n", r.Proto, r.Method, r.RequestURI, r.Host, len(body))
	r.Header.Write(rw)
}

func TestForwardsAndSaysWhoAnswered(t *testing.T) {
	w := newWorld(t)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	for name, c := range map[string]*http.Client{"h1": w.client(), "h2": w.client(h2)} {
		edits := []func(*http.Request){header("X-A", "b")}
		if name == "h1" {
			edits = append(edits, header("Connection", "X-Hop, keep-alive"), header("X-Hop", "1"))
		}
		res, body := w.get(c, "https://bank.example/a%2Fb?x=1;y=%zz&&", edits...)
		if name != fmt.Sprint("h", res.ProtoMajor) {
			t.Errorf("%s: the answer came by %s", name, res.Proto)
		}
		if res.StatusCode != 200 || !strings.HasPrefix(body, "HTTP/1.1 GET /a%2Fb?x=1;y=%zz&& host=bank.example len=0\n") || !strings.Contains(body, "X-A: b\r\n") || strings.Contains(body, "X-Hop") {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
		signed := w.mesh.Manifest()
		for k, want := range map[string]string{
			"C8s-Workload": "web", "C8s-Manifest": fmt.Sprint(signed.Manifest.Version), "C8s-Evidence": "sha256:01" + strings.Repeat("00", 31), "C8s-Log": "", "Alt-Svc": "", "Keep-Alive": "",
		} {
			if got := res.Header.Get(k); got != want {
				t.Errorf("%s: %s is %q, want %q", name, k, got, want)
			}
		}
	}
}

func TestClientsCannotSayWhoTheyAre(t *testing.T) {
	lies := []func(*http.Request){
		header("X-Forwarded-For", "1.1.1.1"), header("Forwarded", "for=1.1.1.1"), header("X-Forwarded-Proto", "http"), header("X-Forwarded-Host", "evil.example"),
		header("X-Real-Ip", "1.1.1.1"), header("X_Forwarded_For", "1.1.1.1"), header("X-Forwarded-Anything", "1.1.1.1"), header("C8s-Workload", "admin 1.1.1.1"), header("X-Forwarded", "for=1.1.1.1"), header("Proxy", "http://1.1.1.1"),
	}
	w := newWorld(t)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	_, body := w.get(w.client(), "https://bank.example/", lies...)
	if strings.Contains(body, "1.1.1.1") || strings.Contains(body, "evil") ||
		!strings.Contains(body, "X-Forwarded-For: 127.0.0.1\r\n") || !strings.Contains(body, "X-Forwarded-Proto: https\r\n") || !strings.Contains(body, "X-Forwarded-Host: bank.example\r\n") ||
		!strings.Contains(body, `Forwarded: for=127.0.0.1;host="bank.example";proto=https`) {
		t.Error(body)
	}

	w = newWorld(t, func(c *Config) { c.TrustedFor = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	_, body = w.get(w.client(), "https://bank.example/", lies...)
	if !strings.Contains(body, "X-Forwarded-For: 1.1.1.1, 127.0.0.1\r\n") || !strings.Contains(body, "Forwarded: for=1.1.1.1, for=127.0.0.1") || strings.Contains(body, "X-Real") || strings.Contains(body, "admin") {
		t.Error(body)
	}
}

func TestRefusesWhoTheManifestDoesNotList(t *testing.T) {
	w := newWorld(t)
	w.addPod("d/web", policytest.DB, serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request reached another workload") })))
	res, body := w.get(w.client(), "https://bank.example/secret-path")
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil || res.StatusCode != 502 || p.Code != string(policy.CodeIngressWorkload) || p.Status != 502 || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %s: %v", res.StatusCode, body, err)
	}
	if strings.Contains(body, "db") || res.Header.Get("C8s-Workload") != "" {
		t.Error("the client learned who would have answered:", body)
	}
	log := w.records.String()
	for _, want := range []string{"code=ingress-workload-not-allowed", "rule=", "expected=", "actual=", "remedy=", "service=d/web", "route=route-web"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s:\n%s", want, log)
		}
	}
	// With an endpoint of the right workload beside it, requests get there.
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	if res, body := w.get(w.client(), "https://bank.example/"); res.StatusCode != 200 || res.Header.Get("C8s-Workload") != "web" {
		t.Error(res.StatusCode, body)
	}
	// No manifest, no requests.
	w.mesh.manifest.Store(nil)
	if res, body := w.get(w.client(), "https://bank.example/"); res.StatusCode != 502 || !strings.Contains(body, "no-manifest") {
		t.Error(res.StatusCode, body)
	}
}

func TestKeptConnectionsAreJudgedAgain(t *testing.T) {
	for _, protocol := range []route.Protocol{route.HTTP, route.H2C} {
		w := newWorld(t)
		w.route(route.Config{Routes: []route.Route{to("web", protocol, "bank.example")}})
		reached := 0
		w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached++ })))
		c := w.client()
		for range 3 {
			w.get(c, "https://bank.example/")
		}
		if dials, _ := w.mesh.counts(); dials != 1 || reached != 3 {
			t.Fatalf("%s: %d connections, %d requests", protocol, dials, reached)
		}
		w.mesh.manifest.Store(policytest.New(t, policytest.With(func(m *policy.Manifest) {
			ingressRules(m)
			m.Ingress[0].Backends = []policy.IngressBackend{{Workload: policytest.DB, Mode: policy.ModeHTTP, Ports: []uint16{podPort}}}
		})).Signed)
		if res, body := w.get(c, "https://bank.example/"); res.StatusCode != 502 || !strings.Contains(body, "ingress-workload-not-allowed") || reached != 3 {
			t.Errorf("%s: %d %s, %d requests", protocol, res.StatusCode, body, reached)
		}
		if _, open := w.mesh.counts(); open != 0 {
			t.Errorf("%s: %d connections are kept", protocol, open)
		}
	}
}

func TestHostsDoNotShareConnections(t *testing.T) {
	w := newWorld(t)
	// The routes lead both hosts to one Service; only bank.example may go there.
	w.route(route.Config{Routes: []route.Route{to("web", route.HTTP, "bank.example", "a.bank.example", "shop.example")}})
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	c := w.client()
	for host, want := range map[string]int{"bank.example": 200, "a.bank.example": 200, "shop.example": 502} {
		if res, body := w.get(c, "https://"+host+"/"); res.StatusCode != want {
			t.Errorf("%s: %d %s", host, res.StatusCode, body)
		}
	}
	if _, open := w.mesh.counts(); open != 2 {
		t.Errorf("%d connections are kept, want one for each host", open)
	}
}

func TestHostsAndWhoTheConnectionIsFor(t *testing.T) {
	w := newWorld(t)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
	for _, tc := range []struct {
		sni, host, path string
		want            string
	}{
		{"bank.example", "bank.example", "/", "200"},
		{"bank.example", "BANK.example:443", "/", "200"},
		{"bank.example", "bank.example.", "/", "200"},
		{"bank.example", "a.bank.example", "/", "421"},
		{"bank.example", "a.bank.example", "/.well-known/c8s", "421"},
		{"a.bank.example", "a.bank.example", "/", "200"},
		{"bank.example", "", "/", "400"},
		{"bank.example", "bank.example:x", "/", "400"},
		{"bank.example", "bank.example/x", "/", "400"},
		{"bank.example", "user@bank.example", "/", "400"},
		{"nobody.example", "nobody.example", "/", "404"},
		{"nobody.example", "nobody.example", "/.well-known/c8s", "200"},
		{"bank.example", "bank.example", "/.well-known/c8s-not-yet", "200"},
		{"bank.example", "bank.example", "/.well-known/%638s/x", "200"},
		{"bank.example", "bank.example", "/a/../b", "400"},
		{"bank.example", "bank.example", "/a/%2e%2e/b", "400"},
		{"bank.example", "bank.example", "/a/..%2fb", "400"},
		{"bank.example", "bank.example", "*", "400"},
	} {
		conn := w.dialTLS(tc.sni)
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", tc.path, tc.host)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%+v: %v", tc, err)
			continue
		}
		body, _ := io.ReadAll(res.Body)
		if got := fmt.Sprint(res.StatusCode); got != tc.want || strings.Contains(tc.path, "well-known") && got == "200" && !strings.HasPrefix(string(body), "own true") {
			t.Errorf("%+v: %s %s", tc, got, body)
		}
		conn.Close()
	}
	if res, _ := w.get(w.client(), "https://bank.example/", method("TRACE")); res.StatusCode != 405 {
		t.Error("TRACE:", res.StatusCode)
	}
}

func TestRetriesOnlyWhereNothingWasSeen(t *testing.T) {
	dead := listen(t)
	dead.Close()
	breaks := func(t *testing.T, seen *int) net.Listener {
		ln := listen(t)
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				*seen++
				http.ReadRequest(bufio.NewReader(conn))
				conn.Close()
			}
		}()
		return ln
	}
	for _, tc := range []struct {
		name, method, body string
		dead               bool
		want               int
	}{
		{"GET to a dead endpoint", "GET", "", true, 200},
		{"POST to a dead endpoint", "POST", "body", true, 200},
		{"GET that breaks off", "GET", "", false, 200},
		{"POST that breaks off", "POST", "body", false, 502},
		{"empty POST that breaks off", "POST", "", false, 502},
		{"DELETE that breaks off", "DELETE", "", false, 502},
	} {
		w := newWorld(t)
		seen := 0
		if tc.dead {
			w.addPod("d/web", policytest.Web, dead)
		} else {
			w.addPod("d/web", policytest.Web, breaks(t, &seen))
		}
		w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(echo)))
		c := w.client()
		res, body := w.get(c, "https://bank.example/", method(tc.method), func(r *http.Request) {
			if tc.body != "" {
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(tc.body)), int64(len(tc.body))
			}
		})
		if res.StatusCode != tc.want || tc.want == 200 && !strings.Contains(body, fmt.Sprintf("len=%d", len(tc.body))) {
			t.Errorf("%s: %d %s", tc.name, res.StatusCode, body)
		}
		// What failed is passed over now.
		before, _ := w.mesh.counts()
		if res, body := w.get(c, "https://bank.example/", method("POST")); res.StatusCode != 200 {
			t.Errorf("%s: then %d %s", tc.name, res.StatusCode, body)
		}
		if after, _ := w.mesh.counts(); after > before+1 {
			t.Errorf("%s: %d connections for the next request", tc.name, after-before)
		}
	}
}

func TestRetriesEnd(t *testing.T) {
	w := newWorld(t)
	dead := listen(t)
	dead.Close()
	for range 10 {
		w.addPod("d/web", policytest.Web, dead)
	}
	res, body := w.get(w.client(), "https://bank.example/")
	if dials, _ := w.mesh.counts(); res.StatusCode != 502 || !strings.Contains(body, "node-unreachable") || dials != maxTries {
		t.Errorf("%d %s after %d tries", res.StatusCode, body, dials)
	}
	w.mesh.mu.Lock()
	w.mesh.services = nil
	w.mesh.mu.Unlock()
	if res, body := w.get(w.client(), "https://bank.example/"); res.StatusCode != 503 || !strings.Contains(body, codeNoEndpoints) {
		t.Error(res.StatusCode, body)
	}
}

func TestInformationalAnswersPassWithoutOurNames(t *testing.T) {
	w := newWorld(t)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Link", "</style.css>; rel=preload")
		rw.Header().Set("C8s-Workload", "a lie")
		rw.WriteHeader(http.StatusEarlyHints)
		rw.WriteHeader(http.StatusNoContent)
	})))
	conn := w.dialTLS("bank.example")
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: bank.example\r\nConnection: close\r\n\r\n")
	all, _ := io.ReadAll(conn)
	if s := string(all); !strings.HasPrefix(s, "HTTP/1.1 103 Early Hints\r\n") || strings.Contains(s, "a lie") || !strings.Contains(s, "HTTP/1.1 204") || strings.Count(s, "C8s-Workload: web") != 1 {
		t.Error(s)
	}
}

func TestTimeoutsOfRoutes(t *testing.T) {
	for name, timeouts := range map[string]route.Timeouts{"request": {Request: 50 * time.Millisecond}, "backend": {Backend: 50 * time.Millisecond}} {
		w := newWorld(t)
		r := to("web", route.HTTP, "bank.example")
		r.Rules[0].Timeouts = timeouts
		w.route(route.Config{Routes: []route.Route{r}})
		w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })))
		if res, body := w.get(w.client(), "https://bank.example/"); res.StatusCode != 504 || !strings.Contains(body, codeTimeout) {
			t.Errorf("%s: %d %s", name, res.StatusCode, body)
		}
	}
}

func TestClientThatLeavesEndsTheRequest(t *testing.T) {
	w := newWorld(t)
	began, ended := make(chan struct{}), make(chan struct{})
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(ended)
	})))
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-began; leave() }()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://bank.example/", nil)
	if _, err := w.client().Do(req); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-ended
}
