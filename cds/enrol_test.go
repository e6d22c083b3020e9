// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"crypto/ecdsa"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestNodeAndPodAreIssuedWhatTheManifestSays(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	node, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	if node.Peer.Claims.Role != policy.RoleNode || !node.Peer.Claims.Simulated {
		t.Errorf("node claims %+v", node.Peer.Claims)
	}
	if d := w.f.Manifest.AcceptPeer(node.Peer.Facts(), w.clock.now()); !d.Allowed {
		t.Errorf("the manifest does not accept the node's own certificate: %v", d)
	}
	pod, err := c.EnrolPod(t.Context(), node, webPod())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := pod.Peer.ID.String(), "spiffe://"+policytest.TrustDomain+"/workload/"+policytest.Web; got != want {
		t.Errorf("pod ID %s, want %s", got, want)
	}
	if len(pod.Peer.Addrs) != 2 || !pod.Peer.HasAddr(webPod().Addrs[1]) {
		t.Errorf("pod addresses %v", pod.Peer.Addrs)
	}
	if pod.TLS.Leaf.NotAfter.After(node.TLS.Leaf.NotAfter) {
		t.Errorf("the pod's certificate (%s) outlives the node's (%s)", pod.TLS.Leaf.NotAfter, node.TLS.Leaf.NotAfter)
	}
	if life := node.TLS.Leaf.NotAfter.Sub(node.TLS.Leaf.NotBefore); life > time.Hour {
		t.Errorf("the node's certificate lives %s, at most an hour is allowed", life)
	}
	if d := w.f.Manifest.AcceptPeer(pod.Peer.Facts(), w.clock.now()); !d.Allowed {
		t.Errorf("the manifest does not accept the pod's certificate: %v", d)
	}
	again, err := c.EnrolPod(t.Context(), node, webPod())
	if err != nil {
		t.Fatal(err)
	}
	if again.Peer.Serial == pod.Peer.Serial || again.TLS.Leaf.PublicKey.(*ecdsa.PublicKey).Equal(pod.TLS.Leaf.PublicKey) {
		t.Error("the second certificate has the serial number or the key of the first")
	}
}

func TestNodeRefusals(t *testing.T) {
	w := newWorld(t)
	own := measuredFor(w.f.Operators)
	other := w.call(nil)
	for _, tt := range []struct {
		name, code string
		request    func(c *caller) *api.EnrolRequest
	}{
		{"nonce that was never given", "nonce-unknown", func(c *caller) *api.EnrolRequest {
			n := make([]byte, api.NonceSize)
			return c.evidence(w.node(), n, c.exporter(n), c.spki)
		}},
		{"nonce used before", "nonce-unknown", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			req := c.evidence(w.node(), n, c.exporter(n), c.spki)
			if _, err := c.api.Enrol(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			return req
		}},
		{"nonce of another connection", "nonce-foreign", func(c *caller) *api.EnrolRequest {
			n := other.nonce()
			return c.evidence(w.node(), n, c.exporter(n), c.spki)
		}},
		{"nonce too old", "nonce-expired", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			req := c.evidence(w.node(), n, c.exporter(n), c.spki)
			w.clock.advance(61 * time.Second)
			return req
		}},
		{"evidence for another key", "report-data", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			return c.evidence(w.node(), n, c.exporter(n), other.spki)
		}},
		{"evidence for another nonce", "report-data", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			req := c.evidence(w.node(), c.nonce(), c.exporter(n), c.spki)
			req.Nonce = n
			return req
		}},
		{"evidence for another session", "report-data", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			return c.evidence(w.node(), n, other.exporter(n), c.spki)
		}},
		{"another measurement", "measurement", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			att := simtest.Attester(t, "node", own, func(o *sim.Options) { o.Measurement[0] ^= 1 })
			return c.evidence(att, n, c.exporter(n), c.spki)
		}},
		{"launched for other operators", "host-data", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			return c.evidence(simtest.Attester(t, "node"), n, c.exporter(n), c.spki)
		}},
		{"debuggable guest", "guest-debug", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			return c.evidence(simtest.Attester(t, "node", own, func(o *sim.Options) { o.Debug = true }), n, c.exporter(n), c.spki)
		}},
		{"old firmware", "tcb-floor", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			return c.evidence(simtest.Attester(t, "node", own, func(o *sim.Options) { o.TCB = policy.TCB{} }), n, c.exporter(n), c.spki)
		}},
		{"no proof", "malformed", func(c *caller) *api.EnrolRequest {
			return &api.EnrolRequest{Nonce: c.nonce(), Csr: c.csr}
		}},
		{"no evidence", "malformed", func(c *caller) *api.EnrolRequest {
			req := c.evidence(w.node(), c.nonce(), make([]byte, 32), c.spki)
			req.GetMachine().Evidence = nil
			return req
		}},
		{"a request signed by another key", "key-mismatch", func(c *caller) *api.EnrolRequest {
			n := c.nonce()
			req := c.evidence(w.node(), n, c.exporter(n), c.spki)
			req.Csr[len(req.Csr)-5] ^= 1
			return req
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := w.call(nil)
			_, err := c.api.Enrol(t.Context(), tt.request(c))
			wantCode(t, err, tt.code)
			if !strings.Contains(w.log.String(), `"code":"`+tt.code+`"`) {
				t.Errorf("the log does not name %s", tt.code)
			}
		})
	}
}

