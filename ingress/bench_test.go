// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/c8s-dev/c8s/policy/policytest"
)

// BenchmarkRequest compares 1 KiB answers over kept connections with what
// httputil.ReverseProxy alone needs for the same. There are no tunnels below:
// what is measured is this package.
func BenchmarkRequest(b *testing.B) {
	answer := bytes.Repeat([]byte("x"), 1024)
	backend := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.Write(answer) })
	for _, v := range []struct {
		name string
		set  []func(*http.Protocols)
	}{{"h1", nil}, {"h2", []func(*http.Protocols){h2}}} {
		b.Run("ingress/"+v.name, func(b *testing.B) {
			w := newWorld(b, func(c *Config) { c.Access, c.Log = nil, slog.New(slog.DiscardHandler) })
			w.addPod("d/web", policytest.Web, serve(b, backend))
			ask(b, w.client(v.set...))
		})
		b.Run("reverseproxy/"+v.name, func(b *testing.B) {
			w := newWorld(b)
			to, err := url.Parse("http://" + serve(b, backend).Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			w.https = listen(b)
			srv := &http.Server{
				Handler: &httputil.ReverseProxy{
					Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() },
					Transport:  &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
					BufferPool: newBuffers(),
				},
				TLSConfig: &tls.Config{GetCertificate: w.certs.GetCertificate, NextProtos: []string{"h2", "http/1.1"}},
			}
			go srv.ServeTLS(w.https, "", "")
			b.Cleanup(func() { srv.Close() })
			ask(b, w.client(v.set...))
		})
	}
}

func ask(b *testing.B, c *http.Client) {
	b.Helper()
	c.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			res, err := c.Get("https://bank.example/")
			if err != nil {
				b.Error(err)
				return
			}
			if n, err := io.Copy(io.Discard, res.Body); n != 1024 || err != nil {
				b.Error(n, err)
			}
			res.Body.Close()
		}
	})
}
