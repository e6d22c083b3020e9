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

// Credential is a key that never left this process, with its certificate.
type Credential struct {
	TLS   tls.Certificate     // the certificate and its issuer; Leaf is set
	Roots []*x509.Certificate // the mesh CA that issued it
	Peer  *ratls.Peer         // what the certificate says
	// Receipt shows that the certificate is in the log. It was verified.
	Receipt *api.Receipt
	// RenewAfter is when the CDS wants to be asked for the next one, so that its
	// callers spread; zero if it does not say.
	RenewAfter time.Time
}

// Pod is what a node says about a pod it wants certified.
type Pod struct {
	Namespace, Name, UID string
	Images               []policy.Digest
	Signed               []policy.SignedImage // of images that are listed by signer
	Entry                string               // the workload entry asked for
	Addrs                []netip.Addr
	// Attester gives evidence of its own to the pod, over the statement about
	// it; nil lets the node's evidence stand behind it alone.
	Attester attest.Attester
}

// EnrolNode attests this machine as a node and returns its credential. Renewal
// is the same again: a new key and new evidence.
func (c *Client) EnrolNode(ctx context.Context, att attest.Attester) (*Credential, error) {
	return c.enrolMachine(ctx, att, api.MachineRole_MACHINE_ROLE_NODE, api.PurposeNode)
}

// EnrolIngress attests this machine as an ingress.
func (c *Client) EnrolIngress(ctx context.Context, att attest.Attester) (*Credential, error) {
	return c.enrolMachine(ctx, att, api.MachineRole_MACHINE_ROLE_INGRESS, api.PurposeIngress)
}

// EnrolCDS attests this machine as a replica of the CDS.
func (c *Client) EnrolCDS(ctx context.Context, att attest.Attester) (*Credential, error) {
	return c.enrolMachine(ctx, att, api.MachineRole_MACHINE_ROLE_CDS, api.PurposeCDS)
}

func (c *Client) enrolMachine(ctx context.Context, att attest.Attester, role api.MachineRole, purpose string) (*Credential, error) {
	return c.enrolAlone(ctx, func(ctx context.Context, nonce, exporter []byte, csr *x509.CertificateRequest) (*api.EnrolRequest, error) {
		record, err := collect(ctx, att, api.MachineTranscript(purpose, nonce, exporter, csr.RawSubjectPublicKeyInfo))
		if err != nil {
			return nil, err
		}
		return &api.EnrolRequest{Proof: &api.EnrolRequest_Machine{Machine: &api.MachineProof{Role: role, Evidence: record}}}, nil
	})
}

// EnrolGuest attests this machine as a pod of its own.
func (c *Client) EnrolGuest(ctx context.Context, p Pod) (*Credential, error) {
	if p.Attester == nil {
		return nil, errors.New("enrolling a pod of its own: it gives no evidence")
	}
	return c.enrolAlone(ctx, func(ctx context.Context, nonce, exporter []byte, csr *x509.CertificateRequest) (*api.EnrolRequest, error) {
		st := p.statement(nil, nonce, exporter, csr)
		raw, err := st.Marshal()
		if err != nil {
			return nil, fmt.Errorf("encoding the pod statement: %w", err)
		}
		record, err := collect(ctx, p.Attester, api.StatementTranscript(api.PurposeGuest, st, raw))
		if err != nil {
			return nil, err
		}
		return &api.EnrolRequest{Proof: &api.EnrolRequest_Guest{Guest: &api.GuestProof{Statement: raw, Evidence: record}}}, nil
	})
}

// prover answers a challenge on the session with this exporter.
type prover func(ctx context.Context, nonce, exporter []byte, csr *x509.CertificateRequest) (*api.EnrolRequest, error)

// enrolAlone enrols on a session of its own, at whichever replica answers.
func (c *Client) enrolAlone(ctx context.Context, prove prover) (cred *Credential, err error) {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	err = c.onAny(ctx, nil, func(s *session) (err error) {
		cred, err = c.enrol(ctx, s, prove)
		return err
	})
	return cred, err
}

func collect(ctx context.Context, att attest.Attester, t attest.Transcript) ([]byte, error) {
	ev, err := att.Attest(ctx, t.ReportData())
	if err != nil {
		return nil, fmt.Errorf("collecting evidence: %w", err)
	}
	return attest.MarshalCMW(ev)
}

// EnrolPod returns a credential for a pod of the node that holds the given
// credential.
func (c *Client) EnrolPod(ctx context.Context, node *Credential, p Pod) (*Credential, error) {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	for tries := 0; ; tries++ {
		s, kept, err := c.pods.get(ctx, c, node)
		if err != nil {
			return nil, err
		}
		if err := s.enter(ctx); err != nil {
			return nil, err
		}
		cred, err := c.enrol(ctx, s, func(ctx context.Context, nonce, exporter []byte, csr *x509.CertificateRequest) (*api.EnrolRequest, error) {
			return podRequest(ctx, node, p, nonce, exporter, csr)
		})
		s.leave()
		if err == nil || caller.Err() != nil || !worthAnother(err) {
			return cred, err
		}
		// A refusal leaves the connection whole, for the other pods. It is worth
		// asking another replica, and not the same one again.
		refused := errors.As(err, new(*RefusedError))
		if refused && len(c.cfg.Addrs) == 1 {
			return nil, err
		}
		c.replicas.note(s.addr, false)
		c.pods.leave(s, refused)
		// The CDS closes idle connections, so a kept one may be gone without
		// anything being wrong. A fresh one that breaks is an answer, once every
		// replica has given it.
		if (!kept || refused) && tries >= len(c.cfg.Addrs) || ctx.Err() != nil {
			return nil, err
		}
	}
}

