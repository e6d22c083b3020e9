// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/browser"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// An ingress on a machine of its own, from its first request to the end.
func TestIngress(t *testing.T) {
	s := newWebSite(t, false)
	s.onlyTLSOnTheWire(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"events", s.events},
		{"websocket", s.websocket},
		{"grpc", s.interop},
		{"connect", s.connect},
		{"page", s.pages},
		{"browser", s.chromium},
		{"operator's commands", s.commands},
		{"verify", s.verify},
		{"curl with a receipt", s.curl},
		{"proxy", s.proxy},
		{"another listed workload", s.swapToListed},
		{"a pod that nobody listed", s.swapToUnlisted},
		{"a host that operators do not have", s.foreignHost},
		{"restart", s.restart},
		{"deny list", s.denied},
		{"without a CDS", s.withoutCDS},
		{"drain", s.drain},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

func TestIngressOnThePodsNode(t *testing.T) {
	s := newWebSite(t, true)
	s.onlyTLSOnTheWire(t)
	s.verify(t)
}

// onlyTLSOnTheWire has browsers ask, and looks at every packet between the
// machines meanwhile.
func (s *webSite) onlyTLSOnTheWire(t *testing.T) {
	t.Helper()
	canary := capture.NewCanary()
	wire, err := capture.Start(s.Lab.Wire, lab.WireBridge, capture.Options{Canary: canary, Pods: podPrefixes(s.Cluster)})
	if err != nil {
		t.Fatal(err)
	}
	s.plainRequests(t)
	s.upload(t, canary)
	s.wantLogged(t)
	onlyTunnels(t, wire)
}

func (s *webSite) plainRequests(t *testing.T) {
	for _, host := range []string{bankHost, shopHost} {
		resp, body := s.get(t, "https://"+host+"/hello")
		workload := strings.TrimSuffix(host, ".example")
		if workload == "bank" {
			workload = "web"
		}
		want := fmt.Sprintf("%s for %s at /hello, from %s by %s:", workload, host, s.user.Addr4, s.edge.Addr4)
		if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || !strings.HasPrefix(body, want) {
			t.Errorf("%s over %s: %q, want %q", resp.Status, resp.Proto, body, want)
		}
		if got := resp.Header.Get("C8s-Workload"); !strings.Contains(got, workload) || resp.Header.Get("C8s-Manifest") == "" || resp.Header.Get("C8s-Evidence") == "" {
			t.Errorf("headers %v", resp.Header)
		}
	}
	if resp, _ := s.get(t, "http://"+bankHost+"/hello?a=b"); resp.StatusCode != http.StatusPermanentRedirect || resp.Header.Get("Location") != "https://"+bankHost+"/hello?a=b" {
		t.Errorf("without TLS: %s to %q", resp.Status, resp.Header.Get("Location"))
	}
}

// wantLogged waits until answers say where their pod's certificate is logged.
func (s *webSite) wantLogged(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, _ := s.get(t, "https://"+bankHost+"/")
		if resp.Header.Get("C8s-Log") != "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no index of the log: %v", resp.Header)
		}
	}
}

func (s *webSite) upload(t *testing.T, canary []byte) {
	body := bytes.Repeat(append(canary, bytes.Repeat([]byte("x"), 4<<10)...), 8<<10) // 32 MiB
	resp, err := s.browser().Post("https://"+bankHost+"/upload", "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if want := fmt.Sprintf("%d %x <nil>", len(body), sha256.Sum256(body)); err != nil || string(got) != want {
		t.Errorf("%q, want %q (%v)", got, want, err)
	}
}

func (s *webSite) events(t *testing.T) {
	if err := s.client().Events(t.Context(), bankHost); err != nil {
		t.Error(err)
	}
}

func (s *webSite) websocket(t *testing.T) {
	if err := s.client().WebSocket(t.Context(), bankHost); err != nil {
		t.Error(err)
	}
}

func (s *webSite) interop(t *testing.T) {
	if err := s.client().Interop(t.Context(), bankHost, func(check string) { t.Log(check) }); err != nil {
		t.Error(err)
	}
}

