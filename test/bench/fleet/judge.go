// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
)

// Judge knows the keys of one service, from a client that verified it.
type Judge struct {
	roots *x509.CertPool
	log   note.Verifier
}

// Meet verifies the service as a node does, enrols a machine the way a node
// does, and returns the judge of what others get.
func (f *Fleet) Meet(ctx context.Context, addr string) (*Judge, error) {
	c, err := client.New(client.Config{
		Addrs: []string{addr}, Operators: f.Operators, Manifest: f.Signed, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	if _, err := c.EnrolNode(ctx, f.machines[0]); err != nil {
		return nil, err
	}
	docs, err := c.Documents(ctx)
	if err != nil {
		return nil, err
	}
	defer docs.Close()
	root, err := docs.Bundle().RootCertificate()
	if err != nil {
		return nil, err
	}
	j := &Judge{roots: x509.NewCertPool()}
	j.roots.AddCert(root)
	j.log, err = docs.Bundle().LogVerifier()
	return j, err
}

// Check verifies a certificate as any peer does, and that it is in the log.
func (j *Judge) Check(i Issued) error {
	var chain []*x509.Certificate
	for _, der := range i.Response.GetChain() {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		chain = append(chain, cert)
	}
	if key, ok := chain[0].PublicKey.(*ecdsa.PublicKey); !ok || !key.Equal(i.Key.Public()) {
		return errors.New("the certificate is for another key")
	}
	if _, err := ratls.VerifyPeer(chain, j.roots, TrustDomain, time.Now()); err != nil {
		return err
	}
	receipt := i.Response.GetReceipt()
	cp, err := translog.OpenCheckpoint(receipt.GetCheckpoint(), trust.LogOrigin(TrustDomain), j.log)
	if err != nil {
		return err
	}
	proof := make([]translog.Hash, len(receipt.GetProof()))
	for n, h := range receipt.GetProof() {
		if len(h) != len(proof[n]) {
			return fmt.Errorf("a hash of %d bytes in the proof", len(h))
		}
		proof[n] = translog.Hash(h)
	}
	return translog.VerifyInclusion(receipt.GetEntry(), receipt.GetIndex(), *cp, proof)
}
