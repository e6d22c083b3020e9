// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/ledger"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

// Callers are told to renew at a random moment in this part of a certificate's
// life, so that those who came together do not come back together. Half of the
// life on average; a later start would make the first wave higher.
const (
	renewFrom = 0.30
	renewTo   = 0.70
)

// issue signs the certificate, logs it under the very policy it was judged
// by, and only then returns it. leave is called when the cryptography is done:
// others may work while this one waits for the store.
func (c *core) issue(ctx context.Context, now *inForce, r *request, f *finding, leave func()) (*api.EnrolResponse, error) {
	leaf, chain, err := c.sign(now, r, f)
	if err != nil {
		return nil, err
	}
	leave()
	var files []store.Item
	if f.doc != nil {
		if files, err = c.evidence.files(f.claims.EvidenceHash, f.doc, leaf.NotAfter); err != nil {
			return nil, err
		}
		release, err := c.evidence.claim(f.claims.Machine, leaf.NotAfter)
		if err != nil {
			return nil, err
		}
		defer func() {
			if files != nil {
				release()
			}
		}()
	}
	began, digest := time.Now(), policy.DigestOf(leaf.Raw)
	receipt, err := c.ledger.Do(ctx, func(d *ledger.Draft) error {
		if !now.matches(d.Head) {
			return errPolicyMoved
		}
		d.Put(files...)
		index, err := d.Append(translog.Entry{
			Type: translog.TypeIssuance, Time: d.Now, Certificate: digest, Issuer: policy.DigestOf(chain[1]),
			Evidence: policy.DigestFrom(f.claims.EvidenceHash), Manifest: now.manifest.Digest, Role: f.claims.Role, NotAfter: leaf.NotAfter,
		})
		d.Put(issuanceItem(digest, leaf.NotAfter, index))
		return err
	})
	c.s.metrics.step("log", began)
	if err != nil {
		return nil, err
	}
	files = nil // the certificate counts, whatever happens now
	if f.doc != nil {
		c.evidence.remember(f.claims.EvidenceHash, f.evidence, f.doc)
	}
	c.audit(r, f, leaf, receipt)
	return c.response(ctx, leaf, chain, receipt)
}

// sign makes the certificate.
func (c *core) sign(now *inForce, r *request, f *finding) (*x509.Certificate, [][]byte, error) {
	defer c.s.metrics.step("sign", time.Now())
	notBefore, notAfter := c.issuer.Validity(f.limit)
	if !notAfter.After(c.clock.Now()) {
		return nil, nil, refuse(codeNodeRequired, "the node's own certificate has expired")
	}
	f.claims.ManifestVersion, f.claims.ManifestDigest = now.manifest.Manifest.Version, now.manifest.Digest
	id, err := ratls.NewID(c.trustDomain, &f.claims)
	if err != nil {
		return nil, nil, err
	}
	tmpl, err := ratls.Template(f.claims.Role, id, f.claims, f.addrs, notBefore, notAfter)
	if err != nil {
		return nil, nil, err
	}
	return c.issuer.Issue(tmpl, r.csr.PublicKey)
}

// audit writes the line that says who got what.
func (c *core) audit(r *request, f *finding, leaf *x509.Certificate, receipt ledger.Receipt) {
	c.s.metrics.issued.WithLabelValues(string(f.claims.Role)).Inc()
	c.s.cfg.Log.Info("issued", "id", leaf.URIs[0].String(), "role", f.claims.Role, "serial", leaf.SerialNumber.Text(16), "notAfter", leaf.NotAfter,
		"pod", f.claims.Pod, "namespace", f.claims.Namespace, "uid", f.claims.PodUID, "addrs", f.addrs, "evidence", policy.DigestFrom(f.claims.EvidenceHash),
		"manifest", f.claims.ManifestVersion, "log", receipt.Index, "simulated", f.claims.Simulated, "remote", r.session.remote)
}

func (c *core) response(ctx context.Context, leaf *x509.Certificate, chain [][]byte, receipt ledger.Receipt) (*api.EnrolResponse, error) {
	proof, err := receipt.Proof(ctx, c.ledger)
	if err != nil {
		return nil, err
	}
	c.checkpoints.remember(receipt.View.Checkpoint)
	now := c.clock.Now()
	left := leaf.NotAfter.Sub(now)
	out := &api.EnrolResponse{
		Chain: chain, Roots: [][]byte{c.issuer.Root().Raw},
		Receipt:    &api.Receipt{Entry: receipt.Entry, Index: receipt.Index, Checkpoint: receipt.View.Checkpoint},
		RenewAfter: timestamppb.New(now.Add(time.Duration((renewFrom + rand.Float64()*(renewTo-renewFrom)) * float64(left)))),
	}
	for _, h := range proof {
		out.Receipt.Proof = append(out.Receipt.Proof, h[:])
	}
	return out, nil
}

// oneTime makes f safe to call again.
func oneTime(f func()) func() {
	var once sync.Once
	return func() { once.Do(f) }
}

// hash32 is a hash from the wire, if it is one.
func hash32(b []byte) (h [sha256.Size]byte, ok bool) {
	if len(b) != sha256.Size {
		return h, false
	}
	return [sha256.Size]byte(b), true
}
