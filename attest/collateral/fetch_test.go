// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
)

func evidenceFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(evidenceDir(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// evidenceDir finds the captured evidence of real machines.
func evidenceDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("C8S_EVIDENCE")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "../../../shared/evidence")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no captured evidence: %v: set C8S_EVIDENCE to its folder", err)
	}
	return dir
}

// fakeClock passes only when someone sleeps.
type fakeClock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC)} // the captured collateral is current
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.slept = c.now.Add(d), append(c.slept, d)
	return ctx.Err()
}

// vendor plays KDS and PCS from the captured files.
type vendor struct {
	*httptest.Server
	hits atomic.Int32
	hook func(w http.ResponseWriter, r *http.Request) bool // answers itself
}

func newVendor(t testing.TB) *vendor {
	t.Helper()
	chain := url.PathEscape(string(evidenceFile(t, "tdx/pcs_2026-03_tcb_signing_chain.pem")))
	answers := map[string]struct {
		file, header string
	}{
		"/tdx/certification/v4/tcb?fmspc=50806f000000":                 {"tdx/pcs_2026-03_tcb_info_50806f000000.json", "TCB-Info-Issuer-Chain"},
		"/tdx/certification/v4/tcb?fmspc=90c06f000000":                 {"tdx/pcs_2026-03_tcb_info_90c06f000000.json", "TCB-Info-Issuer-Chain"},
		"/tdx/certification/v4/qe/identity":                            {"tdx/pcs_2026-03_td_qe_identity.json", "SGX-Enclave-Identity-Issuer-Chain"},
		"/sgx/certification/v4/pckcrl?ca=platform&encoding=der":        {"tdx/pcs_2026-03_pck_crl_platform.der", "SGX-PCK-CRL-Issuer-Chain"},
		"/IntelSGXRootCA.der":                                          {"tdx/pcs_2026-03_root_ca_crl.der", ""},
		Endpoints{}.URL(milanVCEK(t)):                                  {"snp/milan_v2_vcek.der", ""},
		Endpoints{}.URL(Request{Kind: AMDVCEKChain, Product: "Milan"}): {"", ""},
	}
	v := &vendor{}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.hits.Add(1)
		if v.hook != nil && v.hook(w, r) {
			return
		}
		a, ok := answers[r.URL.RequestURI()]
		switch {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
			return
		case a.file == "":
			_, _ = w.Write(milanChain(t))
			return
		case a.header != "":
			w.Header().Set(a.header, chain)
		}
		_, _ = w.Write(evidenceFile(t, a.file))
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *vendor) fetcher(t testing.TB, clock *fakeClock) *Fetcher {
	t.Helper()
	c := DefaultFetcherConfig()
	c.Client = v.Client()
	c.Endpoints = Endpoints{KDS: v.URL, PCS: v.URL, IntelRoot: v.URL + "/IntelSGXRootCA.der"}
	c.Clock = Clock{Now: clock.Now, Sleep: clock.Sleep}
	f, err := NewFetcher(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func milanVCEK(t testing.TB) Request {
	t.Helper()
	needs, err := Needs(milanEvidence(t))
	if err != nil || needs[0].Kind != AMDVCEK {
		t.Fatal(needs, err)
	}
	return needs[0]
}

func milanEvidence(t testing.TB) *attest.Evidence {
	return &attest.Evidence{TEE: attest.TEESEVSNP, Product: "Milan", Report: evidenceFile(t, "snp/milan_v2_report.bin")}
}

// milanChain is what KDS answers, from AMD's published certificates.
func milanChain(t testing.TB) []byte {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	var certs [][]byte
	for _, name := range []string{"milan-ask.der", "milan-ark.der"} {
		der, err := os.ReadFile(filepath.Join(filepath.Dir(file), "../snp/amd", name))
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, der)
	}
	return pemOf(certs)
}

func tcb508(t testing.TB) Request {
	t.Helper()
	r, err := TCBInfo("50806F000000")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	if got := attest.FailureCode(err); got != code {
		t.Fatalf("got %q (%v), want %q", got, err, code)
	}
}

func TestFetchOfEveryKindReturnsThePublishedBytes(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	f := v.fetcher(t, clock)
	crl, _ := PCKCRL(CAPlatform)
	for _, c := range []struct {
		r     Request
		file  string
		certs int
	}{
		{milanVCEK(t), "snp/milan_v2_vcek.der", 0},
		{Request{Kind: AMDVCEKChain, Product: "Milan"}, "", 2},
		{tcb508(t), "tdx/pcs_2026-03_tcb_info_50806f000000.json", 2},
		{QEIdentity(), "tdx/pcs_2026-03_td_qe_identity.json", 2},
		{crl, "tdx/pcs_2026-03_pck_crl_platform.der", 2},
		{RootCRL(), "tdx/pcs_2026-03_root_ca_crl.der", 0},
	} {
		t.Run(string(c.r.Kind), func(t *testing.T) {
			i, err := f.Fetch(t.Context(), c.r)
			if err != nil {
				t.Fatal(err)
			}
			want := milanChain(t)
			if c.file != "" {
				want = evidenceFile(t, c.file)
			}
			if string(i.Body) != string(want) || len(i.Certs) != c.certs || i.Stale(clock.Now()) || i.Request != c.r {
				t.Errorf("%d bytes of %d, %d certificates, next update %s", len(i.Body), len(want), len(i.Certs), i.NextUpdate)
			}
		})
	}
}

func TestFetchRefusesBadAnswers(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	for name, c := range map[string]struct {
		code string
		hook func(w http.ResponseWriter, r *http.Request) bool
	}{
		"not found":      {CodeNotFound, func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(404); return true }},
		"forbidden":      {CodeStatus, func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(403); return true }},
		"always failing": {CodeUnreachable, func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(503); return true }},
		"huge body": {CodeTooLarge, func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write(make([]byte, 4*attest.MaxCollateralBody))
			return true
		}},
		"redirect elsewhere": {CodeRedirect, func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, other.URL, http.StatusFound)
			return true
		}},
		"redirect loop": {CodeRedirect, func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}},
		"no issuer chain": {CodeIssuerChain, func(w http.ResponseWriter, _ *http.Request) bool { _, _ = w.Write([]byte("{}")); return true }},
		"page of a portal": {CodeIssuerChain, func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = w.Write([]byte("<html>log in</html>"))
			return true
		}},
		"another platform": {CodeContent, func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("TCB-Info-Issuer-Chain", url.PathEscape(string(evidenceFile(t, "tdx/pcs_2026-03_tcb_signing_chain.pem"))))
			_, _ = w.Write(evidenceFile(t, "tdx/pcs_2026-03_tcb_info_90c06f000000.json"))
			return true
		}},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVendor(t)
			v.hook = c.hook
			_, err := v.fetcher(t, newFakeClock()).Fetch(t.Context(), tcb508(t))
			wantCode(t, err, c.code)
		})
	}
}

