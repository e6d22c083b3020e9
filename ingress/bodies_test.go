// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestABackendThatDiesMidStreamNeverLooksComplete(t *testing.T) {
	w := newWorld(t)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			rw.Header().Set("Content-Length", "1000")
		}
		io.WriteString(rw, "half")
		http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})))
	for name, c := range map[string]*http.Client{"h1": w.client(), "h2": w.client(h2)} {
		for _, path := range []string{"/length", "/chunked"} {
			res, err := c.Get("https://bank.example" + path)
			if err != nil {
				continue // the error came with the header: as good
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil {
				t.Errorf("%s %s: %q looks complete", name, path, body)
			}
		}
	}
}

func TestStreamsPassWithoutWaiting(t *testing.T) {
	w := newWorld(t)
	nexts := map[string]chan string{"/1": make(chan string), "/2": make(chan string)}
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case e := <-nexts[r.URL.Path]:
				io.WriteString(rw, "data: "+e+"\n\n")
				http.NewResponseController(rw).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})))
	for path, c := range map[string]*http.Client{"/1": w.client(), "/2": w.client(h2)} {
		next := nexts[path]
		go func() { next <- "first" }()
		res, err := c.Get("https://bank.example" + path)
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(res.Body)
		for _, e := range []string{"first", "second", "third"} {
			if e != "first" {
				next <- e // only after the one before was read: nothing may wait for more
			}
			line, err := in.ReadString('\n')
			if err != nil || line != "data: "+e+"\n" {
				t.Fatalf("%q %v", line, err)
			}
			in.ReadString('\n')
		}
		res.Body.Close()
	}
}

func TestUploadsAnswerWhileTheyCome(t *testing.T) {
	w := newWorld(t)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.NewResponseController(rw).EnableFullDuplex()
		buf := make([]byte, 64)
		for {
			n, err := r.Body.Read(buf)
			rw.Write(buf[:n])
			http.NewResponseController(rw).Flush()
			if err != nil {
				return
			}
		}
	})))
	in, out := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, "https://bank.example/", in)
	go func() { out.Write([]byte("one")) }()
	res, err := w.client(h2).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	buf := make([]byte, 3)
	for _, part := range []string{"one", "two", "end"} {
		if part != "one" {
			out.Write([]byte(part))
		}
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != part {
			t.Fatalf("%q %v", buf, err)
		}
	}
	out.Close()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Error(rest, err)
	}
}

func TestTrailersAndContinue(t *testing.T) {
	w := newWorld(t)
	asked := make(chan struct{})
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "" {
			close(asked)
		}
		rw.Header().Set("Trailer", "X-Sum, C8s-Workload")
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %s", body, r.Trailer.Get("X-Up"))
		rw.Header().Set("X-Sum", "42")
		rw.Header().Set("C8s-Workload", "a lie")
		rw.Header().Set(http.TrailerPrefix+"X-Late", "yes")
		rw.Header().Set(http.TrailerPrefix+"C8s-Log", "a lie")
	})))
	for name, c := range map[string]*http.Client{"h1": w.client(), "h2": w.client(h2)} {
		req, _ := http.NewRequest(http.MethodPost, "https://bank.example/", io.NopCloser(strings.NewReader("body")))
		req.ContentLength, req.Trailer = -1, http.Header{"X-Up": {"loaded"}}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(body) != "body loaded" || res.Trailer.Get("X-Sum") != "42" || res.Trailer.Get("X-Late") != "yes" || res.Trailer.Get("C8s-Workload")+res.Trailer.Get("C8s-Log") != "" {
			t.Errorf("%s: %q %v %v", name, body, res.Trailer, err)
		}
	}
	got100 := false
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { got100 = true }})
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "https://bank.example/", strings.NewReader("body"))
	req.Header.Set("Expect", "100-continue")
	c := w.client()
	c.Transport.(*http.Transport).ExpectContinueTimeout = time.Minute
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	<-asked
	if !got100 || res.StatusCode != 200 {
		t.Errorf("100-continue: %v, %d", got100, res.StatusCode)
	}
}

func TestClientsSayNothingUnderOurNamesInTrailers(t *testing.T) {
	w := newWorld(t)
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(rw, r.Trailer)
	})))
	for name, c := range map[string]*http.Client{"h1": w.client(), "h2": w.client(h2)} {
		req, err := http.NewRequest(http.MethodPost, "https://bank.example/", io.NopCloser(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength, req.Trailer = -1, http.Header{"X-Up": {"loaded"}, "X-Forwarded-For": {"a lie"}, "C8s-Workload": {"a lie"}, "X_real_ip": {"a lie"}}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || string(body) != "map[X-Up:[loaded]]" {
			t.Errorf("%s: %s %v", name, body, err)
		}
	}
	conn := w.dialTLS("bank.example") // trailers that nobody announced
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: bank.example\r\nConnection: close\r\nTrailer: X-Up\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX-Up: loaded\r\nC8s-Log: a lie\r\n\r\n")
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(answer), "X-Up:[loaded]") || strings.Contains(string(answer), "lie") {
		t.Errorf("%s %v", answer, err)
	}
}

func TestUploadsThatClientsBreakOffAreNoFailuresOfPods(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Limits.BodyBytes = 100 })
	w.addPod("d/web", policytest.Web, serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })))
	const head = "POST / HTTP/1.1\r\nHost: bank.example\r\n"
	for name, raw := range map[string]string{
		"broken off":   head + "Content-Length: 50\r\n\r\nabc",
		"bad chunks":   head + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n",
		"more than it": head + "Transfer-Encoding: chunked\r\n\r\n80\r\n" + strings.Repeat("x", 128) + "\r\n0\r\n\r\n",
	} {
		conn := w.dialTLS("bank.example")
		_, _ = io.WriteString(conn, raw)
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(conn)
		conn.Close()
		w.until("the request to be over", func() bool { return w.server.running.count() == 0 })
		if sick := w.server.back.health.avoid(); len(sick) != 0 {
			t.Errorf("%s: the pod is passed over", name)
		}
	}
	if log := w.records.String(); strings.Contains(log, codeBackendBroke) {
		t.Error("the pod is blamed:", log)
	}
}
