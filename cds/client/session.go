// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/policy"
)

const (
	dialTimeout = 10 * time.Second
	// maxMessage bounds one message from the CDS, in bytes.
	maxMessage = 2 << 20
)

// errSessionUsed says that the one connection of a session is gone. Evidence
// and nonces are bound to it, so it is never replaced in silence.
var errSessionUsed = errors.New("the connection to the CDS is gone")

// session is one TLS connection to the CDS. Everything that binds to the TLS
// session happens on it.
type session struct {
	conn *tls.Conn
	http *http.Client
	// under is the manifest the CDS was verified under.
	under policy.Digest
}

// connect opens a session. With a node credential it is mutual TLS.
func (c *Client) connect(ctx context.Context, node *Credential) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	under := c.Manifest().Digest // at most older than what verifyServer uses
	raw, err := c.cfg.Dial(ctx, "tcp", c.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("reaching the CDS: %w", err)
	}
	cfg := ratls.ClientConfig(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if node == nil {
			return &tls.Certificate{}, nil // none to show yet
		}
		return &node.TLS, nil
	}, c.verifyServer)
	cfg.NextProtos = []string{"h2"}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("verifying the CDS at %s: %w", c.cfg.Addr, err)
	}
	s := &session{conn: conn, under: under}
	var used atomic.Bool
	s.http = &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errSessionUsed
			}
			return conn, nil
		},
	}}
	return s, nil
}

// verifyServer accepts a CDS whose evidence, in its certificate, satisfies
// the manifest in force and binds the operators this machine obeys.
func (c *Client) verifyServer(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) != 1 {
		return fmt.Errorf("the CDS showed %d certificates, want its native raTLS certificate alone", len(cs.PeerCertificates))
	}
	verdict, err := ratls.VerifyNative(cs.PeerCertificates[0], api.PurposeServer, c.Manifest().Manifest, policy.RoleCDS, c.cfg.Now())
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%x", c.cfg.Operators.Digest()); verdict.HostData != want {
		return &RefusedError{Code: CodeOperatorsNotBound, Detail: fmt.Sprintf(
			"HOST_DATA of the CDS's evidence is %s, want the digest of this machine's operators %s: it was launched for other operators", verdict.HostData, want)}
	}
	return nil
}

func (s *session) close() {
	s.http.CloseIdleConnections()
	s.conn.Close()
}

func (s *session) attestation() api.AttestationClient {
	return api.NewAttestationClient(s.http, "https://cds", connect.WithReadMaxBytes(maxMessage))
}

func (s *session) manifest() api.ManifestClient {
	return api.NewManifestClient(s.http, "https://cds", connect.WithReadMaxBytes(maxMessage))
}
