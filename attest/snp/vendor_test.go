// SPDX-License-Identifier: Apache-2.0

package snp

import (
	"bytes"
	"crypto/x509"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

func TestAMDsCertificatesChainToSelfSignedRoots(t *testing.T) {
	for _, p := range Products() {
		for signer, infix := range map[SigningKey]string{KeyVCEK: "", KeyVLEK: "VLEK-"} {
			intermediate, root, err := VendorCerts(p, signer)
			if err != nil {
				t.Fatal(err)
			}
			i, err := x509.ParseCertificate(intermediate)
			if err != nil {
				t.Fatal(err)
			}
			r, err := x509.ParseCertificate(root)
			if err != nil {
				t.Fatal(err)
			}
			if i.Subject.CommonName != "SEV-"+infix+string(p) || r.Subject.CommonName != "ARK-"+string(p) {
				t.Errorf("%s %s: %s under %s", p, signer, i.Subject, r.Subject)
			}
			if err := verifyLink("ARK", r, r); err != nil {
				t.Error(err)
			}
			if err := verifyLink("issuer", i, r); err != nil {
				t.Error(err)
			}
		}
		{
			other, err := trust.GetDefaultRootCerts(string(p))
			if err != nil {
				t.Fatal(err)
			}
			ask, ark, _ := VendorCerts(p, KeyVCEK)
			if !bytes.Equal(other.ProductCerts.Ark.Raw, ark) || !bytes.Equal(other.ProductCerts.Ask.Raw, ask) {
				t.Errorf("%s: another project has other certificates", p)
			}
		}
	}
}

func TestRootsAreNamedAndUnknownOnesAreNot(t *testing.T) {
	want := []VendorRoot{
		{Milan, "sha256:69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"},
		{Genoa, "sha256:4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"},
		{Turin, "sha256:1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"},
	}
	if diff := cmp.Diff(want, VendorRoots()); diff != "" {
		t.Error(diff)
	}
	if _, _, err := VendorCerts("../amd/milan", KeyVCEK); attest.FailureCode(err) != CodeProductUnknown {
		t.Errorf("unknown product: %v", err)
	}
	if _, _, err := VendorCerts(Milan, KeyNone); attest.FailureCode(err) != CodeSigningKey {
		t.Errorf("unknown key: %v", err)
	}
}

func TestCompleteAddsOnlyWhatIsMissing(t *testing.T) {
	intermediate, root, _ := VendorCerts(Turin, KeyVLEK)
	leaf, own := []byte{1}, []byte{2}
	for name, c := range map[string]struct{ in, want [][]byte }{
		"leaf":                  {[][]byte{leaf}, [][]byte{leaf, intermediate, root}},
		"leaf and intermediate": {[][]byte{leaf, own}, [][]byte{leaf, own, root}},
		"leaf and root":         {[][]byte{leaf, root}, [][]byte{leaf, intermediate, root}},
		"all":                   {[][]byte{leaf, own, own}, [][]byte{leaf, own, own}},
		"none":                  {nil, nil},
		"too many":              {[][]byte{leaf, own, own, own}, nil},
	} {
		got, err := Complete(c.in, Turin, KeyVLEK)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil && attest.FailureCode(err) != CodeCertificates {
			t.Errorf("%s: %s%v", name, diff, err)
		}
	}
	if _, err := Complete([][]byte{leaf}, "Venice", KeyVCEK); attest.FailureCode(err) != CodeProductUnknown {
		t.Errorf("unknown: %v", err)
	}
}

// TestCompletionIsNoTrust: a strange leaf does not become AMD's by completion.
func TestCompletionIsNoTrust(t *testing.T) {
	certs, _ := testMachine{product: Milan}.issue(t)
	completed, err := Complete(certs[:1], Milan, KeyVCEK)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ParseChain(completed)
	if err != nil {
		t.Fatal(err)
	}
	if err := chain.Verify(); attest.FailureCode(err) != CodeChain {
		t.Errorf("got %v", err)
	}
	if policy.DigestOf(chain.Root.Raw) != VendorRoots()[0].Digest {
		t.Error("another root")
	}
}

func TestTheCacheRemembersGoodChainsOnly(t *testing.T) {
	good, _ := testMachine{product: Milan}.issue(t)
	bad := [][]byte{bytes.Clone(good[0]), good[1], good[2]}
	bad[0][len(bad[0])-1] ^= 1
	cache := NewCache(2)
	first, err := cache.Chain(good)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := cache.Chain(good); err != nil || again != first {
		t.Errorf("checked again: %v", err)
	}
	for range 2 {
		if _, err := cache.Chain(bad); attest.FailureCode(err) != CodeChain {
			t.Errorf("bad: %v", err)
		}
	}
	if _, err := cache.Chain(good[:2]); attest.FailureCode(err) != CodeCertificates {
		t.Errorf("short: %v", err)
	}
	if err := first.CheckDates(testClock().AddDate(5, 0, 0)); attest.FailureCode(err) != CodeChainExpired {
		t.Errorf("dates: %v", err)
	}
	split := [][]byte{good[0][:10], append(bytes.Clone(good[0][10:]), good[1]...), good[2]}
	if chainKey(split) == chainKey(good) {
		t.Error("one key for the same bytes cut otherwise")
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := cache.Chain(good); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
