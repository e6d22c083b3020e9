// SPDX-License-Identifier: Apache-2.0

package ratls_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/attest/ratls/ratlstest"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func claims(t testing.TB, f *policytest.Fixture) ratls.Claims {
	t.Helper()
	return ratlstest.Claims(policytest.Peer(f.Signed, policytest.Web))
}

func nodeClaims(t testing.TB, f *policytest.Fixture) ratls.Claims {
	t.Helper()
	facts := policytest.Peer(f.Signed, policytest.Web)
	facts.Role, facts.Workload, facts.WorkloadDigest = policy.RoleNode, "", ""
	return ratlstest.Claims(facts)
}

func addrs() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("fd00::5")}
}

func TestIssuedCertificatesAreAcceptedAndSayWhatWasIssued(t *testing.T) {
	now := time.Now()
	f := policytest.New(t)
	ca := ratlstest.New(t, policytest.TrustDomain, now)
	for _, c := range []ratls.Claims{claims(t, f), nodeClaims(t, f)} {
		peer, err := ratls.VerifyPeer(ca.Chain(ca.Issue(t, c, addrs())), ca.Pool(), policytest.TrustDomain, now)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, peer.Claims); diff != "" {
			t.Error(diff)
		}
		if !peer.HasAddr(addrs()[0]) || !peer.HasAddr(addrs()[1]) || peer.HasAddr(netip.MustParseAddr("10.1.2.4")) {
			t.Errorf("addresses %v", peer.Addrs)
		}
		if !peer.HasAddr(netip.MustParseAddr("::ffff:10.1.2.3")) {
			t.Error("an IPv4-in-IPv6 address is another one")
		}
		if d := f.Manifest.AcceptPeer(peer.Facts(), now); !d.Allowed {
			t.Errorf("the manifest refuses the facts: %v", d)
		}
	}
	if id := mustID(t, claims(t, f)); id != "spiffe://c8s.test/workload/web" {
		t.Errorf("name %q", id)
	}
}

func mustID(t *testing.T, c ratls.Claims) string {
	t.Helper()
	id, err := ratls.NewID(policytest.TrustDomain, &c)
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}

