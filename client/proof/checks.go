// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/appraise"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
)

// question reports whether everything is there that the steps ask about. What
// is absent must refuse, not skip.
func (v *verification) question() bool {
	g, lacks := v.against, ""
	switch {
	case v.a == nil:
		lacks = "attestation"
	case g.Manifest == nil || g.Manifest.Manifest.Digest() == "":
		lacks = "manifest"
	case g.DenyList != nil && g.DenyList.List.Digest() == "":
		lacks = "opened deny list"
	case g.Bundle == nil || g.Bundle.Digest() == "":
		lacks = "bundle of the CDS's keys"
	case g.Now.IsZero():
		lacks = "time"
	case g.MaxAge < 0:
		lacks = "age"
	case g.TLSKey == [32]byte{}:
		lacks = "key of the connection"
	case !validHost(g.Host) || strings.HasPrefix(g.Host, "*."):
		lacks = "DNS name that the request is for"
	case len(g.Nonce) != 0 && (len(g.Nonce) < MinNonce || len(g.Nonce) > MaxNonce):
		lacks = fmt.Sprintf("nonce of %d to %d bytes", MinNonce, MaxNonce)
	default:
		return true
	}
	v.add(Step{
		Name: StepQuestion, State: Refuted, Code: CodeAgainst, Expected: "everything that an attestation is judged by", Actual: "no " + lacks,
		Remedy: "verify the CDS first, and ask again",
	})
	return false
}

// documents judges what the CDS signed.
func (v *verification) documents() {
	a, g := v.a, v.against
	domain := g.Manifest.Manifest.TrustDomain
	v.step(StepStatement, "a well-formed statement of an ingress of "+domain, nil, func() (string, error) {
		if err := a.check(); err != nil {
			return "", malformed("an attestation", err)
		}
		for _, got := range []string{a.Statement.TrustDomain, g.Bundle.TrustDomain} {
			if got != domain {
				return "", attest.NewFailure(CodeTrustDomain, domain, got, "this ingress, or its CDS, belongs to another mesh")
			}
		}
		return "software " + a.Statement.Software, nil
	})
	v.step(StepBeacon, "signed by the CDS, at most "+g.MaxAge.String()+" old", nil, func() (string, error) {
		key, err := g.Bundle.BeaconKey()
		if err == nil {
			v.p.Beacon, err = beacon.Verify(a.Beacon, key, domain, g.Now, g.MaxAge)
		}
		if err != nil {
			return "", err
		}
		return g.Now.Sub(v.p.Beacon.Time).Round(time.Second).String() + " old, of " + stamp(v.p.Beacon.Time), nil
	})
	v.step(StepChain, "a mesh certificate of role ingress that the CDS issued", nil, v.chain)
	v.step(StepCertificate, string(a.Statement.Certificate), []string{StepStatement, StepChain}, func() (string, error) {
		digest := policy.DigestOf(a.Chain[0])
		if digest != a.Statement.Certificate {
			return "", attest.NewFailure(CodeCertificate, "the certificate that the statement names, "+string(a.Statement.Certificate), string(digest), "do not trust this ingress")
		}
		return string(digest), nil
	})
	v.step(StepReceipt, "the certificate's issuance in the CDS's log", []string{StepStatement, StepChain}, v.receipt)
	v.step(StepAccepted, "a machine that the manifest accepts as ingress", []string{StepChain}, func() (string, error) {
		d := g.Manifest.Manifest.AcceptPeer(v.p.Peer.Facts(), g.Now)
		return "accepted by " + d.Rule, d.Err()
	})
}

