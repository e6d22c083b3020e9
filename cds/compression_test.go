// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
)

func TestNothingIsCompressed(t *testing.T) {
	w := newWorld(t)
	cfg := ratls.ClientConfig(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil },
		func(tls.ConnectionState) error { return nil })
	transport := &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	for sent, want := range map[string]int{"": http.StatusOK, "gzip": http.StatusNotImplemented} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+w.addr+api.AttestationChallengeProcedure, bytes.NewReader(nil))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/proto")
		req.Header.Set("Accept-Encoding", "gzip")
		if sent != "" {
			req.Header.Set("Content-Encoding", sent)
		}
		resp, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want || resp.Header.Get("Content-Encoding") != "" || len(body) == 0 {
			t.Errorf("sent as %q: %s, in encoding %q: %s", sent, resp.Status, resp.Header.Get("Content-Encoding"), body)
		}
	}
}
