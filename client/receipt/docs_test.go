// SPDX-License-Identifier: Apache-2.0

package receipt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

var update = flag.Bool("update", false, "make docs/vectors/receipt anew") //nolint:gochecknoglobals // a flag of this test

const page, vectors = "../../docs/receipts.md", "../../docs/vectors/receipt"

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestEveryCodeIsDocumented(t *testing.T) {
	text := string(readFile(t, page))
	codes := regexp.MustCompile(`Code[A-Z]\w*\s+= "([a-z-]+)"`).FindAllStringSubmatch(string(readFile(t, "receipt.go")), -1)
	for _, c := range codes {
		if !strings.Contains(text, "`"+c[1]+"`") {
			t.Errorf("docs/receipts.md does not explain %s", c[1])
		}
	}
	if len(codes) < 7 {
		t.Errorf("found only %d codes", len(codes))
	}
}

// sample is the receipt of docs/vectors, and its key in PEM.
func sample(t *testing.T) (kept, key []byte) {
	t.Helper()
	now := func() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC) }
	req := httptest.NewRequest(http.MethodGet, "/accounts/7?page=2", nil)
	req.Host, req.URL.Scheme = "bank.example", "https"
	Ask(req.Header, []byte("sixteen byte one"))
	h := http.Header{"Content-Digest": {"sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"}}
	Fields{Workload: "web", Manifest: 7, Evidence: policy.DigestOf([]byte("evidence")), Log: 42}.Set(h)
	secret := rfcKey(t)
	if !NewSigner(secret, now).Sign(h, http.StatusOK, req) {
		t.Fatal("it was not signed")
	}
	public := secret.Public().(ed25519.PublicKey)
	r, err := Verify(&http.Response{StatusCode: http.StatusOK, Header: h, Request: req}, public, now())
	if err != nil {
		t.Fatal(err)
	}
	if kept, err = r.Encode(); err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return append(kept, '\n'), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
}

func TestVectorIsWhatIsWritten(t *testing.T) {
	kept, key := sample(t)
	for name, want := range map[string][]byte{"receipt.json": kept, "key.pem": key} {
		file := filepath.Join(vectors, name)
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil { //nolint:gosec // a page
				t.Fatal(err)
			}
		}
		if got := readFile(t, file); !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s\nwant\n%s", file, got, want)
		}
	}
	if r, err := ParseReceipt(readFile(t, filepath.Join(vectors, "receipt.json"))); err != nil || r.Check(rfcKey(t).Public().(ed25519.PublicKey)) != nil {
		t.Errorf("reading it: %v", err)
	}
}

// The commands of the page accept the vector, and refuse a changed one.
func TestCommandsOfThePageVerifyTheVector(t *testing.T) {
	for _, program := range []string{"openssl", "jq"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("C8S_CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("%s is not installed: apt-get install %s", program, program)
		}
	}
	_, section, _ := strings.Cut(string(readFile(t, page)), "## By hand\n")
	_, script, _ := strings.Cut(section, "```\n")
	script, _, found := strings.Cut(script, "```\n")
	if !found || !strings.Contains(script, "openssl pkeyutl") {
		t.Fatal("the page has no commands")
	}
	run := func(kept []byte) (string, error) {
		dir := t.TempDir()
		for name, text := range map[string][]byte{"receipt.json": kept, "key.pem": readFile(t, filepath.Join(vectors, "key.pem"))} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	kept := readFile(t, filepath.Join(vectors, "receipt.json"))
	out, err := run(kept)
	if err != nil || !strings.Contains(out, "Signature Verified Successfully") || !strings.Contains(out, "\n1\n") || !strings.Contains(out, `"c8s-workload": web`) {
		t.Errorf("%v:\n%s", err, out)
	}
	if out, err := run(bytes.Replace(kept, []byte("workload\\\": web"), []byte("workload\\\": db"), 1)); err == nil {
		t.Errorf("a changed receipt is accepted:\n%s", out)
	}
}
