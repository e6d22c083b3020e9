// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/datapath"
)

// Log is the CDS's log as an auditor reads it, from whichever replica answers.
type Log struct {
	*translog.Auditor
	docs *client.Documents
}

// Log opens a connection to the CDS for reading its log.
func (c *Cluster) Log(ctx context.Context) (*Log, error) {
	cl, err := c.Client()
	if err != nil {
		return nil, err
	}
	docs, err := cl.Documents(ctx)
	if err != nil {
		return nil, err
	}
	verifier, err := docs.Bundle().LogVerifier()
	if err != nil {
		docs.Close()
		return nil, err
	}
	fetch := func(ctx context.Context, path string) ([]byte, error) { return docs.Get(ctx, "/log/"+path) }
	return &Log{translog.NewAuditor(trust.LogOrigin(TrustDomain), verifier, fetch), docs}, nil
}

// Bundle holds the keys of the CDS whose log it is.
func (l *Log) Bundle() *trust.Bundle { return l.docs.Bundle() }

// Close closes the connection.
func (l *Log) Close() { l.docs.Close() }

// How a tunnel asks for a pod; docs/tunnel.md.
const (
	tunnelALPN   = "c8s/1"
	tunnelSuffix = ".pod.c8s"
)

// Certificate returns the pod's certificate and its issuer's, as anybody sees
// them who asks the pod's node for a tunnel to it.
func (p *Pod) Certificate(ctx context.Context) ([]*x509.Certificate, error) {
	node := netip.AddrPortFrom(p.On.Lab.Addr4, datapath.TunnelPort)
	raw, err := p.On.cluster.Lab.Wire.Dial(ctx, "tcp", node.String())
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	var chain []*x509.Certificate
	cfg := ratls.ClientConfig(
		func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil },
		func(cs tls.ConnectionState) error { chain = cs.PeerCertificates; return nil },
	)
	cfg.NextProtos, cfg.ServerName = []string{tunnelALPN}, hex.EncodeToString(p.Addr4.AsSlice())+tunnelSuffix
	if err := tls.Client(raw, cfg).HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("asking for the certificate of %s: %w", p.Name, err)
	}
	return chain, nil
}
