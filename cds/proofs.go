// SPDX-License-Identifier: Apache-2.0

package cds

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/policy"
)

// machineRole is the role a machine asks for, and the purpose its evidence
// must be made for: evidence for one role is none for another.
func machineRole(r api.MachineRole) (policy.Role, string, error) {
	switch r {
	case api.MachineRole_MACHINE_ROLE_NODE:
		return policy.RoleNode, api.PurposeNode, nil
	case api.MachineRole_MACHINE_ROLE_INGRESS:
		return policy.RoleIngress, api.PurposeIngress, nil
	case api.MachineRole_MACHINE_ROLE_CDS:
		return policy.RoleCDS, api.PurposeCDS, nil
	}
	return "", "", refuse(codeMalformed, "role %d is none of node, ingress and cds", r)
}

// machine finds for a machine whose evidence, bound to this session and key,
// the manifest accepts for the role.
func (c *core) machine(now *inForce, r *request, proof *api.MachineProof) (*finding, error) {
	role, purpose, err := machineRole(proof.GetRole())
	if err != nil {
		return nil, err
	}
	transcript := api.MachineTranscript(purpose, r.nonce, r.exporter, r.csr.RawSubjectPublicKeyInfo)
	f, err := c.fresh(now, role, proof.GetEvidence(), transcript)
	if err != nil {
		return nil, err
	}
	if r.renewal && (r.peer == nil || r.peer.Claims.Role != role || r.peer.Claims.Machine != f.claims.Machine) {
		return nil, refuse(codeIdentityChanged, "the evidence is of machine %s as %s, the presented certificate is not", f.claims.Machine, role)
	}
	f.claims.Role = role
	return f, nil
}

// pod finds for a pod for which an enrolled node speaks. The node's evidence
// is appraised again, under the manifest now in force.
func (c *core) pod(ctx context.Context, now *inForce, r *request, proof *api.PodProof) (*finding, error) {
	node := r.peer
	if node == nil || node.Claims.Role != policy.RoleNode {
		return nil, refuse(codeNodeRequired, "a pod is enrolled by its node, which must show its certificate")
	}
	if err := c.caller(now, node); err != nil {
		return nil, err
	}
	st, err := c.statement(r, proof)
	if err != nil {
		return nil, err
	}
	verdict, err := c.reappraise(ctx, now, node, st)
	if err != nil {
		return nil, err
	}
	f := &finding{claims: claimsOf(verdict, node.Claims.EvidenceHash)}
	if len(proof.GetEvidence()) > 0 {
		if f, err = c.fresh(now, policy.RoleNode, proof.GetEvidence(), api.StatementTranscript(api.PurposePod, st, proof.GetStatement())); err != nil {
			return nil, err
		}
		if f.claims.Machine != node.Claims.Machine {
			return nil, refuse(codeStatementMismatch, "the pod's evidence is of another machine than the node's certificate")
		}
	}
	f.limit = node.NotAfter
	return f, now.admit(f, st)
}

// guest finds for a pod that is a machine of its own.
func (c *core) guest(now *inForce, r *request, proof *api.GuestProof) (*finding, error) {
	st, err := api.ParsePodStatement(proof.GetStatement())
	if err != nil {
		return nil, refuse(codeMalformed, "%v", err)
	}
	if err := r.bound(st); err != nil {
		return nil, err
	}
	if len(st.Evidence) != 0 {
		return nil, refuse(codeStatementMismatch, "the statement of a pod with its own evidence names evidence of a node")
	}
	f, err := c.fresh(now, policy.RoleWorkload, proof.GetEvidence(), api.StatementTranscript(api.PurposeGuest, st, proof.GetStatement()))
	if err != nil {
		return nil, err
	}
	return f, now.admit(f, st)
}

