// SPDX-License-Identifier: Apache-2.0

package proof_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/beacon"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/proof/prooftest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// step finds a step of a proof.
func step(t *testing.T, p *proof.Proof, name string) proof.Step {
	t.Helper()
	i := slices.IndexFunc(p.Steps, func(s proof.Step) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no step %s in %+v", name, p.Steps)
	}
	return p.Steps[i]
}

func TestAGoodProofIsProven(t *testing.T) {
	w := prooftest.New(t)
	text, err := w.Good().Encode()
	if err != nil {
		t.Fatal(err)
	}
	a, err := proof.ParseAttestation(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{prooftest.Host, "www.bank.test"} {
		against := w.Against()
		against.Host = host
		p, err := a.Verify(against)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		var open []string
		for _, s := range p.Steps {
			if s.Name == "" || s.Expected == "" || s.Actual == "" || s.State != proof.Proven && s.Code == "" {
				t.Errorf("a step says too little: %+v", s)
			}
			if s.State == proof.Open {
				open = append(open, s.Code)
			}
		}
		if want := []string{proof.CodeSimulated}; !slices.Equal(open, want) {
			t.Errorf("open: %v, want %v", open, want)
		}
		if p.Statement.Software != "v0-test" || p.Index != w.Credential.Receipt.GetIndex() || p.Checkpoint.Size <= p.Index || !p.Verdict.OK || p.Peer.Claims.Role != policy.RoleIngress {
			t.Errorf("facts: %+v", p)
		}
		if want := p.Beacon.Time.Add(proof.DefaultMaxAge); !p.Until.Equal(want) {
			t.Errorf("proven until %s, want %s", p.Until, want)
		}
	}
	t.Logf("an attestation has %d bytes, of which evidence %d", len(text), len(a.Evidence))
}

// refusals are attestations that must be refused, each with the step and code
// that must say so.
type refusal struct {
	name, step, code string
	edit             func(*proof.Attestation)
	against          func(*proof.Against)
}

func TestProofsAreRefusedEachByItsStep(t *testing.T) {
	w := prooftest.New(t)
	foreign := prooftest.New(t, func(m *policy.Manifest) { m.TrustDomain = "evil.test" })
	stranger := prooftest.New(t)
	document := w.Document("/v1/beacon")
	good := w.Attest(w.TEE, w.Statement(), document, nil)
	nonce := bytes.Repeat([]byte{7}, 16)
	withNonce := w.Attest(w.TEE, w.Statement(), document, nonce)
	b, err := beacon.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	transcript, err := proof.Transcript(w.Statement(), nil, b)
	if err != nil {
		t.Fatal(err)
	}
	again := func(tee attest.Attester, edit func(*attest.Transcript)) func(*proof.Attestation) {
		return func(a *proof.Attestation) {
			other := transcript
			edit(&other)
			a.Evidence = prooftest.Evidence(t, tee, other)
		}
	}
	same := func(*attest.Transcript) {}
	later := func(d time.Duration) func(*proof.Against) {
		return func(g *proof.Against) { g.Now = b.Time.Add(d) }
	}
	node, err := w.Client.EnrolNode(t.Context(), w.Attester("node"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []refusal{
		{name: "evidence of another ingress", step: proof.StepMachine, code: proof.CodeMachine, edit: again(w.Attester(prooftest.Other), same)},
		{name: "evidence of another program", step: proof.StepEvidence, code: "measurement", edit: again(w.Attester(prooftest.Machine, func(o *sim.Options) { o.Measurement[0]++ }), same)},
		{name: "a machine that is only a node", step: proof.StepEvidence, code: string(policy.CodeMachineUnpinned), edit: again(w.Attester("node"), same)},
		{name: "evidence of an enrolment", step: proof.StepEvidence, code: "report-data", edit: again(w.TEE, func(x *attest.Transcript) { x.Purpose = api.PurposeIngress })},
		{name: "evidence over another key", step: proof.StepEvidence, code: "report-data", edit: again(w.TEE, func(x *attest.Transcript) { x.SPKIHash = make([]byte, 32) })},
		{name: "evidence over no beacon", step: proof.StepEvidence, code: "report-data", edit: again(w.TEE, func(x *attest.Transcript) { x.Beacon = nil })},
		{name: "evidence that is none", step: proof.StepEvidence, edit: func(a *proof.Attestation) { a.Evidence = []byte{1} }},
		{name: "of another mesh", step: proof.StepStatement, code: proof.CodeTrustDomain, edit: func(a *proof.Attestation) { *a = *foreign.Good() }},
		{name: "of another CDS", step: proof.StepBeacon, code: beacon.CodeSignature, edit: func(a *proof.Attestation) { *a = *stranger.Good() }},
		{name: "keys of another CDS", step: proof.StepChain, code: string(ratls.CodeChain), against: func(g *proof.Against) { g.Bundle = stranger.Bundle() }},
		{name: "the CDS of another mesh", step: proof.StepStatement, code: proof.CodeTrustDomain, against: func(g *proof.Against) { g.Bundle = foreign.Bundle() }},
		{name: "a beacon of another CDS", step: proof.StepBeacon, code: beacon.CodeSignature, edit: func(a *proof.Attestation) { a.Beacon = stranger.Document("/v1/beacon") }},
		{name: "an expired beacon", step: proof.StepBeacon, code: beacon.CodeStale, against: later(proof.DefaultMaxAge + time.Second)},
		{name: "a clock that was set back", step: proof.StepBeacon, code: beacon.CodeFuture, against: later(-2 * time.Minute)},
		{name: "no age at all", step: proof.StepBeacon, code: beacon.CodeStale, against: func(g *proof.Against) { g.MaxAge, g.Now = 0, b.Time.Add(time.Second) }},
		{name: "an expired certificate", step: proof.StepChain, code: string(ratls.CodeDates), against: func(g *proof.Against) { g.Now, g.MaxAge = w.Credential.Peer.NotAfter.Add(time.Second), 24*time.Hour }},
		{name: "a node's certificate", step: proof.StepChain, code: proof.CodeRole, edit: func(a *proof.Attestation) { a.Chain = node.TLS.Certificate }},
		{name: "an issuer that is another", step: proof.StepChain, code: string(ratls.CodeChain), edit: func(a *proof.Attestation) { a.Chain = [][]byte{a.Chain[0], stranger.Credential.TLS.Certificate[1]} }},
		{name: "the leaf twice", step: proof.StepChain, code: string(ratls.CodeChain), edit: func(a *proof.Attestation) { a.Chain = [][]byte{a.Chain[0], a.Chain[0]} }},
		{name: "a chain that is none", step: proof.StepChain, code: proof.CodeCertificate, edit: func(a *proof.Attestation) { a.Chain = [][]byte{{1}, {2}} }},
		{name: "a certificate that is missing", step: proof.StepStatement, code: proof.CodeMalformed, edit: func(a *proof.Attestation) { a.Chain = a.Chain[:1] }},
		{name: "a receipt of another certificate", step: proof.StepReceipt, code: proof.CodeReceipt, edit: func(a *proof.Attestation) { a.Receipt.Entry = node.Receipt.GetEntry() }},
		{name: "a receipt at another place", step: proof.StepReceipt, code: proof.CodeReceipt, edit: func(a *proof.Attestation) { a.Receipt.Index++ }},
		{name: "another log's checkpoint", step: proof.StepReceipt, code: proof.CodeReceipt, edit: func(a *proof.Attestation) { a.Receipt.Checkpoint = string(stranger.Document("/log/checkpoint")) }},
		{name: "half a proof of inclusion", step: proof.StepReceipt, code: proof.CodeReceipt, edit: func(a *proof.Attestation) { a.Receipt.Proof = a.Receipt.Proof[1:] }},
		{name: "another connection", step: proof.StepKey, code: proof.CodeKey, against: func(g *proof.Against) { g.TLSKey = sha256.Sum256([]byte("x")) }},
		{name: "a host it does not serve", step: proof.StepHost, code: proof.CodeHost, against: func(g *proof.Against) { g.Host = "shop.test" }},
		{name: "two labels for the wildcard", step: proof.StepHost, code: proof.CodeHost, against: func(g *proof.Against) { g.Host = "a.b.bank.test" }},
		{name: "a nonce that was not sent", step: proof.StepNonce, code: proof.CodeNonce, edit: func(a *proof.Attestation) { *a = *withNonce }},
		{name: "no nonce", step: proof.StepNonce, code: proof.CodeNonce, against: func(g *proof.Against) { g.Nonce = nonce }},
		{name: "another nonce", step: proof.StepNonce, code: proof.CodeNonce, edit: func(a *proof.Attestation) { *a = *withNonce }, against: func(g *proof.Against) { g.Nonce = nonce[:15:15]; g.Nonce = append(g.Nonce, 8) }},
		{name: "a nonce put in", step: proof.StepEvidence, code: "report-data", edit: func(a *proof.Attestation) { a.Nonce = nonce }, against: func(g *proof.Against) { g.Nonce = nonce }},
		{name: "no manifest", step: proof.StepQuestion, code: proof.CodeAgainst, against: func(g *proof.Against) { g.Manifest = nil }},
		{name: "a manifest by hand", step: proof.StepQuestion, code: proof.CodeAgainst, against: func(g *proof.Against) { g.Manifest = &policy.Signed{Manifest: &policy.Manifest{}} }},
		{name: "a deny list by hand", step: proof.StepQuestion, code: proof.CodeAgainst, against: func(g *proof.Against) { g.DenyList = &policy.SignedDenyList{List: &policy.DenyList{}} }},
		{name: "no bundle", step: proof.StepQuestion, code: proof.CodeAgainst, against: func(g *proof.Against) { g.Bundle = nil }},
		{name: "no time", step: proof.StepQuestion, code: proof.CodeAgainst, against: func(g *proof.Against) { g.Now = time.Time{} }},
		{name: "no key", step: proof.StepQuestion, code: proof.CodeAgainst, against: func(g *proof.Against) { g.TLSKey = [32]byte{} }},
		{name: "no host", step: proof.StepQuestion, code: proof.CodeAgainst, against: func(g *proof.Against) { g.Host = "" }},
		{name: "a wildcard as host", step: proof.StepQuestion, code: proof.CodeAgainst, against: func(g *proof.Against) { g.Host = prooftest.Wildcard }},
		{name: "a short nonce", step: proof.StepQuestion, code: proof.CodeAgainst, against: func(g *proof.Against) { g.Nonce = nonce[:15] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, against := *good, w.Against()
			if c.edit != nil {
				c.edit(&a)
			}
			if c.against != nil {
				c.against(&against)
			}
			expectRefusal(t, &a, against, c.step, c.code)
		})
	}
	expectProven(t, withNonce, func() proof.Against { g := w.Against(); g.Nonce = nonce; return g }())
	if _, err := (*proof.Attestation)(nil).Verify(w.Against()); proof.CodeOf(err) != proof.CodeAgainst {
		t.Errorf("nothing: %v", err)
	}
}

func expectProven(t *testing.T, a *proof.Attestation, against proof.Against) *proof.Proof {
	t.Helper()
	p, err := a.Verify(against)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	return p
}

// expectRefusal wants that step to be refuted, and nothing to be believed.
func expectRefusal(t *testing.T, a *proof.Attestation, against proof.Against, name, code string) {
	t.Helper()
	p, err := a.Verify(against)
	var refuted *proof.RefutedError
	if !errors.As(err, &refuted) || p.Statement != nil || p.Peer != nil || p.Beacon != nil || p.Checkpoint != nil || !p.Until.IsZero() {
		t.Fatalf("accepted, or facts are left: %v", err)
	}
	if s := step(t, p, name); s.State != proof.Refuted || code != "" && s.Code != code {
		t.Errorf("step %s is %s with code %q, want refuted with %q; the error is %v", name, s.State, s.Code, code, err)
	}
}

// Whatever is altered in the statement, the evidence no longer covers it.
func TestStatementsAreCoveredFieldByField(t *testing.T) {
	w := prooftest.New(t)
	good := w.Good()
	other := prooftest.New(t)
	for name, edit := range map[string]func(*proof.Statement){
		"a host more":     func(s *proof.Statement) { s.Hosts = append(slices.Clone(s.Hosts), "shop.test") },
		"a host less":     func(s *proof.Statement) { s.Hosts = s.Hosts[1:] },
		"TLS key":         func(s *proof.Statement) { s.TLSKey = policytest.Digest("key") },
		"HPKE key":        func(s *proof.Statement) { s.HPKE.PublicKey = other.HPKE.PublicKey().Bytes() },
		"KDF":             func(s *proof.Statement) { s.HPKE.KDF = 2 },
		"AEAD":            func(s *proof.Statement) { s.HPKE.AEAD = 3 },
		"receipt key":     func(s *proof.Statement) { s.ReceiptKey = other.Statement().ReceiptKey },
		"certificate":     func(s *proof.Statement) { s.Certificate = policytest.Digest("leaf") },
		"manifest":        func(s *proof.Statement) { s.Manifest.Digest = policytest.Digest("manifest") },
		"manifest before": func(s *proof.Statement) { s.Manifest.Version++ },
		"deny list":       func(s *proof.Statement) { s.DenyList = proof.Followed{Version: 1, Digest: policytest.Digest("list")} },
		"software":        func(s *proof.Statement) { s.Software = "v1" },
	} {
		t.Run(name, func(t *testing.T) {
			a := *good
			a.Statement.Hosts = slices.Clone(a.Statement.Hosts)
			edit(&a.Statement)
			expectRefusal(t, &a, w.Against(), proof.StepEvidence, "report-data")
		})
	}
}

// The beacon's checkpoint, clock and the like are signed; its bytes are
// committed to.
func TestAnotherBeaconDoesNotMakeEvidenceYounger(t *testing.T) {
	w := prooftest.New(t)
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	a := *w.Good()
	b, err := beacon.Parse(a.Beacon)
	if err != nil {
		t.Fatal(err)
	}
	younger := *b
	younger.Time = b.Time.Add(time.Minute)
	if a.Beacon, err = beacon.Sign(key, younger); err != nil {
		t.Fatal(err)
	}
	expectRefusal(t, &a, w.Against(), proof.StepBeacon, beacon.CodeSignature)
}

func TestWhatTheOperatorsTakeBackIsRefused(t *testing.T) {
	w := prooftest.New(t)
	a := w.Good()
	facts := expectProven(t, a, w.Against())
	for name, c := range map[string]struct {
		denial policy.Denial
		code   policy.Code
	}{
		"machine":     {policytest.Deny(policy.DenyMachine, facts.Verdict.Machine), policy.CodeDeniedMachine},
		"certificate": {policytest.Deny(policy.DenySerial, facts.Peer.Serial), policy.CodeDeniedSerial},
		"issuing key": {policytest.Deny(policy.DenyKey, string(facts.Peer.IssuerKey)), policy.CodeDeniedKey},
		"TLS key":     {policytest.Deny(policy.DenyKey, string(a.Statement.TLSKey)), policy.CodeDeniedKey},
		"receipt key": {policytest.Deny(policy.DenyKey, string(policy.DigestOf(a.Statement.ReceiptKey))), policy.CodeDeniedKey},
	} {
		against := w.Against()
		against.DenyList = w.DenyList(t, nil, c.denial)
		p, err := a.Verify(against)
		if s := step(t, p, proof.StepDenied); err == nil || s.State != proof.Refuted || s.Code != string(c.code) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	gone := w.Next(t, func(m *policy.Manifest) { m.Substrates = m.Substrates[:2] })
	against := w.Against()
	against.Manifest = gone.Signed
	against.ManifestSince = time.Now()
	p, err := a.Verify(against)
	if err == nil || step(t, p, proof.StepAccepted).State != proof.Refuted || step(t, p, proof.StepEvidence).State != proof.Refuted {
		t.Errorf("a manifest without ingress machines: %v", err)
	}
	unserved := w.Next(t, func(m *policy.Manifest) { m.Ingress[0].Hosts = []string{"shop.test"} })
	against.Manifest = unserved.Signed
	if p, err := a.Verify(against); err == nil || step(t, p, proof.StepHost).Code != string(policy.CodeIngressHost) {
		t.Errorf("a manifest without the host: %v", err)
	}
}

func TestTheWordInForceIsFollowed(t *testing.T) {
	w := prooftest.New(t)
	first, firstAgainst := w.Good(), w.Against()
	w.Publish(nil)
	w.Deny(policytest.Deny(policy.DenyWorkload, policytest.DB))
	b, err := beacon.Parse(first.Beacon)
	if err != nil {
		t.Fatal(err)
	}
	sinceThen := func(d time.Duration) func(*proof.Against) {
		return func(g *proof.Against) { g.ManifestSince, g.DenyListSince = b.Time.Add(d), b.Time.Add(d) }
	}
	for name, c := range map[string]struct {
		against              func(*proof.Against)
		manifest, deniedList string
	}{
		"nobody knows since when": {func(*proof.Against) {}, proof.CodeManifestBehind, proof.CodeDenyListBehind},
		"after the beacon":        {sinceThen(time.Second), "", ""},
		"a little before":         {sinceThen(-9 * time.Second), "", ""},
		"long before":             {sinceThen(-10 * time.Second), proof.CodeManifestBehind, proof.CodeDenyListBehind},
		"the one before the one before": {func(g *proof.Against) {
			sinceThen(time.Second)(g)
			g.Manifest = w.Next(t, nil).Signed
			g.DenyList = w.DenyList(t, w.Client.DenyList())
		}, proof.CodeManifestBehind, proof.CodeDenyListBehind},
	} {
		t.Run(name, func(t *testing.T) {
			against := w.Against()
			c.against(&against)
			p, err := first.Verify(against)
			if got := step(t, p, proof.StepManifest).Code; got != c.manifest {
				t.Errorf("manifest: %q, want %q", got, c.manifest)
			}
			if got := step(t, p, proof.StepDenyList).Code; got != c.deniedList {
				t.Errorf("deny list: %q, want %q", got, c.deniedList)
			}
			if want := c.manifest == ""; want != (err == nil) {
				t.Errorf("%v", err)
			}
		})
	}
	w.Enrol() // under the new manifest
	second := w.Good()
	expectProven(t, second, w.Against())
	p, err := second.Verify(firstAgainst)
	if err == nil || step(t, p, proof.StepManifest).Code != proof.CodeManifestAhead || step(t, p, proof.StepDenyList).Code != proof.CodeDenyListAhead {
		t.Errorf("a client that is behind: %v", err)
	}
	if s := step(t, p, proof.StepAccepted); s.Code != string(policy.CodeManifestBehind) {
		t.Errorf("its certificate: %+v", s)
	}
}

// Where the manifest does not ask for collateral, its absence is said.
func TestEvidenceWithoutCollateralIsOpen(t *testing.T) {
	w := prooftest.New(t, func(m *policy.Manifest) {
		for i := range m.Substrates {
			m.Substrates[i].Collateral = policy.CollateralRules{Use: policy.CollateralUnchecked}
		}
	})
	a := w.Good()
	evidence, err := attest.ParseCMW(a.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	evidence.Collateral = nil
	if a.Evidence, err = attest.MarshalCMW(evidence); err != nil {
		t.Fatal(err)
	}
	p := expectProven(t, a, w.Against())
	if s := step(t, p, proof.StepCollateral); s.State != proof.Open || s.Code != proof.CodeCollateral {
		t.Errorf("%+v", s)
	}
}

// A step that needs a refuted one is not called wrong, and says what is missing.
func TestStepsThatAreNotReachedAreOpen(t *testing.T) {
	w := prooftest.New(t)
	a := *w.Good()
	a.Chain = [][]byte{{1}, {2}}
	p, err := a.Verify(w.Against())
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{proof.StepCertificate, proof.StepReceipt, proof.StepAccepted, proof.StepMachine, proof.StepDenied} {
		if s := step(t, p, name); s.State != proof.Open || s.Code != "not-reached" || !strings.Contains(s.Actual, proof.StepChain) {
			t.Errorf("%+v", s)
		}
	}
	if s := step(t, p, proof.StepEvidence); s.State != proof.Proven {
		t.Errorf("the evidence needs no chain: %+v", s)
	}
}

func BenchmarkVerify(b *testing.B) {
	w := prooftest.New(b)
	text, err := w.Good().Encode()
	if err != nil {
		b.Fatal(err)
	}
	against := w.Against()
	b.ReportMetric(float64(len(text)), "bytes")
	for b.Loop() {
		a, err := proof.ParseAttestation(text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := a.Verify(against); err != nil {
			b.Fatal(err)
		}
	}
}
