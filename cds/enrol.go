// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/policy"
)

// attestation is the Attestation service.
type attestation Server

var _ api.AttestationHandler = (*attestation)(nil)

func (a *attestation) Challenge(ctx context.Context, _ *api.ChallengeRequest) (*api.ChallengeResponse, error) {
	s := sessionOf(ctx)
	id, err := s.id()
	if err != nil {
		return nil, err
	}
	nonce, expires, err := a.challenges.issue(id, s.host())
	if err != nil {
		return nil, err
	}
	return &api.ChallengeResponse{Nonce: nonce[:], Expires: timestamppb.New(expires)}, nil
}

func (a *attestation) Enrol(ctx context.Context, req *api.EnrolRequest) (*api.EnrolResponse, error) {
	return a.issue(ctx, req, false)
}

func (a *attestation) Renew(ctx context.Context, req *api.EnrolRequest) (*api.EnrolResponse, error) {
	return a.issue(ctx, req, true)
}

// request is an enrolment whose nonce was spent and whose key is proven.
type request struct {
	session  session
	nonce    []byte
	exporter []byte
	csr      *x509.CertificateRequest
	spki     [sha256.Size]byte
	peer     *ratls.Peer // the caller's certificate, nil without one
	signed   *policy.Signed
}

func (a *attestation) issue(ctx context.Context, req *api.EnrolRequest, renewal bool) (*api.EnrolResponse, error) {
	r, err := a.accept(ctx, req)
	if err != nil {
		return nil, err
	}
	var leaf *x509.Certificate
	switch proof := req.GetProof().(type) {
	case *api.EnrolRequest_Node:
		leaf, err = a.node(r, proof.Node, renewal)
	case *api.EnrolRequest_Pod:
		leaf, err = a.pod(r, proof.Pod)
	default:
		err = refuse(codeMalformed, "the request carries no proof")
	}
	if err != nil {
		return nil, err
	}
	return &api.EnrolResponse{Certificate: leaf.Raw, Roots: [][]byte{a.ca.Root().Raw}}, nil
}