// admit lets the manifest name the pod: the requester never does.
func (f *inForce) admit(to *finding, st *api.PodStatement) error {
	signed := make([]policy.SignedImage, len(st.Signed))
	for i, s := range st.Signed {
		signed[i] = policy.SignedImage{Digest: s.Digest, Signer: s.Signer}
	}
	entry, decision := f.manifest.Manifest.Admit(policy.PodFacts{
		Namespace: st.Namespace, Name: st.Name, UID: st.UID, Images: st.Images, Signed: signed, Entry: st.Entry,
	})
	if err := decision.Err(); err != nil {
		return err
	}
	var err error
	if to.addrs, err = st.Addresses(); err != nil {
		return refuse(codeMalformed, "%v", err)
	}
	claims := &to.claims
	claims.Role, claims.Workload, claims.WorkloadDigest = policy.RoleWorkload, entry.Name, entry.Digest()
	claims.Namespace, claims.Pod, claims.PodUID = st.Namespace, st.Name, st.UID
	return nil
}

// statement checks that the node said exactly this, here and now.
func (c *core) statement(r *request, proof *api.PodProof) (*api.PodStatement, error) {
	key, ok := r.peer.Leaf.PublicKey.(*ecdsa.PublicKey)
	digest := api.StatementDigest(proof.GetStatement())
	if !ok || !ecdsa.VerifyASN1(key, digest[:], proof.GetSignature()) {
		return nil, refuse(codeStatementForged, "the statement is not signed by the key of %s", r.peer.ID)
	}
	st, err := api.ParsePodStatement(proof.GetStatement())
	if err != nil {
		return nil, refuse(codeMalformed, "%v", err)
	}
	if !bytes.Equal(st.Evidence, r.peer.Claims.EvidenceHash[:]) {
		return nil, refuse(codeStatementMismatch, "the statement names other evidence than the node's certificate")
	}
	return st, r.bound(st)
}

// bound checks that a statement was made for this session, nonce and key.
func (r *request) bound(st *api.PodStatement) error {
	switch {
	case !bytes.Equal(st.Nonce, r.nonce), !bytes.Equal(st.Exporter, r.exporter):
		return refuse(codeStatementMismatch, "the statement was made for another session or nonce")
	case !bytes.Equal(st.SPKIHash, r.spki[:]):
		return refuse(codeKeyMismatch, "the statement is about another key than the certificate request")
	}
	return nil
}

// fresh appraises evidence that was made for this request.
func (c *core) fresh(now *inForce, role policy.Role, record []byte, transcript attest.Transcript) (*finding, error) {
	ev, err := attest.ParseCMW(record)
	if err != nil {
		return nil, refuse(codeMalformed, "%v", err)
	}
	verdict := c.judge(ev, transcript.ReportData(), role, now.manifest)
	if err := verdict.Err(); err != nil {
		return nil, err
	}
	doc, err := api.NewEvidenceDocument(ev, transcript)
	if err != nil {
		return nil, err
	}
	return &finding{claims: claimsOf(verdict, ev.Hash()), evidence: ev, doc: doc}, nil
}

// judge appraises evidence. Collateral comes stapled to it.
func (c *core) judge(ev *attest.Evidence, data [64]byte, role policy.Role, signed *policy.Signed) *attest.Verdict {
	return appraise.Appraise(ev, appraise.Request{Policy: signed.Manifest, Role: role, ReportData: data, Now: c.clock.Now(), Cache: c.verified})
}

// reappraise judges the node's kept evidence by the manifest in force.
func (c *core) reappraise(ctx context.Context, now *inForce, node *ratls.Peer, st *api.PodStatement) (*attest.Verdict, error) {
	hash, _ := hash32(st.Evidence)
	verdict, err := c.evidence.judge(ctx, hash, now.manifest, func(ev *attest.Evidence, data [64]byte) *attest.Verdict {
		return c.judge(ev, data, policy.RoleNode, now.manifest)
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

func claimsOf(v *attest.Verdict, evidence [sha256.Size]byte) ratls.Claims {
	return ratls.Claims{SubstrateFacts: v.SubstrateFacts, EvidenceHash: evidence}
}
