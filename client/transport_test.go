// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/c8s-dev/c8s/client/clienttest"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/receipt"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestStreamsUpgradesAndTrailersPass(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	next := make(chan struct{})
	in.Use(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/events":
			for i := range 3 {
				fmt.Fprintf(rw, "data: %d\n", i)
				rw.(http.Flusher).Flush()
				<-next
			}
			rw.Header().Set(http.TrailerPrefix+"Done", "yes")
		case "/echo":
			conn, rd, err := http.NewResponseController(rw).Hijack()
			must(t, err)
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_, _ = io.Copy(conn, rd)
		case "/upload":
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(rw, n)
		}
	})
	c := newClient(t, config(w, in))
	h := &http.Client{Transport: c.Transport()}
	resp, err := h.Get("https://" + host + "/events")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) {
			t.Fatalf("event %d: %q", i, lines.Text())
		}
		next <- struct{}{}
	}
	if lines.Scan(); resp.Trailer.Get("Done") != "yes" {
		t.Errorf("trailers %v", resp.Trailer)
	}
	resp.Body.Close()

	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/echo", nil)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "echo")
	if resp, err = h.Do(req); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	both := resp.Body.(io.ReadWriteCloser)
	if _, err := io.WriteString(both, "hello"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(both, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	both.Close()

	resp, err = h.Post("https://"+host+"/upload", "", io.LimitReader(zeros{}, 8<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, _ := io.ReadAll(resp.Body); string(n) != fmt.Sprint(8<<20) {
		t.Errorf("%s bytes arrived", n)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestRequestsThatAreCancelledEnd(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	arrived := make(chan struct{}, 1)
	in.Use(func(_ http.ResponseWriter, r *http.Request) { arrived <- struct{}{}; <-r.Context().Done() })
	for _, h1 := range []bool{true, false} {
		cfg := config(w, in)
		cfg.OnlyHTTP1 = h1
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-arrived; cancel() }()
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host, nil)
		if _, err := newClient(t, cfg).Transport().RoundTrip(req); !errors.Is(err, context.Canceled) {
			t.Errorf("HTTP/1.1 only %t: %v", h1, err)
		}
	}
}

// A connection that ended while it was idle costs no request that may be sent
// again, and no other request is sent twice.
func TestRequestsAreSentAgainWhereThatIsSafe(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	for _, h1 := range []bool{true, false} {
		cfg := config(w, in)
		cfg.OnlyHTTP1 = h1
		c := newClient(t, cfg)
		in.Use(func(http.ResponseWriter, *http.Request) {})
		if _, err := get(t, c, "/"); err != nil {
			t.Fatal(err)
		}
		first := true
		in.Use(func(rw http.ResponseWriter, r *http.Request) {
			if first {
				first = false
				panic(http.ErrAbortHandler)
			}
		})
		before := in.Requests.Load()
		_, err := get(t, c, "/")
		if n := in.Requests.Load() - before; h1 && (err != nil || n != 2) {
			t.Errorf("GET: %d requests, %v, want it sent again", n, err)
		}
		first, before = true, in.Requests.Load()
		if _, err := send(t, c); err == nil || in.Requests.Load()-before != 1 {
			t.Errorf("POST: %d requests, %v, want one that fails", in.Requests.Load()-before, err)
		}
	}
}

func TestReceiptsAreVerified(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	signer := receipt.NewSigner(in.ReceiptKey, w.Now)
	fields := receipt.Fields{Workload: policytest.Web, Manifest: 1, Evidence: policytest.Digest("evidence")}
	in.Use(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Date", w.Now().UTC().Format(http.TimeFormat))
		fields.Set(rw.Header())
		if r.URL.Path == "/backend" {
			rw.Header().Set("Signature-Input", `sig1=("date");created=1;keyid="pod"`)
			rw.Header().Set("Signature", "sig1=:AAAA:")
			return
		}
		signer.Sign(rw.Header(), http.StatusOK, r)
		if r.URL.Path == "/changed" {
			rw.Header().Set(receipt.HeaderWorkload, policytest.DB)
		}
	})
	var seen []*receipt.Receipt
	cfg := config(w, in)
	cfg.OnReceipt = func(r *receipt.Receipt) { seen = append(seen, r) }
	c := newClient(t, cfg)
	resp, err := (&http.Client{Transport: c.Transport()}).Get("https://" + host + "/a?b=c")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if r := ReceiptOf(resp); r == nil || r.Workload != policytest.Web || r.Path != "/a" || len(seen) != 1 || seen[0] != r {
		t.Errorf("%+v, seen %d", r, len(seen))
	}
	if r := ReportOf(resp); r == nil || r.TLSKey != policy.DigestFrom(in.SPKI()) {
		t.Errorf("%+v", r)
	}
	if _, err := get(t, c, "/changed"); codeOf(err) != CodeReceipt {
		t.Errorf("a changed answer: %v", err)
	}
	var refused *Refusal
	if _, err := get(t, c, "/changed"); !errors.As(err, &refused) || !refused.Answered() {
		t.Errorf("an answer was refused, and the error does not say that the request was sent: %v", err)
	}
	if resp, err = (&http.Client{Transport: c.Transport()}).Get("https://" + host + "/backend"); err != nil {
		t.Fatal("a backend's own signature: ", err)
	}
	resp.Body.Close()
	if ReceiptOf(resp) != nil || resp.Header.Get("Signature") == "" {
		t.Errorf("a backend's own signature: %+v, %v", ReceiptOf(resp), resp.Header)
	}
	plain := newClient(t, config(w, in))
	if resp, err = (&http.Client{Transport: plain.Transport()}).Get("https://" + host); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ReceiptOf(resp) != nil || resp.Header.Get("Signature") != "" {
		t.Error("a receipt that nobody asked for")
	}
}

func TestTCPThroughAProvenIngress(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	in.Use(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != host+":5432" {
			http.Error(rw, "ingress-mode", http.StatusForbidden)
			return
		}
		conn, rd, err := http.NewResponseController(rw).Hijack()
		must(t, err)
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nfirst")
		_, _ = io.Copy(conn, rd)
	})
	c := newClient(t, config(w, in))
	conn, err := c.DialTCP(t.Context(), host+":5432")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "second"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "firstsecond" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.DialTCP(t.Context(), host+":5433"); err == nil || !strings.Contains(err.Error(), "ingress-mode") {
		t.Errorf("a service that is not there: %v", err)
	}
	for _, target := range []string{host, host + ":0", host + ":x", ""} {
		if _, err := c.DialTCP(t.Context(), target); !errors.Is(err, errTarget) {
			t.Errorf("%q: %v", target, err)
		}
	}
	if _, err := c.DialTCPVia(t.Context(), host+":443", "other.example:5432"); !errors.Is(err, errTarget) {
		t.Errorf("a target at another host: %v", err)
	}
}

func TestTCPIsNotCarriedToAnUnprovenKey(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress(func(in *clienttest.Ingress) { in.Answer(proof.PathAttestation, http.NotFound) })
	if _, err := newClient(t, config(w, in)).DialTCP(t.Context(), host+":5432"); codeOf(err) == "" {
		t.Errorf("got %v", err)
	}
	in.NothingArrived(t)
}

func TestManyAtOnce(t *testing.T) {
	w := clienttest.New(t)
	in := w.Ingress()
	for _, h1 := range []bool{true, false} {
		cfg := config(w, in)
		cfg.OnlyHTTP1 = h1
		c := newClient(t, cfg)
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				for range 10 {
					if _, err := get(t, c, "/"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		c.Close()
		if _, err := get(t, c, "/"); !errors.Is(err, errClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestUnreachableHostsAreNoRefusal(t *testing.T) {
	w := clienttest.New(t)
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	cfg := Config{Anchor: FromOperators(w.Operators), Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, ln.Addr().String())
	}}
	c := newClient(t, cfg)
	if _, err := get(t, c, "/"); err == nil || codeOf(err) != "" {
		t.Errorf("got %v", err)
	}
	if r, err := c.Verify(t.Context(), host); err == nil || r != nil {
		t.Errorf("%+v, %v", r, err)
	}
}
