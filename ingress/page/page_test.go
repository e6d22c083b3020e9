// SPDX-License-Identifier: Apache-2.0

package page_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/c8s-dev/c8s/ingress/page"
)

var now = time.Date(2026, 11, 29, 9, 30, 0, 0, time.UTC)

// facts are those of an ingress with everything; change spoils a copy.
func facts(change ...func(*page.Facts)) *page.Facts {
	index := uint64(4711)
	f := &page.Facts{
		Host: "bank.example", At: now, TrustDomain: "prod.bank.example",
		Ingress: page.Ingress{
			ID: "spiffe://prod.bank.example/ingress/9f2c", Software: "v1.2.3", TEE: "sev-snp", Measurement: strings.Repeat("a1b2c3d4", 12),
			Certificate: &page.Certificate{Digest: "sha256:" + strings.Repeat("c0ffee00", 8), NotBefore: now.Add(-20 * time.Minute), NotAfter: now.Add(40 * time.Minute), LogIndex: &index},
		},
		TLSKey:    strings.Repeat("0badcafe", 8),
		Proof:     &page.Proof{Beacon: now.Add(-23 * time.Second), MaxAge: 5 * time.Minute},
		Operators: page.Operators{Threshold: 2, Keys: []page.Operator{{Name: "alice", Key: "sha256:" + strings.Repeat("11", 32)}, {Name: "bob", Key: "sha256:" + strings.Repeat("22", 32)}, {Name: "carol", Key: "sha256:" + strings.Repeat("33", 32)}}},
		Manifest:  page.Document{Version: 12, Digest: "sha256:" + strings.Repeat("44", 32)},
		DenyList:  &page.Document{Version: 3, Digest: "sha256:" + strings.Repeat("55", 32)},
		CDS:       page.CDS{Keys: "sha256:" + strings.Repeat("66", 32), Reachable: true},
		Rule:      "bank", Backends: []page.Backend{{Workload: "web", Mode: "http", Ports: []uint16{8080, 8443}}, {Workload: "db", Mode: "tcp", Ports: []uint16{5432}}},
	}
	for _, c := range change {
		c(f)
	}
	return f
}

