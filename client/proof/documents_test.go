// SPDX-License-Identifier: Apache-2.0

package proof_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/proof/prooftest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func TestOnlyWellFormedStatementsAreMadeOrRead(t *testing.T) {
	w := prooftest.New(t)
	long := strings.Repeat("a", 64)
	for name, edit := range map[string]func(*proof.Statement){
		"schema":                   func(s *proof.Statement) { s.Schema += "1" },
		"trust domain":             func(s *proof.Statement) { s.TrustDomain = "C8s.test" },
		"no hosts":                 func(s *proof.Statement) { s.Hosts = nil },
		"empty hosts":              func(s *proof.Statement) { s.Hosts = []string{} },
		"unsorted hosts":           func(s *proof.Statement) { s.Hosts = []string{"b.test", "a.test"} },
		"a host twice":             func(s *proof.Statement) { s.Hosts = []string{"a.test", "a.test"} },
		"an upper-case host":       func(s *proof.Statement) { s.Hosts = []string{"A.test"} },
		"a host with a port":       func(s *proof.Statement) { s.Hosts = []string{"a.test:443"} },
		"a host with a dot":        func(s *proof.Statement) { s.Hosts = []string{"a.test."} },
		"a wildcard within":        func(s *proof.Statement) { s.Hosts = []string{"a.*.test"} },
		"half a wildcard":          func(s *proof.Statement) { s.Hosts = []string{"*a.test"} },
		"a bare wildcard":          func(s *proof.Statement) { s.Hosts = []string{"*"} },
		"a long label":             func(s *proof.Statement) { s.Hosts = []string{long + ".test"} },
		"a long host":              func(s *proof.Statement) { s.Hosts = []string{strings.Repeat("a.", 130) + "test"} },
		"a hyphen first":           func(s *proof.Statement) { s.Hosts = []string{"-a.test"} },
		"too many hosts":           func(s *proof.Statement) { s.Hosts = hosts(proof.MaxHosts + 1) },
		"no key":                   func(s *proof.Statement) { s.TLSKey = "" },
		"a key in upper case":      func(s *proof.Statement) { s.TLSKey = policy.Digest(strings.ToUpper(string(s.TLSKey))) },
		"no certificate":           func(s *proof.Statement) { s.Certificate = "" },
		"unknown KEM":              func(s *proof.Statement) { s.HPKE.KEM = 0xffff },
		"unknown KDF":              func(s *proof.Statement) { s.HPKE.KDF = 0xffff },
		"unknown AEAD":             func(s *proof.Statement) { s.HPKE.AEAD = 0x7777 },
		"no AEAD":                  func(s *proof.Statement) { s.HPKE.AEAD = 0xffff },
		"half an HPKE key":         func(s *proof.Statement) { s.HPKE.PublicKey = s.HPKE.PublicKey[:16] },
		"a huge HPKE key":          func(s *proof.Statement) { s.HPKE.PublicKey = make([]byte, 1<<20) },
		"no HPKE key":              func(s *proof.Statement) { s.HPKE.PublicKey = nil },
		"no receipt key":           func(s *proof.Statement) { s.ReceiptKey = nil },
		"another sort of key":      func(s *proof.Statement) { s.ReceiptKey = w.Credential.TLS.Leaf.RawSubjectPublicKeyInfo },
		"no manifest":              func(s *proof.Statement) { s.Manifest = proof.Followed{} },
		"a manifest by number":     func(s *proof.Statement) { s.Manifest.Digest = "" },
		"half a deny list":         func(s *proof.Statement) { s.DenyList.Version = 1 },
		"no software":              func(s *proof.Statement) { s.Software = "" },
		"long software":            func(s *proof.Statement) { s.Software = long + "a" },
		"software with spaces":     func(s *proof.Statement) { s.Software = "v1 beta" },
		"software in HTML":         func(s *proof.Statement) { s.Software = "<b>" },
		"software that is no text": func(s *proof.Statement) { s.Software = "\xff" },
	} {
		s := w.Statement()
		edit(s)
		if text, err := s.Encode(); err == nil {
			t.Errorf("%s: written as %s", name, text)
		}
	}
	many := w.Statement()
	many.Hosts = hosts(proof.MaxHosts)
	text, err := many.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := proof.ParseStatement(text); err != nil || !slices.Equal(again.Hosts, many.Hosts) {
		t.Errorf("as many hosts as there may be: %v", err)
	}
	for name, bad := range map[string]string{
		"nothing": "", "a space": "{ " + string(text[1:]), "null": "null", "two": string(text) + string(text), "a member more": `{"x":1,` + string(text[1:]),
	} {
		if _, err := proof.ParseStatement([]byte(bad)); attest.FailureCode(err) != proof.CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func hosts(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("h%06d.test", i)
	}
	return list
}

func TestHostsOfAStatement(t *testing.T) {
	s := &proof.Statement{Hosts: []string{"*.a.test", "a.test", "c.test"}}
	for host, want := range map[string]bool{
		"a.test": true, "x.a.test": true, "c.test": true, "x.y.a.test": false, "x.c.test": false, "test": false, "": false,
		"*.a.test": false, "A.test": false, ".a.test": false, "a.test.": false, "b.test": false, "*": false,
	} {
		if s.HasHost(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

func TestOnlyWellFormedAttestationsAreMadeOrRead(t *testing.T) {
	w := prooftest.New(t)
	good := w.Good()
	for name, edit := range map[string]func(*proof.Attestation){
		"schema":             func(a *proof.Attestation) { a.Schema = "" },
		"statement":          func(a *proof.Attestation) { a.Statement.Software = "" },
		"no evidence":        func(a *proof.Attestation) { a.Evidence = nil },
		"huge evidence":      func(a *proof.Attestation) { a.Evidence = make([]byte, attest.MaxCMW+1) },
		"no beacon":          func(a *proof.Attestation) { a.Beacon = nil },
		"a beacon of spaces": func(a *proof.Attestation) { a.Beacon = append([]byte(" "), a.Beacon...) },
		"a huge beacon":      func(a *proof.Attestation) { a.Beacon = bytes.Repeat([]byte("1"), 4<<10) },
		"a short nonce":      func(a *proof.Attestation) { a.Nonce = make([]byte, proof.MinNonce-1) },
		"a long nonce":       func(a *proof.Attestation) { a.Nonce = make([]byte, proof.MaxNonce+1) },
		"no word of a nonce": func(a *proof.Attestation) { a.Nonce = nil },
		"three certificates": func(a *proof.Attestation) { a.Chain = append(slices.Clone(a.Chain), a.Chain[1]) },
		"a huge certificate": func(a *proof.Attestation) { a.Chain = [][]byte{make([]byte, 1<<20), a.Chain[1]} },
		"an entry of spaces": func(a *proof.Attestation) { a.Receipt.Entry = append([]byte(" "), a.Receipt.Entry...) },
		"no entry":           func(a *proof.Attestation) { a.Receipt.Entry = nil },
		"a huge entry":       func(a *proof.Attestation) { a.Receipt.Entry = bytes.Repeat([]byte("1"), 1<<20) },
		"a negative index":   func(a *proof.Attestation) { a.Receipt.Index = -1 },
		"no word of a proof": func(a *proof.Attestation) { a.Receipt.Proof = nil },
		"half a hash":        func(a *proof.Attestation) { a.Receipt.Proof = [][]byte{make([]byte, 16)} },
		"a proof too long": func(a *proof.Attestation) {
			a.Receipt.Proof = slices.Repeat([][]byte{make([]byte, 32)}, 65)
		},
		"no checkpoint":                func(a *proof.Attestation) { a.Receipt.Checkpoint = "" },
		"huge checkpoint":              func(a *proof.Attestation) { a.Receipt.Checkpoint = strings.Repeat("a", 1<<20) },
		"a checkpoint that is no text": func(a *proof.Attestation) { a.Receipt.Checkpoint = "\xff" },
	} {
		a := *good
		edit(&a)
		if text, err := a.Encode(); err == nil {
			t.Errorf("%s: written as %.100s", name, text)
		}
	}
	if _, err := proof.ParseAttestation(bytes.Repeat([]byte(" "), proof.MaxAttestation+1)); attest.FailureCode(err) != proof.CodeMalformed {
		t.Errorf("a huge document: %v", err)
	}
}

func TestDiscoveryLeadsNowhereElse(t *testing.T) {
	good := proof.NewDiscovery("c8s.test", 60)
	text, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if d, err := proof.ParseDiscovery(text); err != nil || d.Attestation != proof.PathAttestation || d.CDS != proof.PathCDS || d.Refresh != 60 {
		t.Errorf("%+v, %v", d, err)
	}
	for name, edit := range map[string]func(*proof.Discovery){
		"schema":              func(d *proof.Discovery) { d.Schema = "" },
		"trust domain":        func(d *proof.Discovery) { d.TrustDomain = "" },
		"another origin":      func(d *proof.Discovery) { d.Attestation = "https://evil.test" + proof.PathAttestation },
		"without a scheme":    func(d *proof.Discovery) { d.CDS = "//evil.test" + proof.PathCDS },
		"a backend's":         func(d *proof.Discovery) { d.CDS = "/cds" },
		"out of there":        func(d *proof.Discovery) { d.CDS = proof.PathDiscovery + "/../cds" },
		"a slash more":        func(d *proof.Discovery) { d.Status += "/" },
		"a query":             func(d *proof.Discovery) { d.Attestation += "?a" },
		"an escape":           func(d *proof.Discovery) { d.Attestation += "/%2e%2e" },
		"no schemas":          func(d *proof.Discovery) { d.Statements = nil },
		"an empty schema":     func(d *proof.Discovery) { d.Documents = []string{""} },
		"never":               func(d *proof.Discovery) { d.Refresh = 0 },
		"once in a lifetime":  func(d *proof.Discovery) { d.Refresh = 1 << 40 },
		"nonces of no length": func(d *proof.Discovery) { d.NonceBytes = [2]int{64, 16} },
	} {
		d := *good
		edit(&d)
		if text, err := d.Encode(); err == nil {
			t.Errorf("%s: written as %s", name, text)
		}
	}
	if _, err := proof.ParseDiscovery([]byte("{}")); attest.FailureCode(err) != proof.CodeDiscoveryFormat {
		t.Errorf("an empty one: %v", err)
	}
}

// replayed gives the same evidence whatever it is asked for.
type replayed struct{ evidence *attest.Evidence }

func (r replayed) Attest(context.Context, [64]byte) (*attest.Evidence, error) { return r.evidence, nil }

// What an ingress shows everybody must not get anybody a certificate, nor the
// other way round (another test shows that).
func TestProofsAreNoEnrolments(t *testing.T) {
	w := prooftest.New(t)
	for _, nonce := range [][]byte{nil, bytes.Repeat([]byte{1}, api.NonceSize)} {
		a := w.Attest(w.TEE, w.Statement(), w.Document("/v1/beacon"), nonce)
		expectProven(t, a, func() proof.Against { g := w.Against(); g.Nonce = nonce; return g }())
		evidence, err := attest.ParseCMW(a.Evidence)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Client.EnrolIngress(t.Context(), replayed{evidence})
		var refused *client.RefusedError
		if !errors.As(err, &refused) || refused.Code != "report-data" {
			t.Errorf("enrolled with a proof: %v", err)
		}
	}
	// The same fields under the purposes of enrolments give other report data.
	b := w.Attest(w.TEE, w.Statement(), w.Document("/v1/beacon"), nil)
	seen := map[[64]byte]string{}
	for _, purpose := range []string{
		api.PurposeIngressProof, api.PurposeIngressNonce, api.PurposeIngress, api.PurposeNode, api.PurposeCDS, api.PurposePod, api.PurposeGuest,
		api.PurposeIntermediate, api.PurposeServer,
	} {
		data := attest.Transcript{Purpose: purpose, SPKIHash: []byte(b.Statement.TLSKey)}.ReportData()
		if other, ok := seen[data]; ok {
			t.Errorf("%s is %s", purpose, other)
		}
		seen[data] = purpose
	}
}

func FuzzParseStatement(f *testing.F) {
	w := prooftest.New(f)
	s := w.Statement()
	add(f, s.Encode)
	s.DenyList = proof.Followed{Version: 3, Digest: policytest.Digest("list")}
	add(f, s.Encode)
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := proof.ParseStatement(text)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q is written as %q, %v", text, again, err)
		}
		for _, host := range s.Hosts {
			if exact := !strings.HasPrefix(host, "*."); s.HasHost(host) != exact {
				t.Errorf("host %q: %v", host, !exact)
			}
		}
	})
}

func FuzzParseAttestation(f *testing.F) {
	w := prooftest.New(f)
	a := w.Good()
	add(f, a.Encode)
	short := *a
	short.Evidence, short.Chain = []byte{1}, [][]byte{{1}, {2}}
	add(f, short.Encode)
	short.Nonce = make([]byte, 16)
	add(f, short.Encode)
	against := w.Against()
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := proof.ParseAttestation(text)
		if err != nil {
			return
		}
		if again, err := a.Encode(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q is written as %q, %v", text, again, err)
		}
		p, err := a.Verify(against) // must not panic
		if (err == nil) != (p.Statement != nil) {
			t.Errorf("%v, and facts %+v", err, p.Statement)
		}
	})
}

func FuzzParseDiscovery(f *testing.F) {
	add(f, proof.NewDiscovery("c8s.test", 60).Encode)
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := proof.ParseDiscovery(text)
		if err != nil {
			return
		}
		if again, err := d.Encode(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q is written as %q, %v", text, again, err)
		}
		for _, p := range []string{d.Attestation, d.CDS, d.Status} {
			if !strings.HasPrefix(p, proof.PathDiscovery+"/") {
				t.Errorf("it leads to %q", p)
			}
		}
	})
}

func add(f *testing.F, encode func() ([]byte, error)) {
	f.Helper()
	text, err := encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
}

func ExampleStatement_HasHost() {
	s := &proof.Statement{Hosts: []string{"*.bank.test", "bank.test"}}
	fmt.Println(s.HasHost("bank.test"), s.HasHost("www.bank.test"), s.HasHost("a.www.bank.test"))
	// Output: true true false
}