// statement is what the node, or the pod itself, says.
func (p *Pod) statement(evidence, nonce, exporter []byte, csr *x509.CertificateRequest) *api.PodStatement {
	spki := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	st := &api.PodStatement{
		Nonce: nonce, Exporter: exporter, SPKIHash: spki[:], Evidence: evidence,
		Namespace: p.Namespace, Name: p.Name, UID: p.UID, Entry: p.Entry, Images: p.Images,
	}
	for _, s := range p.Signed {
		st.Signed = append(st.Signed, api.SignedImage{Digest: s.Digest, Signer: s.Signer})
	}
	for _, a := range p.Addrs {
		st.Addrs = append(st.Addrs, a.AsSlice())
	}
	return st
}

func podRequest(ctx context.Context, node *Credential, p Pod, nonce, exporter []byte, csr *x509.CertificateRequest) (*api.EnrolRequest, error) {
	st := p.statement(node.Peer.Claims.EvidenceHash[:], nonce, exporter, csr)
	raw, err := st.Marshal()
	if err != nil {
		return nil, fmt.Errorf("encoding the pod statement: %w", err)
	}
	key, ok := node.TLS.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("signing the pod statement: the node's key is a %T", node.TLS.PrivateKey)
	}
	digest := api.StatementDigest(raw)
	proof := &api.PodProof{Statement: raw}
	if proof.Signature, err = ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
		return nil, fmt.Errorf("signing the pod statement: %w", err)
	}
	if p.Attester != nil {
		if proof.Evidence, err = collect(ctx, p.Attester, api.StatementTranscript(api.PurposePod, st, raw)); err != nil {
			return nil, err
		}
	}
	return &api.EnrolRequest{Proof: &api.EnrolRequest_Pod{Pod: proof}}, nil
}

// enrol makes a key, takes a challenge, lets prove answer it, and checks what
// comes back: challenge and answer travel on one TLS session.
func (c *Client) enrol(ctx context.Context, s *session, prove prover) (*Credential, error) {
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
	nonce, exporter, err := c.challenge(ctx, s)
	if err != nil {
		return nil, err
	}
	req, err := prove(ctx, nonce, exporter, csr)
	if err != nil {
		return nil, err
	}
	req.Nonce, req.Csr = nonce, der
	resp, err := s.attestation().Enrol(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("enrolling: %w", explain(err))
	}
	return c.credential(s, key, resp)
}

// challenge asks for a nonce, showing what this machine remembers of the log.
func (c *Client) challenge(ctx context.Context, s *session) (nonce, exporter []byte, err error) {
	challenge, err := s.attestation().Challenge(ctx, &api.ChallengeRequest{Checkpoint: c.memory.checkpoint()})
	if err != nil {
		return nil, nil, fmt.Errorf("asking for a challenge: %w", explain(err))
	}
	cs := s.conn.ConnectionState()
	exporter, err = api.Exporter(&cs, challenge.GetNonce())
	return challenge.GetNonce(), exporter, err
}

// credential checks the certificate as any peer will, and that it is logged.
func (c *Client) credential(s *session, key *ecdsa.PrivateKey, resp *api.EnrolResponse) (*Credential, error) {
	chain, err := parseChain(resp.GetChain())
	if err != nil {
		return nil, fmt.Errorf("reading the issued certificate: %w", err)
	}
	leaf := chain[0]
	if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return nil, &RefusedError{Code: CodeCertificateForeign, Detail: "the issued certificate is for another key than ours"}
	}
	root, err := s.bundle.RootCertificate()
	if err != nil {
		return nil, err
	}
	cred := &Credential{
		TLS:   tls.Certificate{Certificate: resp.GetChain(), PrivateKey: key, Leaf: leaf},
		Roots: []*x509.Certificate{root}, RenewAfter: resp.GetRenewAfter().AsTime(),
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	cred.Peer, err = ratls.VerifyPeer(chain, pool, c.Manifest().Manifest.TrustDomain, c.cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("checking the issued certificate: %w", err)
	}
	if err := c.memory.verifyReceipt(s.bundle, resp.GetReceipt(), chain); err != nil {
		return nil, fmt.Errorf("checking the issued certificate: %w", err)
	}
	cred.Receipt = resp.GetReceipt()
	return cred, nil
}

// parseChain reads a leaf and its issuer.
func parseChain(raw [][]byte) ([]*x509.Certificate, error) {
	if len(raw) != 2 {
		return nil, fmt.Errorf("%d certificates, want the leaf and its issuer", len(raw))
	}
	chain := make([]*x509.Certificate, len(raw))
	for i, der := range raw {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, err
		}
	}
	return chain, nil
}