func uri(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func TestBadPeersAreRefusedEachByItsCode(t *testing.T) {
	now := time.Now()
	f := policytest.New(t)
	ca := ratlstest.New(t, policytest.TrustDomain, now)
	otherDomain := ratlstest.New(t, "other.test", now)
	stranger := ratlstest.New(t, policytest.TrustDomain, now)
	good := claims(t, f)
	marshal := func(c ratls.Claims) []byte {
		b, err := c.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	extension := func(c *x509.Certificate) *pkix.Extension { return &c.ExtraExtensions[0] }
	dbClaims := ratlstest.Claims(policytest.Peer(f.Signed, policytest.DB))
	for name, c := range map[string]struct {
		edit func(*x509.Certificate)
		code ratls.Code
	}{
		"CA":                     {func(c *x509.Certificate) { c.IsCA = true }, ratls.CodeCA},
		"may sign certificates":  {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, ratls.CodeCA},
		"may sign lists":         {func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, ratls.CodeCA},
		"no digital signatures":  {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, ratls.CodeUsage},
		"servers only":           {func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }, ratls.CodeUsage},
		"clients only":           {func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }, ratls.CodeUsage},
		"no extended key usage":  {func(c *x509.Certificate) { c.ExtKeyUsage = nil }, ratls.CodeUsage},
		"no name":                {func(c *x509.Certificate) { c.URIs = nil }, ratls.CodeNames},
		"two names":              {func(c *x509.Certificate) { c.URIs = append(c.URIs, uri("spiffe://c8s.test/workload/db")) }, ratls.CodeNames},
		"DNS name":               {func(c *x509.Certificate) { c.DNSNames = []string{"db"} }, ratls.CodeNames},
		"mail name":              {func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.test"} }, ratls.CodeNames},
		"not a SPIFFE name":      {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("https://c8s.test/workload/web")} }, ratls.CodeNames},
		"SPIFFE name with query": {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://c8s.test/workload/web?x=1")} }, ratls.CodeNames},
		"too many addresses":     {func(c *x509.Certificate) { c.IPAddresses = make([]net.IP, 17); fill(c.IPAddresses) }, ratls.CodeNames},
		"name of another":        {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://c8s.test/workload/db")} }, ratls.CodeNameClaims},
		"role in the name":       {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://c8s.test/node/web")} }, ratls.CodeNameClaims},
		"claims of another":      {func(c *x509.Certificate) { extension(c).Value = marshal(dbClaims) }, ratls.CodeNameClaims},
		"longer path":            {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://c8s.test/workload/web/x")} }, ratls.CodeNameClaims},
		"no claims":              {func(c *x509.Certificate) { c.ExtraExtensions = nil }, ratls.CodeClaims},
		"claims with a tail":     {func(c *x509.Certificate) { extension(c).Value = append(extension(c).Value, 0) }, ratls.CodeClaims},
		"another domain's name":  {func(c *x509.Certificate) { c.URIs = []*url.URL{uri("spiffe://other.test/workload/web")} }, ratls.CodeTrustDomain},
		"expired":                {func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, ratls.CodeDates},
		"not yet valid":          {func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }, ratls.CodeDates},
		"unknown critical": {func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}, ratls.CodeChain},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := ca.Issue(t, good, addrs(), c.edit)
			if p, err := ratls.VerifyPeer(ca.Chain(leaf), ca.Pool(), policytest.TrustDomain, now); ratls.CodeOf(err) != c.code {
				t.Errorf("got %v, %v, want %s", p, err, c.code)
			}
		})
	}
	leaf := ca.Issue(t, good, addrs())
	chain := ca.Chain(leaf)
	long := append(chain[:1:1], make([]*x509.Certificate, 5)...)
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		roots *x509.CertPool
		now   time.Time
		code  ratls.Code
	}{
		"no certificate":       {nil, ca.Pool(), now, ratls.CodeNoCertificate},
		"too many":             {long, ca.Pool(), now, ratls.CodeChain},
		"no roots":             {chain, nil, now, ratls.CodeChain},
		"empty roots":          {chain, x509.NewCertPool(), now, ratls.CodeChain},
		"another CA":           {chain, stranger.Pool(), now, ratls.CodeChain},
		"issuer not sent":      {chain[:1], ca.Pool(), now, ratls.CodeChain},
		"the issuer as a peer": {chain[1:], ca.Pool(), now, ratls.CodeCA},
		"later":                {chain, ca.Pool(), now.Add(2 * time.Hour), ratls.CodeDates},
		"another trust domain": {otherDomain.Chain(otherDomain.Issue(t, good, nil)), otherDomain.Pool(), now, ratls.CodeTrustDomain},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ratls.VerifyPeer(c.chain, c.roots, policytest.TrustDomain, c.now); ratls.CodeOf(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
}

func fill(ips []net.IP) {
	for i := range ips {
		ips[i] = net.IPv4(10, 0, 0, byte(i))
	}
}

func TestTemplatesThatWouldBeRefusedAreNotMade(t *testing.T) {
	now := time.Now()
	f := policytest.New(t)
	good := claims(t, f)
	id, err := ratls.NewID(policytest.TrustDomain, &good)
	if err != nil {
		t.Fatal(err)
	}
	bad := good
	bad.Measurement = "AA"
	other := nodeClaims(t, f)
	for name, make := range map[string]func() error{
		"role":   func() error { _, err := ratls.Template(policy.RoleNode, id, good, nil, now, now.Add(1)); return err },
		"name":   func() error { _, err := ratls.Template(policy.RoleNode, id, other, nil, now, now.Add(1)); return err },
		"claims": func() error { _, err := ratls.Template(good.Role, id, bad, nil, now, now.Add(1)); return err },
		"dates":  func() error { _, err := ratls.Template(good.Role, id, good, nil, now, now); return err },
		"address": func() error {
			_, err := ratls.Template(good.Role, id, good, []netip.Addr{{}}, now, now.Add(1))
			return err
		},
		"addresses": func() error { _, err := ratls.Template(good.Role, id, good, make17(), now, now.Add(1)); return err },
	} {
		if make() == nil {
			t.Errorf("%s: made", name)
		}
	}
}

func make17() []netip.Addr { return make([]netip.Addr, 17) }

func TestClaimsOfTheWrongShapeAreRefused(t *testing.T) {
	f := policytest.New(t)
	for name, edit := range map[string]func(*ratls.Claims){
		"unknown role":           func(c *ratls.Claims) { c.Role = "admin" },
		"no role":                func(c *ratls.Claims) { c.Role = "" },
		"no TEE":                 func(c *ratls.Claims) { c.TEE = "" },
		"short measurement":      func(c *ratls.Claims) { c.Measurement = "aa" },
		"upper-case measurement": func(c *ratls.Claims) { c.Measurement = "AA" + c.Measurement[2:] },
		"no host data":           func(c *ratls.Claims) { c.HostData = "" },
		"no machine":             func(c *ratls.Claims) { c.Machine = "" },
		"no root":                func(c *ratls.Claims) { c.Root = "" },
		"root of another kind":   func(c *ratls.Claims) { c.Root = "sha512:00" },
		"no workload":            func(c *ratls.Claims) { c.Workload = "" },
		"no workload digest":     func(c *ratls.Claims) { c.WorkloadDigest = "" },
		"no pod":                 func(c *ratls.Claims) { c.Pod = "" },
		"no manifest":            func(c *ratls.Claims) { c.ManifestVersion = 0 },
		"no manifest digest":     func(c *ratls.Claims) { c.ManifestDigest = "" },
		"line break":             func(c *ratls.Claims) { c.Pod = "a\nb" },
		"long name":              func(c *ratls.Claims) { c.Pod = string(bytes.Repeat([]byte{'a'}, 254)) },
		"register twice": func(c *ratls.Claims) {
			c.Registers = []policy.Register{{Name: "pcr0", Value: policytest.Hex(0, 32)}, {Name: "pcr0", Value: policytest.Hex(0, 32)}}
		},
		"short register":       func(c *ratls.Claims) { c.Registers = []policy.Register{{Name: "pcr0", Value: "00"}} },
		"node with a workload": func(c *ratls.Claims) { c.Role = policy.RoleNode },
	} {
		c := claims(t, f)
		edit(&c)
		if _, err := c.Marshal(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func TestClaimsOfATrustDomainSurvive(t *testing.T) {
	want := claims(t, policytest.New(t))
	want.SubstrateFacts = policytest.TDXFacts()
	b, err := want.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ratls.ParseClaims(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Error(diff)
	}
}

func TestClaimsHaveOneEncoding(t *testing.T) {
	c := claims(t, policytest.New(t))
	good, err := c.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var m map[any]any
	if err := cbor.Unmarshal(good, &m); err != nil {
		t.Fatal(err)
	}
	edit := func(key uint64, value any) []byte {
		m := map[any]any{}
		if err := cbor.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		if value == nil {
			delete(m, key)
		} else {
			m[key] = value
		}
		mode, err := cbor.CoreDetEncOptions().EncMode()
		if err != nil {
			t.Fatal(err)
		}
		b, err := mode.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if _, err := ratls.ParseClaims(edit(0, uint64(1))); err != nil {
		t.Fatalf("the unedited map: %v", err)
	}
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"trailing byte":    append(bytes.Clone(good), 0),
		"cut":              good[:len(good)-1],
		"over the cap":     make([]byte, 4097),
		"version 2":        edit(0, uint64(2)),
		"unknown key":      edit(99, uint64(1)),
		"missing boolean":  edit(4, nil),
		"TCB of 4":         edit(7, []byte{1, 2, 3, 4}),
		"TCB of 6":         edit(7, []byte{1, 2, 3, 4, 5, 6}),
		"no TCB":           edit(7, nil),
		"register of 31":   edit(19, map[string][]byte{"pcr0": make([]byte, 31)}),
		"no TCB status":    edit(20, map[int]any{1: "", 3: 1}),
		"short evidence":   edit(17, []byte{1}),
		"empty pod UID":    edit(16, ""),
		"type of a string": edit(1, []byte("workload")),
	} {
		if c, err := ratls.ParseClaims(b); ratls.CodeOf(err) != ratls.CodeClaims {
			t.Errorf("%s: got %v, %v", name, c, err)
		}
	}
}

func FuzzParseClaims(f *testing.F) {
	fixture := policytest.New(f)
	for _, c := range []ratls.Claims{claims(f, fixture), nodeClaims(f, fixture)} {
		b, err := c.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ratls.ParseClaims(b)
		if err != nil {
			return
		}
		again, err := c.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("accepted %x, writes %x, %v", b, again, err)
		}
	})
}

func FuzzParsePeer(f *testing.F) {
	ca := ratlstest.New(f, policytest.TrustDomain, time.Now())
	f.Add(ca.Issue(f, claims(f, policytest.New(f)), addrs()).Certificate[0])
	f.Add(ca.Root.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if p, err := ratls.ParsePeer(leaf); err == nil && p.ID.IsZero() {
			t.Error("a peer without a name")
		}
	})
}

func BenchmarkVerifyPeer(b *testing.B) {
	now := time.Now()
	ca := ratlstest.New(b, policytest.TrustDomain, now)
	chain, pool := ca.Chain(ca.Issue(b, claims(b, policytest.New(b)), addrs())), ca.Pool()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ratls.VerifyPeer(chain, pool, policytest.TrustDomain, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParsePeer(b *testing.B) {
	ca := ratlstest.New(b, policytest.TrustDomain, time.Now())
	leaf := ca.Issue(b, claims(b, policytest.New(b)), addrs()).Leaf
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ratls.ParsePeer(leaf); err != nil {
			b.Fatal(err)
		}
	}
}
