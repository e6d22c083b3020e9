// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/policy"
)

// enrolTimeout bounds one enrolment. Hardware may take a second for evidence
// and throttles whoever asks too often.
const enrolTimeout = 30 * time.Second

// Pod is what a node says about a pod it wants certified.
type Pod struct {
	Namespace, Name, UID string
	Images               []policy.Digest
	Entry                string // the workload entry asked for
	Addrs                []netip.Addr
}

// EnrolNode attests this machine and returns its credential. Renewal is the
// same again: a new key and new evidence.
func (c *Client) EnrolNode(ctx context.Context, att attest.Attester) (*Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	s, err := c.connect(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return c.enrol(ctx, s, func(nonce, exporter []byte, csr *x509.CertificateRequest) (*api.EnrolRequest, error) {
		ev, err := att.Attest(ctx, api.NodeReportData(nonce, exporter, csr.RawSubjectPublicKeyInfo))
		if err != nil {
			return nil, fmt.Errorf("collecting evidence: %w", err)
		}
		record, err := attest.MarshalCMW(ev)
		if err != nil {
			return nil, err
		}
		return &api.EnrolRequest{Proof: &api.EnrolRequest_Node{Node: &api.NodeProof{Evidence: record}}}, nil
	})
}

// EnrolPod returns a credential for a pod of the node that holds the given
// credential.
func (c *Client) EnrolPod(ctx context.Context, node *Credential, p Pod) (*Credential, error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	for {
		s, kept, err := c.pods.get(ctx, c, node)
		if err != nil {
			return nil, err
		}
		cred, err := c.enrol(ctx, s, func(nonce, exporter []byte, csr *x509.CertificateRequest) (*api.EnrolRequest, error) {
			return podRequest(node, p, nonce, exporter, csr)
		})
		var refused *RefusedError
		if err == nil || caller.Err() != nil || errors.As(err, &refused) {
			return cred, err
		}
		c.pods.drop(s)
		// The CDS closes idle connections, so a kept one may be gone without
		// anything being wrong. A fresh one that breaks is an answer.
		if !kept || ctx.Err() != nil {
			return nil, err
		}
	}
}

func podRequest(node *Credential, p Pod, nonce, exporter []byte, csr *x509.CertificateRequest) (*api.EnrolRequest, error) {
	spki := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	st := api.PodStatement{
		Nonce: nonce, Exporter: exporter, SPKIHash: spki[:], Evidence: node.Peer.Claims.EvidenceHash[:],
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Entry: p.Entry, Images: p.Images,
	}
	for _, a := range p.Addrs {
		st.Addrs = append(st.Addrs, a.AsSlice())
	}
	raw, err := st.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encoding the pod statement: %w", err)
	}
	key, ok := node.TLS.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("signing the pod statement: the node's key is a %T", node.TLS.PrivateKey)
	}
	digest := api.StatementDigest(raw)
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return nil, fmt.Errorf("signing the pod statement: %w", err)
	}
	return &api.EnrolRequest{Proof: &api.EnrolRequest_Pod{Pod: &api.PodProof{Statement: raw, Signature: sig}}}, nil
}

// enrol makes a key, takes a challenge, lets prove answer it, and checks what
// comes back: challenge and answer travel on one TLS session.
func (c *Client) enrol(ctx context.Context, s *session, prove func(nonce, exporter []byte, csr *x509.CertificateRequest) (*api.EnrolRequest, error)) (*Credential, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, err
	}
	challenge, err := s.attestation().Challenge(ctx, &api.ChallengeRequest{})
	if err != nil {
		return nil, fmt.Errorf("asking for a challenge: %w", explain(err))
	}
	cs := s.conn.ConnectionState()
	exporter, err := api.Exporter(&cs, challenge.GetNonce())
	if err != nil {
		return nil, err
	}
	req, err := prove(challenge.GetNonce(), exporter, csr)
	if err != nil {
		return nil, err
	}
	req.Nonce, req.Csr = challenge.GetNonce(), der
	resp, err := s.attestation().Enrol(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("enrolling: %w", explain(err))
	}
	return c.credential(key, resp)
}

// credential checks the certificate as any peer will.
func (c *Client) credential(key *ecdsa.PrivateKey, resp *api.EnrolResponse) (*Credential, error) {
	leaf, err := x509.ParseCertificate(resp.GetCertificate())
	if err != nil {
		return nil, fmt.Errorf("reading the issued certificate: %w", err)
	}
	if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, &RefusedError{Code: CodeCertificateForeign, Detail: "the issued certificate is for another key than ours"}
	}
	cred := &Credential{TLS: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}}
	pool := x509.NewCertPool()
	for _, raw := range resp.GetRoots() {
		root, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, fmt.Errorf("reading the mesh CA: %w", err)
		}
		cred.Roots = append(cred.Roots, root)
		pool.AddCert(root)
	}
	cred.Peer, err = ratls.VerifyPeer([]*x509.Certificate{leaf}, pool, c.Manifest().Manifest.TrustDomain, c.cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("checking the issued certificate: %w", err)
	}
	return cred, nil
}

// podSessions keeps one mutual-TLS connection for the pods of a node, so that
// starting many pods costs one handshake.
type podSessions struct {
	turn chan struct{} // holds one token; whoever has it may change the rest
	node *Credential
	open *session
}

func newPodSessions() podSessions { return podSessions{turn: make(chan struct{}, 1)} }

// get returns a session for the node, and whether it was in use before. One
// that was verified under another manifest than the one in force is not used
// again: that manifest may not accept this CDS any more.
func (p *podSessions) get(ctx context.Context, c *Client, node *Credential) (s *session, kept bool, err error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, false, fmt.Errorf("waiting for the connection to the CDS: %w", context.Cause(ctx))
	}
	defer func() { <-p.turn }()
	if p.open != nil && p.node == node && p.open.under == c.Manifest().Digest {
		return p.open, true, nil
	}
	if s, err = c.connect(ctx, node); err != nil {
		return nil, false, err
	}
	if old := p.open; old != nil {
		time.AfterFunc(enrolTimeout, old.close) // enrolments under way finish on it
	}
	p.open, p.node = s, node
	return s, false, nil
}

// drop forgets a session that broke; the next enrolment opens another. A
// refusal breaks nothing: the other pods go on using the connection.
func (p *podSessions) drop(s *session) {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if p.open == s {
		p.open = nil
		s.close()
	}
}
