// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/c8s-dev/c8s/client/clienttest"
)

// BenchmarkRequest compares a request on a proven, kept connection with one of
// plain net/http to the same server.
func BenchmarkRequest(b *testing.B) {
	w := clienttest.New(b)
	in := w.Ingress()
	in.Use(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(make([]byte, 1024)) })
	for _, h1 := range []bool{true, false} {
		cfg := config(w, in)
		cfg.OnlyHTTP1 = h1
		plain := &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, ServerName: host, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: !h1,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, in.Addr())
			},
		}
		defer plain.CloseIdleConnections()
		name := map[bool]string{true: "http1", false: "http2"}[h1]
		for kind, rt := range map[string]http.RoundTripper{"plain": plain, "proven": newClient(b, cfg).Transport()} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "https://"+host, nil)
					if err != nil {
						b.Fatal(err)
					}
					resp, err := rt.RoundTrip(req)
					if err != nil {
						b.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
	}
}