func (v *verification) chain() (string, error) {
	if len(v.a.Chain) != 2 {
		return "", attest.NewFailure(CodeCertificate, "a leaf and its issuer", fmt.Sprintf("%d certificates", len(v.a.Chain)), "")
	}
	chain := make([]*x509.Certificate, len(v.a.Chain))
	for i, der := range v.a.Chain {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return "", attest.NewFailure(CodeCertificate, "certificates in DER", err.Error(), "")
		}
	}
	root, err := v.against.Bundle.RootCertificate()
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	peer, err := ratls.VerifyPeer(chain, roots, v.against.Bundle.TrustDomain, v.against.Now)
	if err != nil {
		return "", err
	}
	if key := policy.DigestOf(chain[1].RawSubjectPublicKeyInfo); peer.IssuerKey != key {
		return "", attest.NewFailure(CodeCertificate, "the leaf's own issuer beside it", string(key), "")
	}
	if peer.Claims.Role != policy.RoleIngress {
		return "", attest.NewFailure(CodeRole, string(policy.RoleIngress), string(peer.Claims.Role), "this machine was not certified to stand before clients: do not trust it")
	}
	v.p.Peer = peer
	return peer.ID.String() + " until " + stamp(peer.NotAfter), nil
}

// receipt checks that the log has the issuance of exactly this certificate.
func (v *verification) receipt() (string, error) {
	r, peer := &v.a.Receipt, v.p.Peer
	refuse := func(expected string, err error) error {
		return attest.NewFailure(CodeReceipt, expected, err.Error(), "a certificate that is not in the log was issued in secret: do not trust it, and tell the operators")
	}
	entry, err := translog.ParseEntry(r.Entry)
	if err != nil {
		return "", refuse("a log entry", err)
	}
	claims := &peer.Claims
	want := translog.Entry{
		Type: translog.TypeIssuance, Time: entry.Time, Certificate: policy.DigestOf(v.a.Chain[0]), Issuer: policy.DigestOf(v.a.Chain[1]),
		Evidence: policy.DigestFrom(claims.EvidenceHash), Manifest: claims.ManifestDigest, Role: claims.Role, NotAfter: peer.Leaf.NotAfter,
	}
	wanted, err := want.Marshal()
	if err != nil {
		return "", refuse("an entry of this certificate", err)
	}
	if !bytes.Equal(wanted, r.Entry) {
		return "", refuse(string(wanted), errors.New(string(r.Entry)))
	}
	verifier, err := v.against.Bundle.LogVerifier()
	if err != nil {
		return "", err
	}
	cp, err := translog.OpenCheckpoint([]byte(r.Checkpoint), trust.LogOrigin(v.against.Bundle.TrustDomain), verifier)
	if err != nil {
		return "", refuse("a checkpoint that the CDS's log key signed", err)
	}
	proof := make([]translog.Hash, len(r.Proof))
	for i, h := range r.Proof {
		proof[i] = translog.Hash(h) // check saw to the length
	}
	if err := translog.VerifyInclusion(r.Entry, r.Index, *cp, proof); err != nil {
		return "", refuse("a proof of inclusion", err)
	}
	v.p.Checkpoint = cp
	return fmt.Sprintf("entry %d of %d", r.Index, cp.Size), nil
}