func TestPodRefusals(t *testing.T) {
	w := newWorld(t)
	enrolled, err := w.client().EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	key := enrolled.TLS.PrivateKey.(*ecdsa.PrivateKey)
	pod, err := w.client().EnrolPod(t.Context(), enrolled, webPod())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, code string
		as         *client.Credential
		request    func(c *caller) *api.EnrolRequest
	}{
		{"without a node's certificate", "node-certificate-required", nil, func(c *caller) *api.EnrolRequest {
			return c.signed(c.statement(enrolled, c.nonce()), key)
		}},
		{"with a pod's certificate", "node-certificate-required", pod, func(c *caller) *api.EnrolRequest {
			return c.signed(c.statement(enrolled, c.nonce()), key)
		}},
		{"signed by another key", "statement-forged", enrolled, func(c *caller) *api.EnrolRequest {
			return c.signed(c.statement(enrolled, c.nonce()), c.key)
		}},
		{"changed after signing", "statement-forged", enrolled, func(c *caller) *api.EnrolRequest {
			req := c.signed(c.statement(enrolled, c.nonce()), key)
			req.GetPod().Statement[len(req.GetPod().Statement)-1] ^= 1
			return req
		}},
		{"made for another session", "statement-mismatch", enrolled, func(c *caller) *api.EnrolRequest {
			st := c.statement(enrolled, c.nonce())
			st.Exporter[0] ^= 1
			return c.signed(st, key)
		}},
		{"about another key", "key-mismatch", enrolled, func(c *caller) *api.EnrolRequest {
			st := c.statement(enrolled, c.nonce())
			st.SPKIHash[0] ^= 1
			return c.signed(st, key)
		}},
		{"naming other evidence", "statement-mismatch", enrolled, func(c *caller) *api.EnrolRequest {
			st := c.statement(enrolled, c.nonce())
			st.Evidence = make([]byte, 32)
			return c.signed(st, key)
		}},
		{"with an unlisted image", "image-unlisted", enrolled, func(c *caller) *api.EnrolRequest {
			st := c.statement(enrolled, c.nonce())
			st.Images = []policy.Digest{policytest.Digest("nobody listed this")}
			return c.signed(st, key)
		}},
		{"asking for another entry", "image-unlisted", enrolled, func(c *caller) *api.EnrolRequest {
			st := c.statement(enrolled, c.nonce())
			st.Entry = policytest.DB
			return c.signed(st, key)
		}},
		{"with a loopback address", "malformed", enrolled, func(c *caller) *api.EnrolRequest {
			st := c.statement(enrolled, c.nonce())
			st.Addrs = [][]byte{{127, 0, 0, 1}}
			return c.signed(st, key)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c *caller
			if tt.as == nil {
				c = w.call(nil)
			} else {
				c = w.call(&tt.as.TLS)
			}
			_, err := c.api.Enrol(t.Context(), tt.request(c))
			wantCode(t, err, tt.code)
		})
	}
}

