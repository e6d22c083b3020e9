// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/cds/trust"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// The program is worth something because it is not the code it checks.
func TestNothingOfThisModuleIsImported(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := regexp.MustCompile(`^(github\.com/c8s-dev/c8s/test/verifier|golang\.org/x/(mod/sumdb/(note|tlog)|mod/internal/lazyregexp|crypto/cryptobyte(/asn1)?)|github\.com/fxamacker/cbor/v2|github\.com/x448/float16)$`)
	list := strings.Fields(string(out))
	if len(list) < 5 {
		t.Fatalf("go list names only %q", list)
	}
	for _, name := range list {
		if !allowed.MatchString(name) {
			t.Errorf("it imports %s", name)
		}
	}
}

// credentials are one for every way to get a certificate.
func (w *world) credentials() map[string]*client.Credential {
	w.t.Helper()
	node := w.Enrol()
	all := map[string]*client.Credential{
		"node": node, "pod": w.pod(node, nil), "pod with evidence of its node": w.pod(node, w.Attester("node")),
		"pod that is a machine": w.pod(nil, w.Attester("other")),
	}
	for name, enrol := range map[string]func() (*client.Credential, error){
		"ingress": func() (*client.Credential, error) { return w.client.EnrolIngress(w.t.Context(), w.Attester("other")) },
		"cds":     func() (*client.Credential, error) { return w.client.EnrolCDS(w.t.Context(), w.Attester("cds")) },
	} {
		cred, err := enrol()
		if err != nil {
			w.t.Fatal(err)
		}
		all[name] = cred
	}
	return all
}

func TestEveryCertificateGoesBackToTheOperators(t *testing.T) {
	w := newWorld(t)
	all := w.credentials()
	w.deny(policytest.Deny(policy.DenyWorkload, "db"))
	w.publish(func(m *policy.Manifest) { m.Workloads[0].HostAccess = false }) // voids no certificate
	for name, cred := range all {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w.mirror(dir, cred) // fails if it is not accepted from the CDS itself
			if out, code := judge(t, dir, "-beacon", "1h"); code != exitGood || strings.Count(out, "ok ") != len(steps()) {
				t.Errorf("from a mirror: exit code %d, want %d and %d steps\n%s", code, exitGood, len(steps()), out)
			}
		})
	}
}

func TestStepsAreDocumented(t *testing.T) {
	page := string(read(t, "../../docs/verify.md"))
	for _, s := range steps() {
		if !strings.Contains(page, "`"+s.name+"`") {
			t.Errorf("docs/verify.md does not explain %s", s.name)
		}
	}
}

func TestWithoutWhatItNeedsItDoesNotBegin(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "operators.json"), []byte("{}"))
	write(t, filepath.Join(dir, "certificate.pem"), []byte("-----BEGIN CERTIFICATE-----\n"))
	operators, certificate := filepath.Join(dir, "operators.json"), filepath.Join(dir, "certificate.pem")
	for name, args := range map[string][]string{
		"no arguments":    {},
		"no certificate":  {"-operators", operators, "-documents", dir},
		"no operators":    {"-documents", dir, certificate},
		"a lost file":     {"-operators", filepath.Join(dir, "lost"), "-documents", dir, certificate},
		"half a PEM":      {"-operators", operators, "-documents", dir, certificate},
		"an unknown flag": {"-trust-everything", certificate},
		"another time":    {"-operators", operators, "-documents", dir, "-at", "yesterday", certificate},
	} {
		if out, code := verifier(t, args...); code != exitUsage {
			t.Errorf("%s: exit code %d, want %d\n%s", name, code, exitUsage, out)
		}
	}
}

// TDX is another vendor's evidence: what the program cannot check, it says.
func TestEvidenceOfOtherKindsIsLeftOpen(t *testing.T) {
	td, err := sim.NewTDX(t.TempDir(), sim.TDXOptions{MRTD: [48]byte{1}, PIID: [16]byte{2}})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(m *policy.Manifest) { m.Substrates = append(m.Substrates, td.Substrate("tdx", policy.RoleNode)) })
	cred, err := w.client.EnrolNode(t.Context(), tdxAttester{tsm.New(td), td})
	if err != nil {
		t.Fatal(err)
	}
	operators, certificate := w.files(t.TempDir(), cred)
	out, code := verifier(t, "-operators", operators, "-documents", w.url(), certificate)
	if code != exitOpen || strings.Count(out, "\nopen ") != 4 || strings.Contains(out, "FAIL") {
		t.Errorf("exit code %d, want %d and four open steps\n%s", code, exitOpen, out)
	}
}

func TestWitnessesThatTheManifestAsksFor(t *testing.T) {
	cosigner := func(name string, seed byte) *translog.Cosigner {
		c, err := translog.NewCosigner(name, ed25519.NewKeyFromSeed(append(make([]byte, 31), seed)))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	north, south, stranger := cosigner("north", 1), cosigner("south", 2), cosigner("stranger", 3)
	w := newWorld(t, func(m *policy.Manifest) {
		m.Witnesses = []policy.Witness{{Name: "north", Key: north.VerifierKey()}, {Name: "south", Key: south.VerifierKey()}}
		m.WitnessQuorum = 2
	})
	early := w.document("log/checkpoint")
	cred := w.Enrol()
	bundle, err := trust.ParseEndorsement(w.document("v1/endorsement"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := bundle.Bundle.LogVerifier()
	if err != nil {
		t.Fatal(err)
	}
	cosigned := func(signed []byte, by ...*translog.Cosigner) []byte {
		for _, c := range by {
			if signed, err = translog.AddCosignature(signed, key.Name(), key, c, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		return signed
	}
	now := w.document("log/checkpoint")
	if _, err := api.NewWitnessClient(web(), w.url()).Cosign(t.Context(), &api.CosignRequest{Checkpoint: cosigned(now, north, south)}); err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	w.mirror(scratch, cred)
	w.forger(scratch).relog(func(e entries) entries { e[0].Digest = policytest.Digest("fork"); return e })
	fork := read(t, filepath.Join(scratch, "log/checkpoint"))
	for name, tt := range map[string]struct {
		cosigned []byte
		code     int
		line     string
	}{
		"none":                 {now, exitBad, "FAIL witnesses"},
		"one of two":           {cosigned(now, north), exitBad, "FAIL witnesses"},
		"one and a stranger":   {cosigned(now, north, stranger), exitBad, "FAIL witnesses"},
		"both":                 {cosigned(now, north, south), exitGood, "ok   witnesses"},
		"both, of a fork":      {cosigned(fork, north, south), exitBad, "FAIL witnesses"},
		"both, before it came": {cosigned(early, north, south), exitOpen, "open witnesses"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w.mirror(dir, cred)
			write(t, filepath.Join(dir, "log/checkpoint.cosigned"), tt.cosigned)
			if out, code := judge(t, dir); code != tt.code || !strings.Contains(out, tt.line) {
				t.Errorf("exit code %d, want %d and %q\n%s", code, tt.code, tt.line, out)
			}
		})
	}
}

// tdxAttester staples Intel's word, as a node's configuration would.
type tdxAttester struct {
	attest.Attester
	td *sim.TD
}

func (a tdxAttester) Attest(ctx context.Context, data [64]byte) (*attest.Evidence, error) {
	ev, err := a.Attester.Attest(ctx, data)
	if err != nil {
		return nil, err
	}
	ev.Collateral, err = a.td.Collateral()
	return ev, err
}