func (s *webSite) connect(t *testing.T) {
	conn, err := s.dial(t.Context(), "tcp", bankHost+":443")
	if err != nil {
		t.Fatal(err)
	}
	over := tls.Client(conn, &tls.Config{ServerName: bankHost, RootCAs: s.roots, NextProtos: []string{"http/1.1"}})
	defer over.Close()
	if err := over.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(over, "CONNECT %s:%d HTTP/1.1\r\nHost: %s:%d\r\n\r\n", bankHost, echoPort, bankHost, echoPort)
	answer := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.ReadFull(over, answer); err != nil || string(answer) != "HTTP/1.1 200" {
		t.Fatalf("%q %v", answer, err)
	}
	if _, err := io.WriteString(over, "by tunnel"); err != nil {
		t.Fatal(err)
	}
	if err := over.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(over)
	if err != nil || !strings.HasSuffix(string(rest), "by tunnel") || !strings.Contains(string(rest), s.edge.Addr4.String()) {
		t.Errorf("%q %v", rest, err)
	}
}

// pages are the documents for people and programs, on every host.
func (s *webSite) pages(t *testing.T) {
	for _, host := range []string{bankHost, shopHost} {
		resp, body := s.get(t, "https://"+host+"/.well-known/c8s/status")
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, "SIMULATED") || !strings.Contains(body, "fresh proof") || !strings.Contains(body, host) {
			t.Errorf("%s:\n%s", resp.Status, body)
		}
		var facts struct {
			State    string
			Backends []struct{ Workload string }
			Ingress  struct{ Certificate struct{ LogIndex *uint64 } }
		}
		if _, raw := s.get(t, "https://"+host+"/.well-known/c8s/status.json"); json.Unmarshal([]byte(raw), &facts) != nil || facts.State != "fresh" || len(facts.Backends) == 0 || facts.Ingress.Certificate.LogIndex == nil {
			t.Errorf("facts %+v of %s", facts, raw)
		}
		for _, path := range []string{"", "/attestation", "/cds/v1/manifest", "/cds/v1/endorsement", "/cds/log/checkpoint"} {
			if resp, body := s.get(t, "https://"+host+"/.well-known/c8s"+path); resp.StatusCode != http.StatusOK || body == "" {
				t.Errorf("%s: %s %q", path, resp.Status, body)
			}
		}
	}
}

// chromium is a browser that knows nothing of C8s: the application and the page
// for people, by the certificate of the CA.
func (s *webSite) chromium(t *testing.T) {
	resp, _ := s.get(t, "https://"+bankHost+"/")
	b := browser.Start(t, s.user.NS, browser.Options{Hosts: s.edge.Addr4.String() + ":443", Trust: resp.TLS.PeerCertificates[0]})
	view := browser.View{Width: 1024, Height: 768}
	var text string
	p := b.Open("https://"+bankHost+"/hello", view)
	if p.Eval(`document.body.innerText`, &text); !strings.HasPrefix(text, "web for "+bankHost) {
		t.Errorf("the application: %q", text)
	}
	p = b.Open("https://"+bankHost+"/.well-known/c8s/status", view)
	if p.Eval(`document.querySelector("h1").innerText + " " + document.getElementById("state").innerText`, &text); !strings.Contains(text, bankHost) || !strings.Contains(text, "fresh proof") {
		t.Errorf("the page: %q", text)
	}
	if c, r := p.Complaints(), p.Requests(); len(c) != 0 || len(r) != 1 {
		t.Errorf("complaints %v, requests %v", c, r)
	}
}

// commands are those for the operator of the machine.
func (s *webSite) commands(t *testing.T) {
	run := func(args ...string) string {
		t.Helper()
		out, err := s.edge.Command(t.Context(), binary, append(args, "--run-dir", s.ingress.RunDir())...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if text := run("ingress", "status"); !strings.Contains(text, "SIMULATED") || !strings.Contains(text, bankHost) || !strings.Contains(text, "accepted for") {
		t.Errorf("status:\n%s", text)
	}
	if text := run("ingress", "ready"); strings.TrimSpace(text) != "ready" {
		t.Errorf("ready: %s", text)
	}
	if text := run("ingress", "status", "-o", "json"); !json.Valid([]byte(text)) {
		t.Errorf("no JSON:\n%s", text)
	}
	for path, want := range map[string]string{"/readyz": "ok", "/healthz": "ok", "/metrics": "c8s_ingress_ready 1"} {
		hc := &http.Client{Transport: &http.Transport{DialContext: s.edge.Dial, DisableKeepAlives: true}}
		resp, err := hc.Get("http://127.0.0.1:15022" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s %v\n%s", path, resp.Status, err, body)
		}
	}
}
