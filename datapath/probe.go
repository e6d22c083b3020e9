// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/c8s-dev/c8s/attest/ratls"
)

// ProbeTunnel tries to open a tunnel to pod without a certificate, as an
// outsider would, and returns how it was refused; nil means that it was not.
// It is for demonstrations and checks.
func ProbeTunnel(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error), node netip.AddrPort, pod netip.Addr) error {
	conn, err := dial(ctx, "tcp", node.String())
	if err != nil {
		return fmt.Errorf("probing the tunnel port: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return fmt.Errorf("probing the tunnel port: %w", err)
	}
	none := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	anybody := func(tls.ConnectionState) error { return nil } // an outsider does not care who answers
	cfg := ratls.ClientConfig(none, anybody)
	cfg.NextProtos, cfg.ServerName = []string{alpn}, serverName(pod)
	c := tls.Client(conn, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	// In TLS 1.3 a server's refusal of the client arrives after the client
	// has finished.
	_, err = c.Read(make([]byte, 1))
	return err
}
