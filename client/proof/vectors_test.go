// SPDX-License-Identifier: Apache-2.0

package proof_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/client/proof"
	"github.com/c8s-dev/c8s/client/proof/prooftest"
	"github.com/c8s-dev/c8s/policy"
)

// vectorsDir is made, and judged too, by test/verifier, which shares no code
// with this package.
const vectorsDir = "../../docs/vectors/ingress"

func TestPublishedAttestationIsProven(t *testing.T) {
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(vectorsDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	at, err := time.Parse(time.RFC3339, strings.TrimSpace(string(read("at"))))
	var operators policy.Operators
	err = errors.Join(err, json.Unmarshal(read("operators.json"), &operators))
	manifest, err1 := policy.Open(read("v1/manifest"), operators)
	list, err2 := policy.OpenDenyList(read("v1/denylist"), operators)
	e, err3 := trust.ParseEndorsement(read("v1/endorsement"))
	a, err4 := proof.ParseAttestation(read("attestation.json"))
	if err := errors.Join(err, err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Verify(manifest.Manifest, operators, at); err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString(strings.TrimPrefix(string(a.Statement.TLSKey), "sha256:"))
	if err != nil {
		t.Fatal(err)
	}
	against := proof.Against{
		Manifest: manifest, DenyList: list, Bundle: &e.Bundle, Now: at, MaxAge: time.Minute, Host: prooftest.Host, TLSKey: [32]byte(key),
	}
	if p, err := a.Verify(against); err != nil || p.Statement.Manifest.Version != 2 || p.Statement.DenyList.Version != 1 {
		t.Errorf("%v", err)
	}
}

// Codes are promises: the page has all of them.
func TestCodesAndStepsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/proof.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		proof.CodeMalformed, proof.CodeTrustDomain, proof.CodeRole, proof.CodeCertificate, proof.CodeReceipt, proof.CodeMachine, proof.CodeManifest,
		proof.CodeManifestBehind, proof.CodeManifestAhead, proof.CodeDenyList, proof.CodeDenyListBehind, proof.CodeDenyListAhead, proof.CodeKey,
		proof.CodeHost, proof.CodeNonce, proof.CodeSimulated, proof.CodeCollateral, proof.CodeAgainst, proof.CodeDiscoveryFormat,
		proof.StepQuestion, proof.StepStatement, proof.StepBeacon, proof.StepChain, proof.StepCertificate, proof.StepReceipt, proof.StepAccepted,
		proof.StepEvidence, proof.StepMachine, proof.StepDenied, proof.StepManifest, proof.StepDenyList, proof.StepKey, proof.StepHost, proof.StepNonce,
		proof.StepHardware, proof.StepCollateral,
	} {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/proof.md does not explain %s", name)
		}
	}
}

// The recipe for people is run as it is printed.
func TestTheRecipeByHandWorks(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatalf("%v: hack/deps test installs it", err)
	}
	page, err := os.ReadFile("../../docs/proof.md")
	if err != nil {
		t.Fatal(err)
	}
	_, recipe, _ := strings.Cut(string(page), "```python\n")
	recipe, _, found := strings.Cut(recipe, "```")
	if !found {
		t.Fatal("docs/proof.md has no recipe")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(vectorsDir)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", recipe)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	for _, want := range []string{"REPORT_DATA True", "certificate True True ingress", "log True"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("no %q: %v\n%s", want, err, out)
		}
	}
}