func newPage(t testing.TB, of func(context.Context, string) (*page.Facts, error)) *page.Page {
	t.Helper()
	p, err := page.New(page.Config{Facts: of, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func get(t testing.TB, f *page.Facts, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	newPage(t, func(context.Context, string) (*page.Facts, error) { return f, nil }).
		ServeHTTP(w, httptest.NewRequest(method, "https://bank.example"+path, nil))
	return w
}

// tree is the parsed page, and words all of its text with single spaces.
func tree(t testing.TB, f *page.Facts) (root *html.Node, words string) {
	t.Helper()
	w := get(t, f, http.MethodGet, page.Path)
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	root, err := html.Parse(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode && n.Parent.Data != "style" && n.Parent.Data != "script" {
			b.WriteString(n.Data)
		}
	}
	return root, strings.Join(strings.Fields(b.String()), " ")
}

var states = map[string]struct {
	change func(*page.Facts)
	state  page.State
	says   []string
	silent []string
}{
	"fresh": {
		func(*page.Facts) {}, page.Fresh,
		[]string{
			"There is a fresh proof", "AMD SEV-SNP", "23 seconds ago or later", "2026-11-29 09:34:37 UTC", "This page itself is not the proof",
			"2 of 3 must sign", "alice: " + strings.Repeat("11", 32), "version 12", "entry 4711", "in 40 minutes", "Rule “bank”", "web", "8080, 8443", "5432",
			"c8s verify https://bank.example --operators operators.json",
		},
		[]string{"SIMULATED", "The proof is old", "no proof yet", "cannot be reached"},
	},
	"at the last moment": {func(f *page.Facts) { f.Proof.Beacon = now.Add(-5 * time.Minute) }, page.Fresh, []string{"There is a fresh proof"}, nil},
	"stale": {
		func(f *page.Facts) { f.Proof.Beacon = now.Add(-12 * time.Minute); f.CDS.Reachable = false }, page.Stale,
		[]string{"The proof is old", "12 minutes ago", "refuse it since 2026-11-29 09:23:00 UTC", "cannot be reached"},
		[]string{"There is a fresh proof"},
	},
	"from the future":           {func(f *page.Facts) { f.Proof.Beacon = now.Add(time.Minute) }, page.Stale, []string{"The proof is old", "in the future"}, nil},
	"none yet":                  {func(f *page.Facts) { f.Proof = nil }, page.Missing, []string{"There is no proof yet", "the key of this connection is its own"}, []string{"There is a fresh proof"}},
	"without TLS":               {func(f *page.Facts) { f.Proof, f.TLSKey = nil, "" }, page.Missing, []string{"You asked for this page without TLS"}, nil},
	"not certified":             {func(f *page.Facts) { f.Proof = nil; f.Ingress = page.Ingress{Software: "v1"} }, page.Missing, []string{"has not been certified yet", "not known yet"}, nil},
	"simulated":                 {func(f *page.Facts) { f.Ingress.Simulated = true }, page.Fresh, []string{"SIMULATED", "proves nothing to anybody", "by a simulated processor", "A program that plays a processor signed"}, nil},
	"a host that nobody serves": {func(f *page.Facts) { f.Rule, f.Backends = "", nil }, page.Fresh, []string{"every request is refused"}, nil},
	"no index, no deny list": {
		func(f *page.Facts) { f.DenyList, f.Ingress.Certificate.LogIndex = nil, nil }, page.Fresh,
		[]string{"none was ever published", "the index is not known here"},
		nil,
	},
}

func TestPageSaysWhatIsAndWhatIsNot(t *testing.T) {
	for name, tt := range states {
		t.Run(name, func(t *testing.T) {
			f := facts(tt.change)
			if got := f.State(); got != tt.state {
				t.Errorf("state %q, want %q", got, tt.state)
			}
			_, words := tree(t, f)
			for _, want := range append(tt.says, "What it does not mean", "Anybody can show a page like it") {
				if !strings.Contains(words, want) {
					t.Errorf("the page does not say %q:\n%s", want, words)
				}
			}
			for _, not := range tt.silent {
				if strings.Contains(words, not) {
					t.Errorf("the page says %q", not)
				}
			}
		})
	}
}

func TestJSONHasTheFactsOfThePage(t *testing.T) {
	for name, tt := range states {
		t.Run(name, func(t *testing.T) {
			w := get(t, facts(tt.change), http.MethodGet, page.JSONPath)
			var got struct {
				Schema string     `json:"schema"`
				State  page.State `json:"state"`
				page.Facts
			}
			dec := json.NewDecoder(w.Body)
			dec.DisallowUnknownFields()
			if err := dec.Decode(&got); err != nil || w.Header().Get("Content-Type") != "application/json" {
				t.Fatalf("%v, %v", err, w.Header())
			}
			if got.Schema != page.Schema || got.State != tt.state || got.Host != "bank.example" || got.Backends == nil {
				t.Errorf("got %+v", got)
			}
			if got.Proof != nil && !got.Proof.Until.Equal(got.Proof.Beacon.Add(5*time.Minute)) {
				t.Errorf("until %s", got.Proof.Until)
			}
		})
	}
}

func TestAnswersAreForReadingAndNeverKept(t *testing.T) {
	for _, path := range []string{page.Path, page.JSONPath} {
		w := get(t, facts(), http.MethodGet, path)
		for header, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"} {
			if got := w.Header().Get(header); got != want {
				t.Errorf("%s: %s %q, want %q", path, header, got, want)
			}
		}
		if w := get(t, facts(), http.MethodHead, path); w.Code != http.StatusOK || w.Body.Len() > 0 || w.Header().Get("Content-Length") == "" {
			t.Errorf("HEAD %s: %d, %d bytes", path, w.Code, w.Body.Len())
		}
		if w := get(t, facts(), http.MethodPost, path); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	if w := get(t, facts(), http.MethodGet, page.Path+"/x"); w.Code != http.StatusNotFound {
		t.Errorf("another path: %d", w.Code)
	}
}

func TestFactsAreAskedForTheHostAndErrorsStayInside(t *testing.T) {
	for sent, want := range map[string]string{"Bank.Example:8443": "bank.example", "bank.example.": "bank.example", "bank.example": "bank.example", "[2001:db8::1]:443": "[2001:db8::1]", "[2001:db8::1]": "[2001:db8::1]"} {
		var asked string
		p := newPage(t, func(_ context.Context, host string) (*page.Facts, error) {
			asked = host
			return nil, errors.New("a detail of the inside")
		})
		r, w := httptest.NewRequest(http.MethodGet, page.Path, nil), httptest.NewRecorder()
		r.Host = sent
		p.ServeHTTP(w, r)
		if asked != want {
			t.Errorf("Host %q: asked for %q, want %q", sent, asked, want)
		}
		if w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "inside") {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	}
	if _, err := page.New(page.Config{}); err == nil {
		t.Error("a page without facts was made")
	}
}

func TestNothingOfTheFactsBecomesMarkup(t *testing.T) {
	const evil = `"><script>alert(1)</script><a href="javascript:alert(1)">`
	root, words := tree(t, facts(func(f *page.Facts) {
		f.Host, f.TrustDomain, f.Rule, f.Ingress.Software, f.Ingress.TEE, f.Ingress.Measurement = evil, evil, evil, evil, evil, evil
		f.Operators.Keys[0] = page.Operator{Name: evil, Key: evil}
		f.Backends[0].Workload = evil
	}))
	if !strings.Contains(words, "alert(1)") {
		t.Error("the facts are not shown: this test proves nothing")
	}
	scripts := 0
	for n := range root.Descendants() {
		if n.Data == "script" && n.Type == html.ElementNode {
			scripts++
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || strings.Contains(a.Val, "javascript:") {
				t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
			}
		}
	}
	if scripts != 1 {
		t.Errorf("%d scripts, want the page's own", scripts)
	}
}