// machine judges what the TEE says.
func (v *verification) machine() {
	a, g := v.a, v.against
	v.step(StepEvidence, "evidence, accepted for role ingress, that commits to statement, keys, beacon and nonce", []string{StepStatement, StepBeacon}, func() (string, error) {
		transcript, err := Transcript(&a.Statement, a.Nonce, v.p.Beacon)
		if err != nil {
			return "", err
		}
		evidence, err := attest.ParseCMW(a.Evidence)
		if err != nil {
			return "", err
		}
		v.p.Verdict = appraise.Appraise(evidence, appraise.Request{
			Policy: g.Manifest.Manifest, Role: policy.RoleIngress, ReportData: transcript.ReportData(), Now: g.Now, Cache: g.Cache,
		})
		if err := v.p.Verdict.Err(); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %s, measurement %s, accepted by substrate %q", v.p.Verdict.TEE, v.p.Verdict.Product, v.p.Verdict.Measurement, v.p.Verdict.Substrate), nil
	})
	v.step(StepMachine, "the same machine and launch as in the mesh certificate", []string{StepChain, StepEvidence}, func() (string, error) {
		return sameMachine(&v.p.Verdict.SubstrateFacts, &v.p.Peer.Claims.SubstrateFacts)
	})
	v.step(StepDenied, "nothing of it on the deny list", []string{StepStatement, StepChain, StepEvidence}, func() (string, error) {
		if g.DenyList == nil {
			return "there is no deny list", nil
		}
		list := g.DenyList.List
		for _, holder := range []policy.Holder{
			v.p.Peer.Holder(),
			{Key: a.Statement.TLSKey, IssuerKey: policy.DigestOf(a.Statement.ReceiptKey), Machine: v.p.Verdict.Machine, Measurement: v.p.Verdict.Measurement},
		} {
			if err := list.Denies(holder).Err(); err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("list %d denies none of it", list.Version), nil
	})
}

// sameMachine compares what does not change while a machine runs. Its patch
// level may rise, and so may registers.
func sameMachine(evidence, certificate *policy.SubstrateFacts) (string, error) {
	for _, c := range []struct{ name, evidence, certificate string }{
		{"TEE", evidence.TEE, certificate.TEE},
		{"paravisor", evidence.Paravisor, certificate.Paravisor},
		{"simulation", fmt.Sprint(evidence.Simulated), fmt.Sprint(certificate.Simulated)},
		{"root", string(evidence.Root), string(certificate.Root)},
		{"machine", evidence.Machine, certificate.Machine},
		{"measurement", evidence.Measurement, certificate.Measurement},
		{"host data", evidence.HostData, certificate.HostData},
	} {
		if c.evidence != c.certificate {
			return "", attest.NewFailure(CodeMachine, c.name+" "+c.certificate+", as in the mesh certificate", c.evidence, "the evidence is of another machine: do not trust it")
		}
	}
	return evidence.Machine, nil
}

// caller judges what only this connection and request know.
func (v *verification) caller() {
	a, g := v.a, v.against
	v.step(StepKey, "the key that this connection ends at", []string{StepStatement}, func() (string, error) {
		if mine := policy.DigestFrom(g.TLSKey); a.Statement.TLSKey != mine {
			return "", attest.NewFailure(CodeKey, string(mine)+", the key of this connection", string(a.Statement.TLSKey),
				"somebody stands between this client and the ingress, or the proof was not asked for on this connection: connect again")
		}
		return string(a.Statement.TLSKey), nil
	})
	v.step(StepHost, g.Host, []string{StepStatement}, func() (string, error) {
		if !a.Statement.HasHost(g.Host) {
			return "", attest.NewFailure(CodeHost, g.Host+" among the hosts that the ingress serves", strings.Join(a.Statement.Hosts, ", "), "ask the ingress that serves the host")
		}
		rule, d := g.Manifest.Manifest.IngressHost(g.Host)
		if err := d.Err(); err != nil {
			return "", err
		}
		return "ingress[" + rule.Name + "] of the manifest", nil
	})
	v.step(StepNonce, "what was sent, or none", []string{StepStatement}, func() (string, error) {
		if !bytes.Equal(a.Nonce, g.Nonce) {
			return "", attest.NewFailure(CodeNonce, nonceText(g.Nonce), nonceText(a.Nonce), "ask again: this answer was made for another request")
		}
		return nonceText(a.Nonce), nil
	})
}

func nonceText(nonce []byte) string {
	if len(nonce) == 0 {
		return "none"
	}
	return fmt.Sprintf("%x", nonce)
}

// weight says what the evidence is worth beyond being accepted.
func (v *verification) weight() {
	v.shown(StepHardware, "a real TEE", CodeSimulated, "a simulated TEE, which proves nothing", "use hardware, and a manifest that accepts nothing else",
		func(facts *policy.SubstrateFacts) bool { return !facts.Simulated })
	v.shown(StepCollateral, "revocation and patch level judged by the vendor's word", CodeCollateral, "no collateral came with the evidence",
		"let the ingress fetch collateral, or have the manifest ask for it", func(facts *policy.SubstrateFacts) bool { return facts.Collateral })
}

// shown makes a step that is proven or open.
func (v *verification) shown(name, expected, code, otherwise, remedy string, is func(*policy.SubstrateFacts) bool) {
	v.step(name, expected, []string{StepEvidence}, func() (string, error) { return "as expected", nil })
	s := &v.p.Steps[len(v.p.Steps)-1]
	if s.State == Proven && !is(&v.p.Verdict.SubstrateFacts) {
		s.State, s.Code, s.Actual, s.Remedy = Open, code, otherwise, remedy
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
