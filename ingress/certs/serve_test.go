// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// developer is a world with a self-signed certificate.
func developer(t *testing.T, names ...string) (*world, *Store) {
	t.Helper()
	w := newWorld(t, names...)
	w.cfg.SelfSigned = true
	s := w.open()
	s.step(t.Context())
	return w, s
}

func TestAnsweredByServerName(t *testing.T) {
	w, s := developer(t, "bank.example", "*.bank.example", "shop.example")
	s.cfg.Default = "shop.example"
	s.mu.Lock()
	s.publish()
	s.mu.Unlock()
	for name, want := range map[string]bool{
		"bank.example": true, "BANK.example": true, "a.bank.example": true, "shop.example": true, "": true,
		"a.b.bank.example": false, "other.example": false, "example": false, ".bank.example": false, "*.bank.example": false, "a.shop.example": false,
	} {
		c, err := s.GetCertificate(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"h2", ChallengeProtocol}})
		if (err == nil) != want || (c != nil) != want {
			t.Errorf("%q: %v, %v", name, c != nil, err)
		}
		if !want && CodeOf(err) != CodeNoName {
			t.Errorf("%q: %v", name, err)
		}
	}
	s.cfg.Default = ""
	s.mu.Lock()
	s.publish()
	s.mu.Unlock()
	if _, err := s.GetCertificate(&tls.ClientHelloInfo{}); CodeOf(err) != CodeNoName {
		t.Errorf("no name and no default: %v", err)
	}
	if _, err := w.handshake("bank.example"); err != nil {
		t.Error(err)
	}
	if err := s.SetNames([]string{"shop.example"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.handshake("bank.example"); err == nil {
		t.Error("a name is served that is not one any more")
	}
}

func TestOnlyTheNameUnderChallengeAnswersOne(t *testing.T) {
	_, s := developer(t, "bank.example")
	challenge := &tls.Certificate{}
	takeDown := s.challenges.showCertificate("bank.example", challenge)
	hello := func(name string, protocols ...string) *tls.Certificate {
		c, _ := s.GetCertificate(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: protocols})
		return c
	}
	if hello("bank.example", ChallengeProtocol) != challenge || hello("Bank.Example", ChallengeProtocol) != challenge {
		t.Error("the challenge is not answered")
	}
	if c := hello("bank.example", "h2", ChallengeProtocol); c == nil || c == challenge {
		t.Error("a client got the challenge's certificate, or none")
	}
	if hello("other.example", ChallengeProtocol) != nil {
		t.Error("a challenge for another name is answered")
	}
	takeDown()
	if hello("bank.example", ChallengeProtocol) != nil {
		t.Error("answered after it was over")
	}
}

func TestHTTPChallengesOfOthersPass(t *testing.T) {
	_, s := developer(t, "bank.example")
	takeDown := s.challenges.showToken("bank.example", "token", "token.thumb")
	handler := s.HTTPHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	for _, tt := range []struct {
		method, host, path string
		ours               bool
	}{
		{"GET", "bank.example", "/.well-known/acme-challenge/token", true},
		{"GET", "Bank.example:80", "/.well-known/acme-challenge/token", true},
		{"HEAD", "bank.example", "/.well-known/acme-challenge/token", true},
		{"POST", "bank.example", "/.well-known/acme-challenge/token", false},
		{"GET", "other.example", "/.well-known/acme-challenge/token", false},
		{"GET", "bank.example", "/.well-known/acme-challenge/other", false},
		{"GET", "bank.example", "/.well-known/acme-challenge/", false},
		{"GET", "bank.example", "/token", false},
	} {
		r := httptest.NewRequest(tt.method, "http://"+tt.host+tt.path, nil)
		got := httptest.NewRecorder()
		handler.ServeHTTP(got, r)
		if ours := got.Code == http.StatusOK; ours != tt.ours || ours && tt.method == "GET" && got.Body.String() != "token.thumb" {
			t.Errorf("%s %s%s: %d %s", tt.method, tt.host, tt.path, got.Code, got.Body)
		}
	}
	takeDown()
	got := httptest.NewRecorder()
	handler.ServeHTTP(got, httptest.NewRequest("GET", "http://bank.example/.well-known/acme-challenge/token", nil))
	if got.Code != http.StatusTeapot {
		t.Error("answered after it was over")
	}
}

