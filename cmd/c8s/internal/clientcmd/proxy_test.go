// SPDX-License-Identifier: Apache-2.0

package clientcmd_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/c8s-dev/c8s/client/clienttest"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// proxy runs the command until stop, and returns where it listens.
func (s *site) proxy(t *testing.T, line string) (addrs []string, stop func()) {
	t.Helper()
	c := command()
	words := strings.Fields("proxy " + line + s.flags() + " --allow-simulated")
	listeners := 0
	for i, word := range words {
		if strings.HasPrefix(word, "@") {
			words[i] = s.Path(word[1:])
		}
		if word == "--listen" || word == "--tcp" {
			listeners++
		}
	}
	c.SetArgs(words)
	c.SilenceErrors, c.SilenceUsage = true, true
	r, w := io.Pipe()
	c.SetErr(w)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.ExecuteContext(ctx); w.Close() }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the proxy ended: %v", err)
		}
	})
	t.Cleanup(stop)
	lines := bufio.NewScanner(r)
	for range listeners {
		if !lines.Scan() {
			t.Fatalf("the proxy does not listen: %v", <-done)
		}
		_, rest, _ := strings.Cut(lines.Text(), "listening on ")
		addr, _, _ := strings.Cut(rest, " ")
		addrs = append(addrs, addr)
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	return addrs, stop
}

func TestProxyCarriesHTTPForProgramsThatKnowNothing(t *testing.T) {
	s := newSite(t)
	next := make(chan struct{})
	s.in.Use(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/stream":
			_, _ = io.WriteString(rw, "one\n")
			rw.(http.Flusher).Flush()
			<-next
			_, _ = io.WriteString(rw, "two\n")
		case "/v1/away":
			rw.Header().Set("Location", url+"/v1/x")
			rw.WriteHeader(http.StatusFound)
		default:
			_, _ = io.WriteString(rw, r.Host+r.URL.Path+r.Header.Get("X-Forwarded-For"))
		}
	})
	addrs, stop := s.proxy(t, "--listen 127.0.0.1:0 --to "+url+"/v1")
	base := addrs[0]
	if got := fetch(t, base+"/x", ""); got != clienttest.Host+"/v1/x" {
		t.Errorf("%q", got)
	}
	if got := fetch(t, base+"/x", "evil.example"); !strings.Contains(got, "no proxy for") {
		t.Errorf("a name that points here: %q", got)
	}
	resp, err := http.Get(base + "/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "one" {
		t.Errorf("%q", lines.Text())
	}
	close(next)
	if !lines.Scan() || lines.Text() != "two" {
		t.Errorf("%q", lines.Text())
	}
	away, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Get(base + "/away")
	if err != nil {
		t.Fatal(err)
	}
	away.Body.Close()
	if got := away.Header.Get("Location"); got != "/v1/x" {
		t.Errorf("a redirection leads around the proxy: %q", got)
	}
	stop()
	if _, err := net.Dial("tcp", strings.TrimPrefix(base, "http://")); err == nil {
		t.Error("it still listens")
	}
}

func fetch(t *testing.T, u, host string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestProxyCarriesTCP(t *testing.T) {
	s := newSite(t)
	s.in.Use(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != clienttest.Host+":5432" {
			rw.WriteHeader(http.StatusForbidden)
			return
		}
		conn, rd, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		_, _ = io.Copy(conn, rd)
	})
	addrs, _ := s.proxy(t, "--tcp 127.0.0.1:0="+clienttest.Host+":5432 --tcp unix:"+s.Path("db.sock")+"="+clienttest.Host+":5432")
	for i, network := range []string{"tcp", "unix"} {
		conn, err := net.Dial(network, strings.TrimPrefix(addrs[i], "unix:"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", network, got, err)
		}
	}
}

func TestProxyLetsNobodyInBeforeTheProof(t *testing.T) {
	s := newSite(t)
	s.in.Answer(proof.PathAttestation, http.NotFound)
	s.Refused(exit.Refused, "proxy --listen 127.0.0.1:0 --to "+url+s.flags()+" --allow-simulated", "nothing was sent")
	s.in.NothingArrived(t)
}
