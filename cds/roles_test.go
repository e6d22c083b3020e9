// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"crypto/ecdsa"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
)

// newRolesWorld accepts machines that are a substrate of every role, and one
// that may only be a pod of its own.
func newRolesWorld(t *testing.T) *world {
	w := newWorld(t)
	next := w.f.Next(t, func(m *policy.Manifest) {
		for i := range m.Substrates {
			m.Substrates[i].Roles = []policy.Role{policy.RoleNode, policy.RoleCDS, policy.RoleIngress}
		}
		guest := m.Substrates[0]
		guest.Name, guest.Roles = "guest", []policy.Role{policy.RoleWorkload}
		guest.Measurements, guest.Machines = []string{strings.Repeat("cc", 48)}, []string{policy.Any}
		m.Substrates = append(m.Substrates, guest)
	})
	if _, err := w.client().PublishManifest(t.Context(), next.Envelope); err != nil {
		t.Fatal(err)
	}
	w.f = next
	return w
}

func (w *world) guest() attest.Attester {
	return simtest.Attester(w.t, "guest", measuredFor(w.f.Operators), func(o *sim.Options) {
		for i := range o.Measurement {
			o.Measurement[i] = 0xcc
		}
	})
}

func TestEveryRoleGetsACertificateOfItsOwn(t *testing.T) {
	w := newRolesWorld(t)
	c := w.client()
	pod := webPod()
	pod.Attester = w.guest()
	for role, enrol := range map[policy.Role]func() (*client.Credential, error){
		policy.RoleNode:     func() (*client.Credential, error) { return c.EnrolNode(t.Context(), w.node()) },
		policy.RoleIngress:  func() (*client.Credential, error) { return c.EnrolIngress(t.Context(), w.node()) },
		policy.RoleCDS:      func() (*client.Credential, error) { return c.EnrolCDS(t.Context(), w.node()) },
		policy.RoleWorkload: func() (*client.Credential, error) { return c.EnrolGuest(t.Context(), pod) },
	} {
		cred, err := enrol()
		if err != nil {
			t.Errorf("%s: %v", role, err)
			continue
		}
		if cred.Peer.Claims.Role != role || !strings.HasPrefix(cred.Peer.ID.Path(), "/"+string(role)+"/") {
			t.Errorf("%s: certificate of %s for role %s", role, cred.Peer.ID, cred.Peer.Claims.Role)
		}
		if d := w.f.Manifest.AcceptPeer(cred.Peer.Facts(), w.clock.now()); !d.Allowed {
			t.Errorf("%s: the manifest does not accept it: %v", role, d)
		}
		if cred.RenewAfter.Before(w.clock.now()) || !cred.RenewAfter.Before(cred.TLS.Leaf.NotAfter) {
			t.Errorf("%s: to be renewed at %s, it ends at %s", role, cred.RenewAfter, cred.TLS.Leaf.NotAfter)
		}
	}
}

// A node's evidence never makes a pod of its own, and the other way round.
func TestMachinesStayInTheRolesTheManifestGivesThem(t *testing.T) {
	w := newRolesWorld(t)
	c := w.client()
	_, err := c.EnrolNode(t.Context(), w.guest())
	refusedWith(t, err, "measurement")
	pod := webPod()
	pod.Attester = w.node()
	_, err = c.EnrolGuest(t.Context(), pod)
	refusedWith(t, err, "measurement")
}

func TestPodMayHaveFreshEvidenceOfItsNode(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	node, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	pod := webPod()
	pod.Attester = w.node()
	cred, err := c.EnrolPod(t.Context(), node, pod)
	if err != nil {
		t.Fatal(err)
	}
	if cred.Peer.Claims.EvidenceHash == node.Peer.Claims.EvidenceHash {
		t.Error("the pod's certificate names the node's evidence, not its own")
	}
	doc, ev, err := api.ParseEvidenceDocument(w.document("/v1/evidence/" + hexOf(cred.Peer.Claims.EvidenceHash)))
	if err != nil {
		t.Fatal(err)
	}
	if ev.Hash() != cred.Peer.Claims.EvidenceHash || doc.Transcript.Purpose != api.PurposePod {
		t.Errorf("other evidence, made for %q, is kept", doc.Transcript.Purpose)
	}
	pod.Attester = simtest.Attester(t, "cds", measuredFor(w.f.Operators)) // another machine of the mesh
	_, err = c.EnrolPod(t.Context(), node, pod)
	refusedWith(t, err, "statement-mismatch")
}

// Evidence that was made for one purpose is none for another, with the right
// nonce, session and key all the same.
func TestEvidenceForAnotherPurposeIsRefused(t *testing.T) {
	w := newRolesWorld(t)
	roles := map[api.MachineRole]string{
		api.MachineRole_MACHINE_ROLE_NODE: api.PurposeNode, api.MachineRole_MACHINE_ROLE_INGRESS: api.PurposeIngress, api.MachineRole_MACHINE_ROLE_CDS: api.PurposeCDS,
	}
	for role := range roles {
		for other, purpose := range roles {
			if role == other {
				continue
			}
			c := w.call(nil)
			n := c.nonce()
			record := c.attest(w.node(), api.MachineTranscript(purpose, n, c.exporter(n), c.spki))
			_, err := c.api.Enrol(t.Context(), &api.EnrolRequest{Nonce: n, Csr: c.csr, Proof: &api.EnrolRequest_Machine{
				Machine: &api.MachineProof{Role: role, Evidence: record},
			}})
			wantCode(t, err, "report-data")
		}
	}
}

func TestGuestNamesNoEvidenceOfANode(t *testing.T) {
	w := newRolesWorld(t)
	node, err := w.client().EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	c := w.call(nil)
	st := c.statement(node, c.nonce())
	raw, err := st.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	record := c.attest(w.guest(), api.StatementTranscript(api.PurposeGuest, st, raw))
	_, err = c.api.Enrol(t.Context(), &api.EnrolRequest{Nonce: st.Nonce, Csr: c.csr, Proof: &api.EnrolRequest_Guest{
		Guest: &api.GuestProof{Statement: raw, Evidence: record},
	}})
	wantCode(t, err, "statement-mismatch")
	// Nor does a node's word enrol a pod without naming the node's evidence.
	c = w.call(&node.TLS)
	st = c.statement(node, c.nonce())
	st.Evidence = nil
	_, err = c.api.Enrol(t.Context(), c.signed(st, node.TLS.PrivateKey.(*ecdsa.PrivateKey)))
	wantCode(t, err, "statement-mismatch")
}
