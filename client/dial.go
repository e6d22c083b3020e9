// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

// onlyHTTP1 and anyHTTP are what is offered by ALPN.
func onlyHTTP1() []string { return []string{"http/1.1"} }
func anyHTTP() []string   { return []string{"h2", "http/1.1"} }

// line is a TLS connection about whose other end nothing but its key is known.
type line struct {
	*tls.Conn
	o     *origin
	state tls.ConnectionState
	key   [32]byte
}

// dial makes a TLS connection. Sessions are never resumed: each handshake shows
// that the other end has the key.
func (o *origin) dial(ctx context.Context, protocols []string) (*line, error) {
	raw, err := o.c.cfg.Dial(ctx, "tcp", o.addr)
	if err != nil {
		return nil, fmt.Errorf("reaching %s: %w", o.addr, err)
	}
	t := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: o.host, NextProtos: protocols,
		RootCAs: o.c.cfg.Roots, InsecureSkipVerify: o.c.cfg.InsecureSkipWebPKI, //nolint:gosec // the key is what is proven
	})
	if err := t.HandshakeContext(ctx); err != nil {
		raw.Close()
		if isNetwork(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("connecting to %s: %w", o.addr, err)
		}
		return nil, o.handshakeRefused(raw.RemoteAddr(), err)
	}
	l := &line{Conn: t, o: o, state: t.ConnectionState()}
	if len(l.state.PeerCertificates) == 0 { // not possible with certificates alone
		raw.Close()
		return nil, fmt.Errorf("connecting to %s: it showed no certificate", o.addr)
	}
	l.key = sha256.Sum256(l.state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	return l, nil
}

func (o *origin) handshakeRefused(addr net.Addr, err error) error {
	r := &Report{URL: o.base, Address: addr.String(), At: o.c.cfg.Now(), Anchor: o.c.cfg.Anchor.String()}
	remedy := "is it an attested ingress of c8s?"
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		remedy = "the argument does not need the web PKI: name its roots, or switch it off for a host with a certificate of its own"
	}
	err = r.refute(StepConnection, "TLS 1.3", attest.NewFailure(CodeTLS, "TLS 1.3 with a certificate for "+o.host, err.Error(), remedy))
	r.conclude()
	return err
}

// conn is a connection that carries requests. The fields after cc need the
// origin's lock.
type conn struct {
	*peer
	h2 bool
	cc *http.ClientConn

	retired   bool
	idleSince time.Time
}

// connect makes a connection for requests; none is sent on it yet.
func (o *origin) connect(ctx context.Context, h1 bool) (*conn, error) {
	protocols := anyHTTP()
	if h1 {
		protocols = onlyHTTP1()
	}
	l, err := o.dial(ctx, protocols)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		DialTLSContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Conn, nil },
		ForceAttemptHTTP2: true, ExpectContinueTimeout: time.Second,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait},
	}
	cc, err := t.NewClientConn(ctx, "https", o.addr)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("connecting to %s: %w", o.addr, err)
	}
	p := l.peer()
	p.rt = cc
	return &conn{peer: p, h2: l.state.NegotiatedProtocol == "h2", cc: cc}, nil
}

const (
	// pingAfter is how long an HTTP/2 connection with requests may be silent
	// before the other end is asked whether it is still there.
	pingAfter, pingWait = 15 * time.Second, 15 * time.Second
)

// isNetwork tells that somebody could not be reached from that he was, and is
// not who he should be. TLS alerts are the latter.
func isNetwork(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op != "remote error" && op.Op != "local error"
}