func TestRetryAfterIsHonouredAndSharedByAllRequestsToTheHost(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	v.hook = func(w http.ResponseWriter, _ *http.Request) bool {
		if v.hits.Load() == 1 {
			w.Header().Set("Retry-After", "300")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		return false
	}
	f := v.fetcher(t, clock)
	_, err := f.Fetch(t.Context(), tcb508(t)) // may take one minute
	wantCode(t, err, CodeThrottled)
	if d := f.Delay(QEIdentity()); d != 5*time.Minute {
		t.Errorf("another request would wait %s", d)
	}
	_, err = f.Fetch(t.Context(), QEIdentity())
	wantCode(t, err, CodeThrottled)
	if n := v.hits.Load(); n != 1 || len(clock.slept) != 0 {
		t.Errorf("%d requests, slept %v; want one request and no wait", n, clock.slept)
	}
	clock.advance(5 * time.Minute)
	if _, err := f.Fetch(t.Context(), tcb508(t)); err != nil {
		t.Error(err)
	}
}

func TestShortPausesAreWaitedFor(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	v.hook = func(w http.ResponseWriter, _ *http.Request) bool {
		if v.hits.Load() <= 3 {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	}
	if _, err := v.fetcher(t, clock).Fetch(t.Context(), tcb508(t)); err != nil {
		t.Fatal(err)
	}
	if len(clock.slept) != 3 || clock.slept[0] != time.Second || clock.slept[1] != 2*time.Second || clock.slept[2] != 4*time.Second {
		t.Errorf("slept %v", clock.slept)
	}
}

func TestVCEKRequestsAreSpaced(t *testing.T) {
	v, clock := newVendor(t), newFakeClock()
	f := v.fetcher(t, clock)
	for range 3 {
		if _, err := f.Fetch(t.Context(), milanVCEK(t)); err != nil {
			t.Fatal(err)
		}
	}
	if len(clock.slept) != 2 || clock.slept[0] != 10*time.Second {
		t.Errorf("slept %v; want twice 10 s", clock.slept)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := f.Fetch(ctx, milanVCEK(t))
	wantCode(t, err, CodeThrottled)
	clock.advance(-365 * 24 * time.Hour)
	if d := f.Delay(milanVCEK(t)); d > maxRetryAfter {
		t.Errorf("with the clock set back a request would wait %s", d)
	}
}

func TestSlowServerIsGivenUp(t *testing.T) {
	v := newVendor(t)
	v.hook = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	f := v.fetcher(t, newFakeClock())
	f.config.PerTry, f.config.Tries = time.Millisecond, 2
	_, err := f.Fetch(t.Context(), tcb508(t))
	wantCode(t, err, CodeUnreachable)
}

func TestRequestsHaveOneSpellingAndTheVendorsURLs(t *testing.T) {
	turin, err := VCEK("Turin", append([]byte{1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 56)...), milanVCEK(t).TCB)
	if err != nil {
		t.Fatal(err)
	}
	turin.TCB.FMC = 9
	e := VendorEndpoints()
	if got := e.URL(turin); !strings.HasPrefix(got, "https://kdsintf.amd.com/vcek/v1/Turin/0102030405060708?fmcSPL=9&blSPL=") {
		t.Error(got)
	}
	crl, _ := PCKCRL(CAProcessor)
	for _, r := range []Request{turin, milanVCEK(t), tcb508(t), crl, QEIdentity(), RootCRL(), {Kind: AMDCRL, Product: "Genoa"}, {Kind: AMDVLEKChain, Product: "Turin"}} {
		again, err := ParseRequest(r.String())
		if err != nil || again != r || !strings.HasPrefix(e.URL(r), "https://") {
			t.Errorf("%s: %v, %v, %s", r, again, err, e.URL(r))
		}
	}
	for _, s := range []string{"", "amd-crl", "amd-crl:Rome", "amd-crl:milan", "intel-tcb-info:50806F000000", "intel-pck-crl:root", "intel-root-crl:x", turin.String() + " ", "amd-vcek:Turin:0102030405060708:09.0.0.0.0", strings.Repeat("a", 1000)} {
		if _, err := ParseRequest(s); attest.FailureCode(err) != CodeRequest {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzIssuerChainHeader(f *testing.F) {
	f.Add("-----BEGIN%20CERTIFICATE-----%0A")
	f.Add("-----BEGIN+CERTIFICATE-----%0A%zz")
	f.Add("-----BEGIN%20CERTIFICATE-----%0A0000%0A-----END%20CERTIFICATE-----")
	f.Add(url.PathEscape(string(evidenceFile(f, "tdx/pcs_2026-03_tcb_signing_chain.pem"))))
	f.Fuzz(func(t *testing.T, header string) {
		certs, err := ParseIssuerChain(header)
		if (err == nil) == (len(certs) == 0) || len(certs) > attest.MaxCerts {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	})
}