func TestPodIsJudgedByTheManifestInForceNotByTheOneItsNodeEnrolledUnder(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	node, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	next := w.f.Next(t, func(m *policy.Manifest) {
		for i := range m.Substrates {
			m.Substrates[i].SNP.MinTCB = &policy.TCB{BootLoader: 255, SNP: 255, Microcode: 255}
		}
	})
	if _, err := c.PublishManifest(t.Context(), next.Envelope); err != nil {
		t.Fatal(err)
	}
	st := w.call(&node.TLS)
	_, err = st.api.Enrol(t.Context(), st.signed(st.statement(node, st.nonce()), node.TLS.PrivateKey.(*ecdsa.PrivateKey)))
	wantCode(t, err, "tcb-floor")
}

func TestAPodIsIssuedForImagesThatItsNodeFoundSigned(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	node, err := c.EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	keys, _ := policytest.Operators(t, 2, 1)
	publisher, other := policy.Signer(keys.Keys[0]), policy.Signer(keys.Keys[1])
	next := w.f.Next(t, func(m *policy.Manifest) {
		m.Signers = []policy.Signer{publisher, other}
		m.Workloads[0].Images = []policy.Image{{Name: "web", Signers: []string{publisher.Name}, Repository: "registry.example/web"}}
	})
	if _, err := c.PublishManifest(t.Context(), next.Envelope); err != nil {
		t.Fatal(err)
	}
	pod := webPod()
	_, err = c.EnrolPod(t.Context(), node, pod)
	refusedWith(t, err, "image-unlisted")
	signed := func(s policy.Signer) []policy.SignedImage {
		id, err := s.ID()
		if err != nil {
			t.Fatal(err)
		}
		return []policy.SignedImage{{Digest: pod.Images[0], Signer: id}}
	}
	pod.Signed = signed(other)
	_, err = c.EnrolPod(t.Context(), node, pod)
	refusedWith(t, err, "image-unlisted")
	pod.Signed = signed(publisher)
	cred, err := c.EnrolPod(t.Context(), node, pod)
	if err != nil {
		t.Fatal(err)
	}
	if entry, _ := next.Manifest.Workload(policytest.Web); cred.Peer.Claims.Workload != policytest.Web || cred.Peer.Claims.WorkloadDigest != entry.Digest() {
		t.Errorf("issued for %+v", cred.Peer.Claims)
	}
}

func TestRenewKeepsTheIdentity(t *testing.T) {
	w := newWorld(t)
	node, err := w.client().EnrolNode(t.Context(), w.node())
	if err != nil {
		t.Fatal(err)
	}
	c := w.call(&node.TLS)
	n := c.nonce()
	if _, err := c.api.Renew(t.Context(), c.evidence(w.node(), n, c.exporter(n), c.spki)); err != nil {
		t.Errorf("renewal by the same machine: %v", err)
	}
	n = c.nonce()
	_, err = c.api.Renew(t.Context(), c.evidence(simtest.Attester(t, "cds", measuredFor(w.f.Operators)), n, c.exporter(n), c.spki))
	wantCode(t, err, "identity-changed")
	stranger := w.call(nil)
	n = stranger.nonce()
	_, err = stranger.api.Renew(t.Context(), stranger.evidence(w.node(), n, stranger.exporter(n), stranger.spki))
	wantCode(t, err, "identity-changed")
}
