// SPDX-License-Identifier: Apache-2.0

package cdscmd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
)

const (
	probeTimeout = 10 * time.Second
	maxDocument  = 32 << 20 // bytes
	baseURL      = "https://cds"
)

// probe is one TLS connection to a CDS about which nothing is believed. Only
// public documents are asked for on it.
type probe struct {
	addr string
	conn *tls.Conn
	http *http.Client
	leaf *x509.Certificate // its key is this connection's; the rest is to be judged
}

func dial(ctx context.Context, addr string) (*probe, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("reaching the CDS: %w", err)
	}
	p := &probe{addr: addr}
	none := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	cfg := ratls.ClientConfig(none, func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) != 1 {
			return fmt.Errorf("the CDS showed %d certificates, want its native raTLS certificate alone", len(cs.PeerCertificates))
		}
		p.leaf = cs.PeerCertificates[0]
		return nil
	})
	cfg.NextProtos = []string{"h2"}
	p.conn = tls.Client(raw, cfg)
	if err := p.conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("connecting to the CDS at %s: %w", addr, err)
	}
	var used atomic.Bool
	p.http = &http.Client{Timeout: probeTimeout, Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errors.New("the connection to the CDS is gone")
			}
			return p.conn, nil
		},
	}}
	return p, nil
}

func (p *probe) close() {
	p.http.CloseIdleConnections()
	p.conn.Close()
}

// get reads a public document. A refusal is a *client.RefusedError, and absence
// an error that wraps fs.ErrNotExist.
func (p *probe) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return body, nil
	case http.StatusNotFound:
		return nil, fmt.Errorf("reading %s: %w", path, fs.ErrNotExist)
	}
	code, _, _ := strings.Cut(string(body[:min(len(body), 64)]), "\n")
	return nil, &client.RefusedError{Code: fmt.Sprintf("%.64q", code)}
}

// ready asks for a challenge, which a CDS gives only while it can issue.
func (p *probe) ready(ctx context.Context) error {
	_, err := api.NewAttestationClient(p.http, baseURL).Challenge(ctx, &api.ChallengeRequest{})
	var remote *connect.Error
	if errors.As(err, &remote) && connect.IsWireError(err) {
		return &client.RefusedError{Code: fmt.Sprintf("%.64q", remote.Message())}
	}
	return err
}
