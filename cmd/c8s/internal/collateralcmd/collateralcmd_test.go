// SPDX-License-Identifier: Apache-2.0

package collateralcmd_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/collateralcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// desk is a folder in which one operator works.
type desk struct {
	t   *testing.T
	dir string
}

type result struct {
	code        int
	out, errOut string
}

// run runs one command line. Words with @ are files of the desk.
func (d *desk) run(line string) result {
	d.t.Helper()
	args := strings.Fields(line)
	for i, arg := range args {
		if before, name, ok := strings.Cut(arg, "@"); ok {
			args[i] = before + filepath.Join(d.dir, name)
		}
	}
	var out, errOut bytes.Buffer
	c := collateralcmd.New()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errOut)
	err := c.ExecuteContext(d.t.Context())
	if err != nil {
		errOut.WriteString(err.Error())
	}
	return result{exit.Code(err), out.String(), errOut.String()}
}

func (d *desk) want(code int, line, text string) result {
	d.t.Helper()
	r := d.run(line)
	if r.code != code || !strings.Contains(r.out+r.errOut, text) {
		d.t.Fatalf("%q: exit %d, %q %q; want exit %d with %q", line, r.code, r.out, r.errOut, code, text)
	}
	return r
}

func (d *desk) write(name string, data []byte) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), data, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) key(name string) {
	d.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	der, _ := x509.MarshalPKCS8PrivateKey(private)
	d.write(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	der, _ = x509.MarshalPKIXPublicKey(public)
	d.write(name+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// newKDS plays AMD's server for Milan, with certificates of the right names.
func newKDS(t *testing.T, crlLife time.Duration) *httptest.Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(name string) (*x509.Certificate, []byte) {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1},
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	ark, arkPEM := certificate("ARK-Milan")
	_, askPEM := certificate("SEV-Milan")
	_, asvkPEM := certificate("SEV-VLEK-Milan")
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(crlLife)}, ark, key)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for path, body := range map[string][]byte{
		"/vcek/v1/Milan/cert_chain": append(append([]byte{}, askPEM...), arkPEM...),
		"/vlek/v1/Milan/cert_chain": append(append([]byte{}, asvkPEM...), arkPEM...),
		"/vcek/v1/Milan/crl":        crl,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestFetchBundleVerifyShow(t *testing.T) {
	d := &desk{t, t.TempDir()}
	d.key("ops.pem")
	d.key("other.pem")
	kds := newKDS(t, time.Hour)
	r := d.want(exit.OK, "fetch --snp-product Milan --cache @cache --kds-url "+kds.URL, "current")
	if !strings.Contains(r.errOut, "[1/3] amd-vcek-chain:Milan") || strings.Contains(r.out, "[1/3]") {
		t.Errorf("progress: %q", r.errOut)
	}
	kds.Close() // from here on without a server
	d.want(exit.OK, "fetch --snp-product Milan --cache @cache --kds-url "+kds.URL, "amd-crl:Milan")
	d.want(exit.OK, "bundle --cache @cache --sign-with @ops.pem --out @site.bundle", "bundled 3 items, 0 of them stale")
	d.want(exit.Refused, "bundle --cache @cache --sign-with @ops.pem --out @site.bundle", "--force")
	d.want(exit.OK, "bundle @site.bundle --sign-with @ops.pem --sign-with @other.pem --out @both.bundle", "bundled 3 items")
	d.want(exit.OK, "verify @site.bundle --key @ops.pem.pub", "signers:  ops")
	d.want(exit.Refused, "verify @site.bundle --key @other.pem.pub", "collateral-bundle-signature")
	d.want(exit.Refused, "verify @site.bundle --key @ops.pem.pub --key @other.pem.pub --threshold 2", "collateral-bundle-signature")
	d.want(exit.OK, "verify @both.bundle --key @ops.pem.pub --key @other.pem.pub --threshold 2", "verified: 3 items")
	r = d.want(exit.OK, "show @site.bundle -o json", "amd-vlek-chain:Milan")
	var shown struct {
		Items []struct {
			Request string `json:"request"`
			Stale   bool   `json:"stale"`
		} `json:"items"`
	}
	if err := json.Unmarshal([]byte(r.out), &shown); err != nil || len(shown.Items) != 3 || shown.Items[0].Stale {
		t.Errorf("%+v, %v", shown, err)
	}
	d.want(exit.OK, "show --cache @cache", "current")
}

func TestFetchSaysWhatIsMissingAndWhatIsStale(t *testing.T) {
	d := &desk{t, t.TempDir()}
	kds := newKDS(t, -time.Minute)
	r := d.want(exit.Refused, "fetch --snp-product Milan --chip-id "+strings.Repeat("ab", 64)+" --tcb 0.3.0.8.115 --cache @cache --kds-url "+kds.URL, "2 of 4 are missing or stale")
	if !strings.Contains(r.errOut, "collateral-not-found") || !strings.Contains(r.errOut, "stale since") || !strings.Contains(r.out, "STALE") {
		t.Errorf("%q %q", r.out, r.errOut)
	}
}

func TestShowAndBundleOfVendorsFiles(t *testing.T) {
	dir := os.Getenv("C8S_EVIDENCE")
	if dir == "" {
		dir = "../../../../../shared/evidence"
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no captured evidence: %v: set C8S_EVIDENCE to its folder", err)
	}
	d := &desk{t, t.TempDir()}
	d.key("ops.pem")
	d.want(exit.OK, "bundle --from-dir "+dir+"/tdx --sign-with @ops.pem --out @intel.bundle", "bundled 6 items")
	d.want(exit.OK, "show @intel.bundle", "intel-tcb-info:b0c06f000000")
	d.want(exit.OK, "show "+dir+"/tdx/quote_v4_b0c06f_collateral.json", "STALE")
	r := d.run("fetch --evidence " + dir + "/tdx/quote_v5.dat --cache @cache --patience 1ms --pcs-url http://127.0.0.1:1 --intel-root-crl-url http://127.0.0.1:1/x")
	if r.code != exit.Refused || !strings.Contains(r.errOut, "intel-tcb-info:90c06f000000") {
		t.Errorf("%+v", r)
	}
}

func TestWrongUsage(t *testing.T) {
	d := &desk{t, t.TempDir()}
	for line, want := range map[string]string{
		"fetch --snp-product Milan":                                   "--cache is required",
		"fetch --cache @c":                                            "nothing to fetch",
		"fetch --cache @c --snp-product Rome":                         "product Milan, Genoa or Turin",
		"fetch --cache @c --snp-product Milan --chip-id ab":           "needs a --tcb",
		"fetch --cache @c --snp-product Milan --chip-id ab --tcb 1.2": "five levels",
		"fetch --cache @c --fmspc 12":                                 "FMSPC",
		"fetch --cache @c --fmspc 50806f000000 --ca root":             "platform or processor",
		"fetch --cache @c --snp-product Milan --kds-url ftp://x":      "address of a server",
		"fetch --cache @c --snp-product Milan -o yaml":                "text or json",
		"fetch extra":                    "Usage:",
		"bundle":                         "--sign-with is required",
		"bundle --sign-with k":           "--out is required",
		"verify":                         "Usage:",
		"verify f":                       "--key is required",
		"verify f --key k --threshold 2": "--threshold must be",
		"show":                           "name files",
		"show --nonsense":                "--help",
	} {
		d.want(exit.Misuse, line, want)
	}
	d.want(exit.OK, "", "c8s collateral bundle")
	d.write("junk", []byte("junk"))
	d.want(exit.Refused, "show @junk", "collateral-file")
	d.want(exit.Refused, "bundle @junk --sign-with @junk --out @o", "PRIVATE KEY")
	d.want(exit.Refused, "verify @junk --key @junk", "PUBLIC KEY")
	d.want(exit.Refused, "show --cache @none", "reading the cache")
}