func TestNamesAreChecked(t *testing.T) {
	for name, want := range map[string]bool{
		"bank.example": true, "xn--bcher-kva.example": true, "*.bank.example": true, "localhost": true, "a.b-c.d0": true,
		"": false, "*": false, "*.": false, "Bank.example": false, "bank.example.": false, ".example": false, "a..b": false, "-a.example": false, "a-.example": false,
		"a_b.example": false, "a.*.example": false, "*.*.example": false, "127.0.0.1": false, "::1": false, "bank.example:443": false, "bücher.example": false,
		strings.Repeat("a", 64) + ".example": false, strings.Repeat("a.", 127) + "example": false, "a b.example": false, "a\n.example": false,
	} {
		if err := checkName(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	for name, edit := range map[string]func(c *Config){
		"no source":              func(c *Config) { c.SelfSigned = false },
		"two sources":            func(c *Config) { c.CSR = &CSR{Request: "a", Chain: "b"} },
		"no clock":               func(c *Config) { c.Now = nil },
		"no log":                 func(c *Config) { c.Log = nil },
		"no trust domain":        func(c *Config) { c.TrustDomain = "" },
		"a name that is none":    func(c *Config) { c.Names = []string{"_"} },
		"too many names":         func(c *Config) { c.Names = manyNames(maxNames + 1) },
		"sealer without path":    func(c *Config) { c.Path = "" },
		"nobody asked for hosts": func(c *Config) { c.SelfSigned, c.Allowed, c.ACME = false, nil, &ACME{Directory: LetsEncrypt} },
		"directory without TLS":  func(c *Config) { c.SelfSigned, c.ACME = false, &ACME{Directory: "http://ca.example/"} },
		"challenge by DNS": func(c *Config) {
			c.SelfSigned, c.ACME = false, &ACME{Directory: LetsEncrypt, Challenges: []string{"dns-01"}}
		},
		"roots that are none":          func(c *Config) { c.SelfSigned, c.ACME = false, &ACME{Directory: LetsEncrypt, Roots: []byte("x")} },
		"half an external account":     func(c *Config) { c.SelfSigned, c.ACME = false, &ACME{Directory: LetsEncrypt, EAB: &EAB{KeyID: "x"}} },
		"request and chain in one":     func(c *Config) { c.SelfSigned, c.CSR = false, &CSR{Request: "a", Chain: "a"} },
		"root of requests that is not": func(c *Config) { c.SelfSigned, c.CSR = false, &CSR{Request: "a", Chain: "b", Root: []byte("x")} },
	} {
		w := newWorld(t, "bank.example")
		w.cfg.SelfSigned = true
		edit(&w.cfg)
		if _, err := Open(t.Context(), w.cfg); err == nil || !strings.HasPrefix(err.Error(), "opening the store") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func manyNames(n int) (names []string) {
	for i := range n {
		names = append(names, "n"+itoa(i)+".example")
	}
	return names
}

func TestSelfSignedSaysWhatItIs(t *testing.T) {
	w, s := developer(t, "bank.example", "shop.example")
	chain, err := w.handshake("bank.example")
	if err != nil {
		t.Fatal(err)
	}
	if got := chain[0].Subject.String(); !strings.Contains(got, "self-signed") || len(chain) != 1 || len(chain[0].DNSNames) != 2 {
		t.Errorf("%s for %v", got, chain[0].DNSNames)
	}
	if st := stateOf(t, s, "shop.example"); st.Source != sourceSelf || st.State != StateValid {
		t.Errorf("%v", st)
	}
	w.clock.move(61 * 24 * 3600e9)
	s.step(t.Context())
	if st := stateOf(t, s, "shop.example"); st.Serial == serial(chain[0]) {
		t.Error("not renewed")
	}
}

func TestMetricsSayWhenCertificatesEndAndWhatIsWrong(t *testing.T) {
	l := newLiar(t)
	w := newWorld(t, "bank.example", "denied.example")
	w.cfg.ACME, w.cfg.Metrics = l.acme(), prometheus.NewRegistry()
	w.deny("denied.example", true)
	s := w.open()
	s.step(t.Context())
	reg := s.cfg.Metrics.(*prometheus.Registry)
	got := map[string]bool{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			line := f.GetName()
			for _, l := range m.Label {
				line += " " + l.GetName() + "=" + l.GetValue()
			}
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue()
			got[fmt.Sprintf("%s %d", line, int64(v))] = true
		}
	}
	for _, want := range []string{
		"c8s_ingress_certificate_problem code=host-not-allowed name=denied.example 1",
		"c8s_ingress_certificate_tries_total result=host-not-allowed 1",
		"c8s_ingress_certificate_tries_total result=issued 1",
		"c8s_ingress_tls_keys 1",
		"c8s_ingress_certificate_state_unsaved 0",
		fmt.Sprintf("c8s_ingress_certificate_expiry_timestamp_seconds name=bank.example %d", stateOf(t, s, "bank.example").NotAfter.Unix()),
		"c8s_ingress_certificate_expiry_timestamp_seconds name=denied.example 0",
	} {
		if !got[want] {
			t.Errorf("no %s in %v", want, got)
		}
	}
}

func BenchmarkGetCertificate(b *testing.B) {
	s := &Store{}
	in := &served{certs: map[string]*tls.Certificate{}, known: map[string]bool{}}
	for _, name := range manyNames(maxNames) {
		in.certs[name], in.known[name] = &tls.Certificate{}, true
	}
	in.certs[".bank.example"] = &tls.Certificate{}
	s.served.Store(in)
	for _, name := range []string{"n500.example", "a.bank.example"} {
		b.Run(name, func(b *testing.B) {
			hello := &tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{"h2", "http/1.1"}}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.GetCertificate(hello); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
