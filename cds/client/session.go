// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

const (
	dialTimeout = 10 * time.Second
	// dialTimeoutOfMany is shorter: there is another replica to ask.
	dialTimeoutOfMany = 3 * time.Second
	// pingAfter is how long the other side may be silent before it is asked
	// whether it is still there, and pingWait how long it may take to answer. A
	// watch of a host that vanished would otherwise wait for minutes.
	pingAfter, pingWait = 5 * time.Second, 5 * time.Second
	// maxMessage bounds one message from the CDS, in bytes.
	maxMessage = 32 << 20
)

// maxAtOnce is how many enrolments share a connection at a time. Every HTTP/2
// server should take a hundred (RFC 9113 section 6.5.2); for what is more than
// it takes net/http opens another connection, and a session has only one.
const maxAtOnce = 64

// errSessionUsed says that the one connection of a session is gone. Evidence
// and nonces are bound to it, so it is never replaced in silence.
var errSessionUsed = errors.New("the connection to the CDS is gone")

// session is one TLS connection to the CDS. Everything that binds to the TLS
// session happens on it.
type session struct {
	addr string
	conn *tls.Conn
	http *http.Client
	// under and at are what the CDS was verified by, and when.
	under judgedBy
	at    time.Time
	// bundle holds the keys the CDS signs with. They were said on this
	// connection, and are believed because of it.
	bundle *trust.Bundle
	// places are taken by the enrolments of pods, maxAtOnce at a time.
	places chan struct{}
}

// enter waits for one of the places; leave must be called after it.
func (s *session) enter(ctx context.Context) error {
	select {
	case s.places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for other enrolments on the connection to the CDS: %w", context.Cause(ctx))
	}
}

func (s *session) leave() { <-s.places }

// judgedBy is the operators' word that a CDS was verified by.
type judgedBy struct{ manifest, denyList policy.Digest }

// policy is what is in force now.
func (c *Client) policy() judgedBy {
	by := judgedBy{manifest: c.Manifest().Digest}
	if list := c.DenyList(); list != nil {
		by.denyList = list.Digest
	}
	return by
}

// connectTo opens a session. With a node credential it is mutual TLS.
func (c *Client) connectTo(ctx context.Context, addr string, node *Credential) (*session, error) {
	timeout := dialTimeout
	if len(c.cfg.Addrs) > 1 {
		timeout = dialTimeoutOfMany
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s, err := c.handshake(ctx, addr, node)
	if err != nil {
		return nil, err
	}
	if s.bundle, err = s.keys(ctx); err == nil {
		err = c.memory.recognise(s.bundle)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (c *Client) handshake(ctx context.Context, addr string, node *Credential) (*session, error) {
	under, at := c.policy(), c.cfg.Now() // at most older than what verifyServer uses
	raw, err := c.cfg.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("reaching the CDS: %w", err)
	}
	cfg := ratls.ClientConfig(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if node == nil {
			return &tls.Certificate{}, nil // none to show yet
		}
		return &node.TLS, nil
	}, func(cs tls.ConnectionState) error { return c.verifyServer(cs, c.cfg.Now()) })
	cfg.NextProtos = []string{"h2"}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("verifying the CDS at %s: %w", addr, err)
	}
	s := &session{addr: addr, conn: conn, under: under, at: at, places: make(chan struct{}, maxAtOnce)}
	var used atomic.Bool
	s.http = &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait},
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
// the manifest in force, binds the operators this machine obeys, and is not on
// the deny list.
func (c *Client) verifyServer(cs tls.ConnectionState, now time.Time) error {
	if len(cs.PeerCertificates) != 1 {
		return fmt.Errorf("the CDS showed %d certificates, want its native raTLS certificate alone", len(cs.PeerCertificates))
	}
	verdict, err := ratls.VerifyNative(cs.PeerCertificates[0], api.PurposeServer, c.Manifest().Manifest, policy.RoleCDS, now)
	if err != nil {
		return err
	}
	if !trust.OperatorsBound(verdict.HostData, c.cfg.Operators) {
		return &RefusedError{Code: CodeOperatorsNotBound, Detail: fmt.Sprintf(
			"HOST_DATA of the CDS's evidence is %s, want the digest of this machine's operators %x: it was launched for other operators", verdict.HostData, c.cfg.Operators.Digest())}
	}
	if list := c.DenyList(); list != nil {
		return list.List.Denies(policy.Holder{Machine: verdict.Machine, Measurement: verdict.Measurement}).Err()
	}
	return nil
}

// stillVerified judges the CDS again when another manifest or deny list came
// into force: by those, and by the time of the handshake, since evidence that
// was fresh then has done its work.
func (c *Client) stillVerified(s *session) error {
	now := c.policy()
	if s.under == now {
		return nil
	}
	if err := c.verifyServer(s.conn.ConnectionState(), s.at); err != nil {
		return fmt.Errorf("verifying the CDS at %s again: %w", s.addr, err)
	}
	s.under = now
	return nil
}

// retire closes the session when what is under way on it has had its time.
func (s *session) retire() { time.AfterFunc(enrolTimeout, s.close) }

func (s *session) close() {
	s.http.CloseIdleConnections()
	s.conn.Close()
}

// keys asks for the keys the CDS signs with.
func (s *session) keys(ctx context.Context) (*trust.Bundle, error) {
	raw, err := s.get(ctx, "/v1/endorsement")
	if err != nil {
		return nil, fmt.Errorf("asking the CDS for its keys: %w", err)
	}
	e, err := trust.ParseEndorsement(raw)
	if err != nil {
		return nil, fmt.Errorf("asking the CDS for its keys: %w", err)
	}
	return &e.Bundle, nil
}

// get reads a public document. Its absence is an error that wraps
// fs.ErrNotExist.
func (s *session) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, baseURL+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage+1))
	if err == nil && len(body) > maxMessage {
		err = fmt.Errorf("more than %d bytes", maxMessage)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, documentRefused(resp, path, body)
	}
	return body, nil
}

// baseURL stands for whatever the session's connection leads to.
const baseURL = "https://cds"

func (s *session) attestation() api.AttestationClient {
	return api.NewAttestationClient(s.http, baseURL, connect.WithReadMaxBytes(maxMessage))
}

func (s *session) policy() api.PolicyClient {
	return api.NewPolicyClient(s.http, baseURL, connect.WithReadMaxBytes(maxMessage))
}

func (s *session) replica() api.ReplicaClient {
	return api.NewReplicaClient(s.http, baseURL, connect.WithReadMaxBytes(maxMessage))
}

func (s *session) recovery() api.RecoveryClient {
	return api.NewRecoveryClient(s.http, baseURL, connect.WithReadMaxBytes(maxMessage))
}

func (s *session) witness() api.WitnessClient {
	return api.NewWitnessClient(s.http, baseURL, connect.WithReadMaxBytes(maxMessage))
}
