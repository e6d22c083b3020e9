// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/c8s-dev/c8s/client/clienttest"
	"github.com/c8s-dev/c8s/client/proof"
)

const host = clienttest.Host

// config trusts the operators, and everything of the web.
func config(w *clienttest.World, in ...*clienttest.Ingress) Config {
	roots := x509.NewCertPool()
	var next atomic.Int64
	for _, i := range in {
		roots.AddCert(i.Leaf())
	}
	return Config{
		Anchor: FromOperators(w.Operators), Roots: roots, AllowSimulated: true, Now: w.Now,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			to := in[int(next.Add(1)-1)%len(in)]
			return (&net.Dialer{}).DialContext(ctx, network, to.Addr())
		},
	}
}

func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// get sends a request and returns the answer's body.
func get(t testing.TB, c *Client, path string) (string, error) {
	t.Helper()
	resp, err := (&http.Client{Transport: c.Transport()}).Get("https://" + host + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestProvenHostAnswers(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	for name, h1 := range map[string]bool{"HTTP/1.1": true, "HTTP/2.0": false} {
		cfg := config(w, in)
		cfg.OnlyHTTP1 = h1
		c := newClient(t, cfg)
		before := in.Conns.Load()
		for range 3 {
			body, err := get(t, c, "/")
			if err != nil || body != "hello "+name {
				t.Fatalf("%s: %q, %v", name, body, err)
			}
		}
		if n := in.Conns.Load() - before; n != 1 {
			t.Errorf("%s: %d connections for three requests, want 1", name, n)
		}
	}
}

func TestReportSaysWhatIsOpen(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	r, err := newClient(t, config(w, in)).Verify(t.Context(), "https://"+host)
	if err != nil {
		t.Fatal(err)
	}
	if r.Overall != Partly || len(r.Refuted()) > 0 || r.Manifest.Version != 1 || r.TrustDomain != w.Manifest.TrustDomain {
		t.Errorf("%s: %+v", r.Overall, r.Steps)
	}
	var open []string
	for _, s := range r.Open() {
		open = append(open, s.Name+" "+s.Code)
	}
	const want = "cds-hardware simulated, witnesses no-witnesses, hardware proof-simulated"
	if got := strings.Join(open, ", "); got != want {
		t.Errorf("open: %s, want %s", got, want)
	}
	paths := map[string]bool{}
	for _, d := range r.Documents {
		paths[d.Path] = len(d.Body) > 0
	}
	for _, path := range []string{proof.PathAttestation, proof.PathCDS + "/v1/manifest", proof.PathCDS + "/v1/endorsement", proof.PathCDS + "/log/checkpoint"} {
		if !paths[path] {
			t.Errorf("the report lacks the document %s", path)
		}
	}
	if in.Requests.Load() != 0 {
		t.Errorf("%d requests of users arrived", in.Requests.Load())
	}
}

func TestWhatIsOpenIsRefusedUnlessAllowed(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	for name, tt := range map[string]struct {
		edit func(*Config)
		code string // "": accepted
	}{
		"as it is":       {func(c *Config) { c.AllowSimulated = false }, CodeSimulated},
		"simulated":      {func(*Config) {}, ""},
		"all required":   {func(c *Config) { c.AllowSimulated, c.RequireAll = false, true }, CodeSimulated},
		"fresh evidence": {func(c *Config) { c.FreshEvidence = true }, ""},
	} {
		cfg := config(w, in)
		tt.edit(&cfg)
		before := in.Requests.Load()
		_, err := get(t, newClient(t, cfg), "/")
		if got := codeOf(err); got != tt.code || (err == nil) != (tt.code == "") {
			t.Errorf("%s: code %q, want %q: %v", name, got, tt.code, err)
		}
		if n := in.Requests.Load() - before; tt.code != "" && n != 0 {
			t.Errorf("%s: %d requests arrived", name, n)
		}
	}
}

func TestUnusableConfigurationsAreRefused(t *testing.T) {
	w := clienttest.New(t)
	for name, edit := range map[string]func(*Config){
		"no anchor":     func(c *Config) { c.Anchor = Anchor{} },
		"negative age":  func(c *Config) { c.MaxAge = -1 },
		"contradiction": func(c *Config) { c.RequireAll = true },
	} {
		cfg := Config{Anchor: FromOperators(w.Operators), AllowSimulated: true}
		edit(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOnlyHTTPSToTheOwnHost(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	c := newClient(t, config(w, in))
	for url, hostField := range map[string]string{"http://" + host: "", "https://" + host: "other.example", "https:///x": ""} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader([]byte("secret")))
		if err != nil {
			t.Fatal(err)
		}
		if hostField != "" {
			req.Host = hostField
		}
		if resp, err := c.Transport().RoundTrip(req); err == nil {
			resp.Body.Close()
			t.Errorf("%s with Host %q: sent", url, hostField)
		}
	}
	if in.Requests.Load() != 0 || in.Bytes.Load() != 0 {
		t.Error("something arrived")
	}
}

// codeOf is the code of the step that was refused.
func codeOf(err error) string {
	var refused *Refusal
	if errors.As(err, &refused) {
		return refused.Step.Code
	}
	return ""
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
		panic(http.ErrAbortHandler)
	}
}
