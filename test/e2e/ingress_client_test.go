// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/web"
)

// Exit codes of c8s.
const exitRefused, exitPartly = 1, 3

// run runs a command of c8s as a user of the service would, and returns its
// exit code and all that it said.
func (s *webSite) run(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	cmd := s.user.Command(timeout(t, time.Minute), binary, append(args,
		"--operators", s.OperatorsFile(), "--cacert", s.caFile, "--connect", s.edge.Addr4.String()+":443", "--state", t.TempDir())...)
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatalf("%v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

// verify: with simulated hardware everything is right and the hardware proves
// nothing, so the answer is "partly proven", exit code 3, and never 0.
func (s *webSite) verify(t *testing.T) {
	code, out := s.run(t, "verify", "https://"+bankHost, "-o", "json")
	if code != exitPartly {
		t.Fatalf("exit code %d, want %d\n%s", code, exitPartly, out)
	}
	if err := web.Simulated(out); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if code, out := s.run(t, "verify", "https://"+bankHost, "--nonce"); code != exitPartly || !strings.Contains(out, "PARTLY PROVEN") {
		t.Errorf("with a nonce: exit code %d\n%s", code, out)
	}
}

// curl sends only with leave to trust the simulation, and keeps a receipt that
// is checked without the network.
func (s *webSite) curl(t *testing.T) {
	if code, out := s.run(t, "curl", "https://"+bankHost+"/hello"); code != exitRefused || strings.Contains(out, "web for") {
		t.Errorf("simulated hardware was trusted: %d\n%s", code, out)
	}
	dir := t.TempDir()
	kept, documents := filepath.Join(dir, "receipt.json"), filepath.Join(dir, "proof")
	if code, out := s.run(t, "verify", "https://"+bankHost, "--save", documents); code != exitPartly {
		t.Fatalf("verify: %d\n%s", code, out)
	}
	code, out := s.run(t, "curl", "--allow-simulated", "--receipt", kept, "https://"+bankHost+"/hello")
	if code != 0 || !strings.Contains(out, "web for "+bankHost+" at /hello") {
		t.Fatalf("%d\n%s", code, out)
	}
	checked, err := s.user.Command(t.Context(), binary, "receipt", "verify", kept, "--key", filepath.Join(documents, "attestation.json")).CombinedOutput()
	if err != nil || !strings.Contains(string(checked), "web") {
		t.Errorf("the receipt: %v\n%s", err, checked)
	}
	raw, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	forged := filepath.Join(dir, "forged.json")
	if err := os.WriteFile(forged, bytes.Replace(raw, []byte("web"), []byte("wet"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.user.Command(t.Context(), binary, "receipt", "verify", forged, "--key", filepath.Join(documents, "attestation.json")).CombinedOutput(); err == nil {
		t.Errorf("a forged receipt is good:\n%s", out)
	}
}

// proxy lets programs that know nothing of it talk to the service: one of HTTP,
// one that sends bytes.
func (s *webSite) proxy(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	defer end()
	var said bytes.Buffer
	cmd := s.user.Command(ctx, binary, "proxy", "--listen", "127.0.0.1:8080", "--to", "https://"+bankHost, "--tcp", fmt.Sprintf("127.0.0.1:%d=%s:%d", echoPort, bankHost, echoPort),
		"--operators", s.OperatorsFile(), "--cacert", s.caFile, "--connect", s.edge.Addr4.String()+":443", "--state", t.TempDir(), "--allow-simulated")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		end()
		_ = cmd.Wait() // killed
		if t.Failed() {
			t.Logf("the proxy said:\n%s", said.String())
		}
	}()
	hc := &http.Client{Transport: &http.Transport{DialContext: s.user.Dial, DisableKeepAlives: true}}
	var body []byte
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := hc.Get("http://127.0.0.1:8080/by/proxy")
		if err == nil {
			body, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if !strings.HasPrefix(string(body), "web for "+bankHost+" at /by/proxy") {
		t.Errorf("%q", body)
	}
	conn, err := s.user.Dial(timeout(t, 30*time.Second), "tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), echoPort).String())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := echo(conn, "by proxy"); err != nil || !strings.HasSuffix(got, "by proxy") {
		t.Errorf("%q %v", got, err)
	}
}
