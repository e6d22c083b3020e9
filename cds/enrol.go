// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/policy"
)

// attestation is the Attestation service.
type attestation Server

var _ api.AttestationHandler = (*attestation)(nil)

func (a *attestation) Challenge(ctx context.Context, req *api.ChallengeRequest) (*api.ChallengeResponse, error) {
	c, err := (*Server)(a).issuing()
	if err != nil {
		return nil, err
	}
	if err := c.observe(ctx, req.GetCheckpoint()); err != nil {
		return nil, err
	}
	s := sessionOf(ctx)
	id, err := s.id()
	if err != nil {
		return nil, err
	}
	nonce, expires, err := c.challenges.issue(id, s.host())
	if err != nil {
		return nil, err
	}
	return &api.ChallengeResponse{Nonce: nonce[:], Expires: timestamppb.New(expires)}, nil
}

func (a *attestation) Enrol(ctx context.Context, req *api.EnrolRequest) (*api.EnrolResponse, error) {
	return a.answer(ctx, req, false)
}

func (a *attestation) Renew(ctx context.Context, req *api.EnrolRequest) (*api.EnrolResponse, error) {
	return a.answer(ctx, req, true)
}

// request is an enrolment whose nonce was spent and whose key is proven.
type request struct {
	session  session
	nonce    []byte
	exporter []byte
	csr      *x509.CertificateRequest
	spki     [sha256.Size]byte
	peer     *ratls.Peer // the caller's certificate, nil without one
	renewal  bool
}

// finding is what the appraisal of a request came to: what the certificate
// will say, and what stands behind it.
type finding struct {
	claims   ratls.Claims
	addrs    []netip.Addr
	limit    time.Time // the certificate ends no later; zero for none
	evidence *attest.Evidence
	doc      *api.EvidenceDocument // fresh evidence, to be kept; nil if it is kept already
}

func (a *attestation) answer(ctx context.Context, req *api.EnrolRequest, renewal bool) (*api.EnrolResponse, error) {
	c, err := (*Server)(a).issuing()
	if err != nil {
		return nil, err
	}
	if err := a.gate.enter(ctx); err != nil {
		return nil, err
	}
	leave := oneTime(a.gate.leave)
	defer leave()
	r, err := c.accept(ctx, req)
	if err != nil {
		return nil, err
	}
	r.renewal = renewal
	var resp *api.EnrolResponse
	err = c.policies.underPolicy(ctx, func(now *inForce) error {
		f, err := c.appraise(ctx, now, r, req)
		if err != nil {
			return err
		}
		resp, err = c.issue(ctx, now, r, f, leave)
		return err
	})
	return resp, err
}

// accept spends the nonce and checks that the caller holds the key it wants
// certified.
func (c *core) accept(ctx context.Context, req *api.EnrolRequest) (*request, error) {
	r := &request{session: sessionOf(ctx), nonce: req.GetNonce()}
	id, err := r.session.id()
	if err != nil {
		return nil, err
	}
	if err := c.challenges.use(r.nonce, id); err != nil {
		return nil, err
	}
	if r.exporter, err = api.Exporter(r.session.tls, r.nonce); err != nil {
		return nil, err
	}
	if r.csr, err = x509.ParseCertificateRequest(req.GetCsr()); err != nil {
		return nil, refuse(codeMalformed, "parsing the certificate request: %v", err)
	}
	if key, ok := r.csr.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return nil, refuse(codeKeyUnsupported, "the key is a %T (%s), want ECDSA on P-256", r.csr.PublicKey, r.csr.PublicKeyAlgorithm)
	}
	if err := r.csr.CheckSignature(); err != nil {
		return nil, refuse(codeKeyMismatch, "checking possession of the key: %v", err)
	}
	r.spki = sha256.Sum256(r.csr.RawSubjectPublicKeyInfo)
	r.peer, err = c.peers.of(c, r.session)
	return r, err
}

// appraise judges the request by the proof it carries.
func (c *core) appraise(ctx context.Context, now *inForce, r *request, req *api.EnrolRequest) (*finding, error) {
	began := time.Now()
	defer c.s.metrics.step("appraise", began)
	if r.peer != nil { // a denied certificate gets nothing, with evidence or without
		if err := now.denyList().Denies(r.peer.Holder()).Err(); err != nil {
			return nil, err
		}
	}
	var f *finding
	var err error
	switch proof := req.GetProof().(type) {
	case *api.EnrolRequest_Machine:
		f, err = c.machine(now, r, proof.Machine)
	case *api.EnrolRequest_Pod:
		f, err = c.pod(ctx, now, r, proof.Pod)
	case *api.EnrolRequest_Guest:
		f, err = c.guest(now, r, proof.Guest)
	default:
		err = refuse(codeMalformed, "the request carries no proof")
	}
	if err != nil {
		return nil, err
	}
	return f, now.denyList().Denies(policy.Holder{
		Key: policy.DigestFrom(r.spki), Machine: f.claims.Machine, Measurement: f.claims.Measurement, Workload: f.claims.Workload,
	}).Err()
}

// caller judges the certificate a caller shows, by the policy of this moment.
func (c *core) caller(now *inForce, peer *ratls.Peer) error {
	if err := now.manifest.Manifest.AcceptPeer(peer.Facts(), c.clock.Now()).Err(); err != nil {
		return err
	}
	return now.denyList().Denies(peer.Holder()).Err()
}
