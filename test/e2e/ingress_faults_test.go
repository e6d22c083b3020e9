// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/ingress/daemon"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/lab"
)

// refused asks the ingress until it refuses, since a lie takes a moment to be
// believed, and returns the code and the ingress's word about it.
func (s *webSite) refused(t *testing.T, url, code string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, body := s.get(t, url)
		var problem struct {
			Status int
			Code   string
			Rule   string
		}
		if resp.StatusCode >= 400 && json.Unmarshal([]byte(body), &problem) == nil && problem.Code == code {
			if got := resp.Header.Get("Content-Type"); got != "application/problem+json" || problem.Rule != "" {
				t.Errorf("%s: %s", got, body)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s, want a refusal with the code %s", resp.Status, body, code)
		}
	}
	var line struct{ Code, Rule, Expected, Actual, Remedy string }
	for text := range strings.Lines(s.ingress.Log()) {
		if json.Unmarshal([]byte(text), &line) == nil && line.Code == code && line.Rule != "" {
			break
		}
	}
	if line.Code != code || line.Rule == "" || line.Remedy == "" {
		t.Errorf("the log does not say what was refused with %s, and what to do: %+v", code, line)
	}
}

// lead has the Service of bank.example lead to a pod.
func (s *webSite) lead(addr netip.Addr) {
	s.services(map[string]netip.AddrPort{"web": netip.AddrPortFrom(addr, webPort), "shop": netip.AddrPortFrom(s.shop.Addr4, webPort)})
}

// home leads the Service home again, and waits until it does.
func (s *webSite) home(t *testing.T) {
	t.Helper()
	s.lead(s.web.Addr4)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if resp, _ := s.get(t, "https://"+bankHost+"/"); resp.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the Service does not lead home")
		}
	}
}

// Whoever writes Services points bank.example at another workload, which is
// attested and listed, for another host.
func (s *webSite) swapToListed(t *testing.T) {
	s.lead(s.shop.Addr4)
	s.refused(t, "https://"+bankHost+"/", string(policy.CodeIngressWorkload))
	if resp, body := s.get(t, "https://"+shopHost+"/"); resp.StatusCode != http.StatusOK {
		t.Errorf("the other host suffers: %s %s", resp.Status, body)
	}
	s.home(t)
}

// A pod that no entry lists is locked and has no certificate: nobody answers
// for it.
func (s *webSite) swapToUnlisted(t *testing.T) {
	p, err := s.Nodes[1].AddPod(t.Context(), "", lab.PodSpec{Name: "unlisted", Images: []string{image("nobody signed this")}})
	if err != nil {
		t.Fatal(err)
	}
	s.serveWeb(p, "unlisted")
	s.lead(p.Addr4)
	s.refused(t, "https://"+bankHost+"/", "peer-refused-certificate")
	s.home(t)
}

