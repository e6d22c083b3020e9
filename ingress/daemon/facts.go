// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/ingress"
	"github.com/c8s-dev/c8s/ingress/attester"
	"github.com/c8s-dev/c8s/ingress/page"
	"github.com/c8s-dev/c8s/policy"
)

func keyOf(r *http.Request) ([32]byte, bool) { return ingress.KeyOf(r.Context()) }

// facts are what the page says to whoever asks on this connection.
func (d *Daemon) facts(ctx context.Context, host string) (*page.Facts, error) {
	signed, proofs := d.identity.Manifest(), d.proofs.Status()
	f := &page.Facts{
		Host: host, At: d.cfg.Now().UTC(), TrustDomain: signed.Manifest.TrustDomain, Ingress: d.machine(),
		Manifest: page.Document{Version: signed.Manifest.Version, Digest: string(signed.Digest)},
		CDS:      page.CDS{Keys: string(proofs.Bundle), Reachable: proofs.Code != attester.CodeUnreachable},
	}
	if list := d.cfg.CDS.DenyList(); list != nil {
		f.DenyList = &page.Document{Version: list.List.Version, Digest: string(list.Digest)}
	}
	if key, ok := ingress.KeyOf(ctx); ok {
		f.TLSKey = hex.EncodeToString(key[:])
	}
	for _, p := range proofs.Proofs {
		if f.TLSKey != "" && strings.TrimPrefix(string(p.Key), "sha256:") == f.TLSKey {
			f.Proof = &page.Proof{Beacon: p.Beacon, MaxAge: proof.DefaultMaxAge}
			if c := f.Ingress.Certificate; c != nil && p.LogIndex >= 0 {
				index := uint64(p.LogIndex)
				c.LogIndex = &index
			}
		}
	}
	f.Operators.Threshold = d.cfg.Operators.Threshold
	for _, o := range d.cfg.Operators.Keys {
		id, err := o.ID()
		if err != nil {
			return nil, fmt.Errorf("naming the operator %q: %w", o.Name, err)
		}
		f.Operators.Keys = append(f.Operators.Keys, page.Operator{Name: o.Name, Key: string(id)})
	}
	if rule, decision := signed.Manifest.IngressHost(host); decision.Allowed {
		f.Rule = rule.Name
		for _, b := range rule.Backends {
			f.Backends = append(f.Backends, page.Backend{Workload: b.Workload, Mode: b.Mode, Ports: b.Ports})
		}
	}
	return f, nil
}

// machine is what the CDS certified.
func (d *Daemon) machine() page.Ingress {
	in := page.Ingress{Software: d.cfg.Software}
	cred := d.identity.Enrolled()
	if cred == nil {
		return in
	}
	c, leaf := &cred.Peer.Claims, cred.TLS.Leaf
	in.ID, in.TEE, in.Measurement, in.Simulated = cred.Peer.ID.String(), c.TEE, c.Measurement, c.Simulated
	in.Certificate = &page.Certificate{Digest: digestOf(leaf), NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC()}
	return in
}

func digestOf(c *x509.Certificate) string { return string(policy.DigestOf(c.Raw)) }

// logIndex asks the CDS where a pod's certificate is in the log, and verifies
// that it is.
func (d *Daemon) logIndex(ctx context.Context, leaf policy.Digest) (int64, error) {
	docs, err := d.cfg.CDS.Documents(ctx)
	if err != nil {
		return 0, err
	}
	defer docs.Close()
	issued, err := docs.Issuance(ctx, leaf)
	if err != nil {
		return 0, err
	}
	return issued.Index, nil
}