// accept spends the nonce and checks that the caller holds the key it wants
// certified.
func (a *attestation) accept(ctx context.Context, req *api.EnrolRequest) (*request, error) {
	r := &request{session: sessionOf(ctx), nonce: req.GetNonce(), signed: a.manifests.current()}
	id, err := r.session.id()
	if err != nil {
		return nil, err
	}
	if err := a.challenges.use(r.nonce, id); err != nil {
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
	r.peer, err = r.session.peer()
	return r, err
}

// node issues to a machine whose evidence, bound to this session and key, the
// manifest accepts.
func (a *attestation) node(r *request, proof *api.NodeProof, renewal bool) (*x509.Certificate, error) {
	ev, err := attest.ParseCMW(proof.GetEvidence())
	if err != nil {
		return nil, refuse(codeMalformed, "%v", err)
	}
	data := api.NodeReportData(r.nonce, r.exporter, r.csr.RawSubjectPublicKeyInfo)
	verdict := a.appraise(ev, data, r.signed)
	if err := verdict.Err(); err != nil {
		return nil, err
	}
	if renewal && (r.peer == nil || r.peer.Claims.Role != policy.RoleNode || r.peer.Claims.Machine != verdict.Machine) {
		return nil, refuse(codeIdentityChanged, "the evidence is of machine %s, the presented certificate is not", verdict.Machine)
	}
	claims := claimsOf(verdict, r.signed, a.evidence.keep(verdict.Machine, ev, data, evidenceBacking))
	claims.Role = policy.RoleNode
	return a.sign(r, claims, nil, time.Time{})
}

// pod issues to a pod for which an enrolled node speaks. The node's evidence
// is appraised again, under the manifest now in force.
func (a *attestation) pod(r *request, proof *api.PodProof) (*x509.Certificate, error) {
	node := r.peer
	if node == nil || node.Claims.Role != policy.RoleNode {
		return nil, refuse(codeNodeRequired, "a pod is enrolled by its node, which must show its certificate")
	}
	if err := r.signed.Manifest.AcceptPeer(node.Facts(), a.cfg.Now()).Err(); err != nil {
		return nil, err
	}
	st, err := a.statement(r, proof)
	if err != nil {
		return nil, err
	}
	verdict, err := a.reappraise(node, st, r.signed)
	if err != nil {
		return nil, err
	}
	entry, decision := r.signed.Manifest.Admit(policy.PodFacts{
		Namespace: st.Namespace, Name: st.Name, UID: st.UID, Images: st.Images, Entry: st.Entry,
	})
	if err := decision.Err(); err != nil {
		return nil, err
	}
	addrs, err := st.Addresses()
	if err != nil {
		return nil, refuse(codeMalformed, "%v", err)
	}
	claims := claimsOf(verdict, r.signed, [sha256.Size]byte(st.Evidence))
	claims.Role, claims.Workload, claims.WorkloadDigest = policy.RoleWorkload, entry.Name, entry.Digest()
	claims.Namespace, claims.Pod, claims.PodUID = st.Namespace, st.Name, st.UID
	return a.sign(r, claims, addrs, node.NotAfter)
}

// statement checks that the node said exactly this, here and now.
func (a *attestation) statement(r *request, proof *api.PodProof) (*api.PodStatement, error) {
	key, ok := r.peer.Leaf.PublicKey.(*ecdsa.PublicKey)
	digest := api.StatementDigest(proof.GetStatement())
	if !ok || !ecdsa.VerifyASN1(key, digest[:], proof.GetSignature()) {
		return nil, refuse(codeStatementForged, "the statement is not signed by the key of %s", r.peer.ID)
	}
	st, err := api.ParsePodStatement(proof.GetStatement())
	if err != nil {
		return nil, refuse(codeMalformed, "%v", err)
	}
	switch {
	case !bytes.Equal(st.Nonce, r.nonce), !bytes.Equal(st.Exporter, r.exporter):
		return nil, refuse(codeStatementMismatch, "the statement was made for another session or nonce")
	case !bytes.Equal(st.SPKIHash, r.spki[:]):
		return nil, refuse(codeKeyMismatch, "the statement is about another key than the certificate request")
	case !bytes.Equal(st.Evidence, r.peer.Claims.EvidenceHash[:]):
		return nil, refuse(codeStatementMismatch, "the statement names other evidence than the node's certificate")
	}
	return st, nil
}

// appraise judges a node's evidence. Collateral comes stapled to it.
func (a *attestation) appraise(ev *attest.Evidence, data [64]byte, signed *policy.Signed) *attest.Verdict {
	return appraise.Appraise(ev, appraise.Request{Policy: signed.Manifest, Role: policy.RoleNode, ReportData: data, Now: a.cfg.Now(), Cache: a.verified})
}

// reappraise judges the node's stored evidence by the manifest in force.
func (a *attestation) reappraise(node *ratls.Peer, st *api.PodStatement, signed *policy.Signed) (*attest.Verdict, error) {
	verdict, err := a.evidence.judge([sha256.Size]byte(st.Evidence), signed, func(ev *attest.Evidence, data [64]byte) *attest.Verdict {
		return a.appraise(ev, data, signed)
	})
	if err != nil {
		return nil, err
	}
	if err := verdict.Err(); err != nil {
		return nil, err
	}
	if verdict.Machine != node.Claims.Machine {
		return nil, refuse(codeStatementMismatch, "the evidence is of another machine than the node's certificate")
	}
	return verdict, nil
}

func claimsOf(v *attest.Verdict, signed *policy.Signed, evidence [sha256.Size]byte) ratls.Claims {
	return ratls.Claims{
		SubstrateFacts:  v.SubstrateFacts,
		ManifestVersion: signed.Manifest.Version, ManifestDigest: signed.Digest,
		EvidenceHash: evidence,
	}
}

// sign issues the certificate and writes the audit line.
func (a *attestation) sign(r *request, claims ratls.Claims, addrs []netip.Addr, limit time.Time) (*x509.Certificate, error) {
	notBefore, notAfter := a.ca.Validity(limit)
	if !notAfter.After(a.cfg.Now()) {
		return nil, refuse(codeNodeRequired, "the node's own certificate has expired")
	}
	id, err := ratls.NewID(r.signed.Manifest.TrustDomain, &claims)
	if err != nil {
		return nil, err
	}
	tmpl, err := ratls.Template(claims.Role, id, claims, addrs, notBefore, notAfter)
	if err != nil {
		return nil, err
	}
	leaf, err := a.ca.Issue(tmpl, r.csr.PublicKey)
	if err != nil {
		return nil, err
	}
	a.metrics.issued.WithLabelValues(string(claims.Role)).Inc()
	a.cfg.Log.Info("issued", "id", id.String(), "role", claims.Role, "serial", leaf.SerialNumber.Text(16), "notAfter", leaf.NotAfter,
		"pod", claims.Pod, "namespace", claims.Namespace, "uid", claims.PodUID, "addrs", addrs, "evidence", hex.EncodeToString(claims.EvidenceHash[:]),
		"manifest", claims.ManifestVersion, "simulated", claims.Simulated, "remote", r.session.remote)
	return leaf, nil
}