// A host that only the routes have is nobody's: it gets no certificate.
func (s *webSite) foreignHost(t *testing.T) {
	const foreign = "evil.example"
	if err := s.ingress.SetRoutes([]byte(strings.Replace(ingressRoutes, `"hosts": ["shop.example"]`, `"hosts": ["shop.example", "evil.example"]`, 1))); err != nil {
		t.Fatal(err)
	}
	if err := s.ingress.Wait(t.Context(), "to have the routes", func(st *daemon.Status) error {
		if len(st.Hosts) != 3 {
			return fmt.Errorf("hosts %v", st.Hosts)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.browser().Get("https://" + foreign + "/"); err == nil {
		t.Error("a host that the manifest does not have was served")
	}
	st, err := s.ingress.Status(t.Context())
	if err != nil || len(st.Certificates) != 2 || !strings.Contains(s.ingress.Log(), foreign) {
		t.Errorf("certificates %+v, %v", st, err)
	}
}

// restart: key and certificates are sealed on the disk, so that the CA is not
// asked again; and nothing there is in clear.
func (s *webSite) restart(t *testing.T) {
	resp, _ := s.get(t, "https://"+bankHost+"/")
	before := resp.TLS.PeerCertificates[0]
	if err := s.ingress.Kill(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(s.ingress.StateDir(), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte("PRIVATE KEY")) || bytes.Contains(raw, before.Raw) {
			t.Errorf("%s is not sealed", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ingress.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.ingress.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if resp, _ := s.get(t, "https://"+bankHost+"/"); resp.StatusCode != http.StatusOK || !resp.TLS.PeerCertificates[0].Equal(before) {
		t.Errorf("%s; serial %x, was %x", resp.Status, resp.TLS.PeerCertificates[0].SerialNumber, before.SerialNumber)
	}
	if log := s.ingress.Log(); strings.Contains(log, "certificate issued") {
		t.Errorf("the CA was asked again:\n%s", log)
	}
	s.verify(t) // with keys for HPKE and receipts that are new
}

// denied: the operators take back a workload, and the ingress obeys at once.
func (s *webSite) denied(t *testing.T) {
	if err := s.Deny(t.Context(), policy.Denial{Kind: policy.DenyWorkload, Value: "web", Reason: "broken into"}); err != nil {
		t.Fatal(err)
	}
	s.refused(t, "https://"+bankHost+"/", "peer-refused-certificate") // its node has dropped it
	if err := s.Deny(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.home(t)
}

// withoutCDS: browsers go on as before, and who verifies is told that the proof
// is old.
func (s *webSite) withoutCDS(t *testing.T) {
	const maxAge = "15s" // a beacon comes every ten seconds
	if code, out := s.run(t, "verify", "https://"+bankHost, "--max-age", maxAge); code != exitPartly {
		t.Fatalf("exit code %d\n%s", code, out)
	}
	if err := s.CDS[0].Kill(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		if resp, body := s.get(t, "https://"+bankHost+"/"); resp.StatusCode != http.StatusOK {
			t.Fatalf("a browser: %s %s", resp.Status, body)
		}
		code, out := s.run(t, "verify", "https://"+bankHost, "--max-age", maxAge)
		if code == exitRefused && strings.Contains(out, "beacon") {
			break
		}
		if code == exitRefused || time.Now().After(deadline) {
			t.Fatalf("exit code %d\n%s", code, out)
		}
	}
	if code, out := s.run(t, "curl", "--allow-simulated", "--max-age", maxAge, "https://"+bankHost+"/"); code != exitRefused || strings.Contains(out, "web for") {
		t.Errorf("a request was sent on an old proof: %d\n%s", code, out)
	}
	st, err := s.ingress.Status(t.Context())
	if err != nil || st.NotReady != "" || st.Proof.Code == "" {
		t.Errorf("%+v %v", st, err)
	}
}

// drain: a request under way is answered after SIGTERM, a new one is not.
func (s *webSite) drain(t *testing.T) {
	body, send := io.Pipe()
	defer send.Close()
	type result struct {
		text string
		err  error
	}
	answered := make(chan result, 1)
	hc := s.browser()
	go func() {
		resp, err := hc.Post("https://"+bankHost+"/upload", "text/plain", body)
		if err != nil {
			answered <- result{err: err}
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		answered <- result{string(text), err}
	}()
	if _, err := io.WriteString(send, "begun "); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(send, "before "); err != nil { // so the first part was taken
		t.Fatal(err)
	}
	if err := s.ingress.Terminate(); err != nil {
		t.Fatal(err)
	}
	if err := s.ingress.Wait(t.Context(), "to drain", func(st *daemon.Status) error {
		if !st.Draining {
			return errors.New("it does not")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := s.browser().Get("https://" + bankHost + "/")
		if err != nil {
			break
		}
		resp.Body.Close()
		if time.Now().After(deadline) {
			t.Fatal("new connections are taken while it drains")
		}
	}
	if _, err := io.WriteString(send, "and ended"); err != nil {
		t.Fatal(err)
	}
	if err := send.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got.err != nil || !strings.HasPrefix(got.text, "22 ") {
		t.Errorf("%q %v", got.text, got.err)
	}
	if code, err := s.ingress.WaitEnd(t.Context()); code != 0 || err != nil {
		t.Errorf("exit code %d, %v\n%s", code, err, s.ingress.Log())
	}
}
