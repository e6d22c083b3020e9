// SPDX-License-Identifier: Apache-2.0

package manifestcmd_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/verify/trust"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/manifestcmd"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func newDesk(t *testing.T) *desktest.Desk { return desktest.New(t, manifestcmd.New) }

// initLine makes a manifest that needs no filling in.
func initLine(more string) string {
	return "init --trust-domain c8s.test -o @manifest.json --operators-out @operators.json --simulated" +
		" --root " + string(policytest.Digest("root")) + " --measurement " + policytest.Hex(1, 48) +
		" --workload web=" + string(policytest.Digest("web")) + " " + more
}

func TestInitSignVerifyShow(t *testing.T) {
	for _, algorithm := range []string{policy.AlgorithmEd25519, policy.AlgorithmECDSAP256} {
		t.Run(algorithm, func(t *testing.T) {
			d := newDesk(t)
			d.Must(initLine("--new-key @op.pem --algorithm " + algorithm))
			if info, err := os.Stat(d.Path("op.pem")); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("key file: %v, %v; want mode 0600", info.Mode(), err)
			}
			r := d.Must("sign @manifest.json --key @op.pem -o @signed.json")
			if !strings.Contains(r.ErrOut, "signed version 1 of c8s.test") || strings.Contains(r.ErrOut, "warning") {
				t.Errorf("sign said %q", r.ErrOut)
			}
			r = d.Must("verify @signed.json --operators @operators.json")
			if !strings.Contains(r.Out, "verified: version 1 of c8s.test (not for production)") || !strings.Contains(r.Out, "signers:  operator-1") {
				t.Errorf("verify said %q", r.Out)
			}
			d.Must("verify @signed.json --key me=@op.pem.pub")
			r = d.Must("show @signed.json")
			for _, want := range []string{"NOT CHECKED", "SIMULATED", "workload web", string(policy.DigestOf(d.Read("manifest.json")))} {
				if !strings.Contains(r.Out, want) {
					t.Errorf("show lacks %q:\n%s", want, r.Out)
				}
			}
			entries, err := os.ReadDir(d.Dir)
			if err != nil || len(entries) != 5 {
				t.Errorf("%d files are left, want 5: %v", len(entries), entries)
			}
		})
	}
}

func TestInitMarksWhatItCannotKnow(t *testing.T) {
	d := newDesk(t)
	r := d.Must("init --trust-domain c8s.test --new-key @op.pem -o @m.json --operators-out @o.json")
	for _, path := range []string{"$.substrates[0].measurements[0]", "$.substrates[0].snp.minTCB", "$.workloads[0].images[0].digest"} {
		if !strings.Contains(r.Out, path) {
			t.Errorf("init does not name %s:\n%s", path, r.Out)
		}
		d.Refused(exit.Refused, "sign @m.json --key @op.pem", path)
	}
}

func TestInitLeavesASimulatedRootToTheOperator(t *testing.T) {
	d := newDesk(t)
	r := d.Must("init --trust-domain c8s.test --new-key @op.pem -o @m.json --operators-out @o.json --simulated")
	if !strings.Contains(r.Out, "$.substrates[0].roots[0]") {
		t.Errorf("init does not ask for the root:\n%s", r.Out)
	}
}

func TestInitAcceptsTheVendorsRoots(t *testing.T) {
	for product, chain := range map[string][]byte{policy.ProductMilan: trust.AskArkMilanVcekBytes, policy.ProductGenoa: trust.AskArkGenoaVcekBytes} {
		d := newDesk(t)
		d.Must("init --trust-domain c8s.test --new-key @op.pem -o @m.json --operators-out @o.json --product " + product)
		_, rest := pem.Decode(chain) // the intermediate
		ark, _ := pem.Decode(rest)
		if want := string(policy.DigestOf(ark.Bytes)); !strings.Contains(string(d.Read("m.json")), want) {
			t.Errorf("%s: the manifest does not name %s", product, want)
		}
	}
}

func TestInitSetsHostDataToTheOperators(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	m, err := policy.Parse(d.Read("manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := policy.ParseOperators(d.Read("operators.json"))
	if err != nil {
		t.Fatal(err)
	}
	var shown struct{ OperatorsDigest string }
	if err := json.Unmarshal([]byte(d.Must("show @manifest.json -o json").Out), &shown); err != nil {
		t.Fatal(err)
	}
	if m.Substrates[0].HostData[0] != shown.OperatorsDigest || o.Digest() != m.Operators.Digest() {
		t.Errorf("host data %v, operators %s", m.Substrates[0].HostData, shown.OperatorsDigest)
	}
}

func TestNothingIsOverwrittenWithoutForce(t *testing.T) {
	for _, file := range []string{"manifest.json", "operators.json", "op.pem", "op.pem.pub"} {
		t.Run(file, func(t *testing.T) {
			d := newDesk(t)
			d.Write(file, []byte("precious"))
			d.Refused(exit.Refused, initLine("--new-key @op.pem"), "--force")
			if string(d.Read(file)) != "precious" {
				t.Error("the file was overwritten")
			}
			if entries, err := os.ReadDir(d.Dir); err != nil || len(entries) != 1 {
				t.Errorf("a refused init left files: %v", entries)
			}
			d.Must(initLine("--new-key @op.pem --force"))
			if string(d.Read(file)) == "precious" {
				t.Error("--force did not replace the file")
			}
		})
	}
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	d.Refused(exit.Refused, "sign @manifest.json --key @op.pem -o @manifest.json", "--force")
	d.Refused(exit.Misuse, initLine("--new-key @manifest.json --force"), "two outputs")
}

func TestForceReplacesALooselyProtectedKeyWith0600(t *testing.T) {
	d := newDesk(t)
	d.Write("op.pem", nil)
	if err := os.Chmod(d.Path("op.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.Must(initLine("--new-key @op.pem --force"))
	if info, err := os.Stat(d.Path("op.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func TestTwoOperatorsSignOneEnvelopeInPlace(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @alice.pem"))
	d.Must("init --trust-domain c8s.test --new-key @bob.pem -o @ignore.json --operators-out @ignore2.json")
	d.Must(initLine("--force --threshold 2 --operator-key alice=@alice.pem.pub --operator-key @bob.pem.pub"))
	d.Must("sign @manifest.json --key @alice.pem -o @signed.json")
	d.Refused(exit.Refused, "verify @signed.json --operators @operators.json", string(policy.CodeThresholdUnmet))
	d.Must("sign @signed.json --key @bob.pem -o @signed.json")
	var v struct {
		Signers []string
		Version uint64
		Digest  policy.Digest
	}
	r := d.Must("verify @signed.json --operators @operators.json -o json")
	if err := json.Unmarshal([]byte(r.Out), &v); err != nil {
		t.Fatal(err)
	}
	if strings.Join(v.Signers, " ") != "alice bob" || v.Digest != policy.DigestOf(d.Read("manifest.json")) {
		t.Errorf("verified %+v", v)
	}
	d.Must("verify @signed.json --key @alice.pem.pub --key @bob.pem.pub --threshold 2")
	r = d.Must("verify @signed.json --key @alice.pem.pub")
	if !strings.Contains(r.Out, "ignored:") {
		t.Errorf("an ignored signature is not reported: %s", r.Out)
	}
}

func TestVerifyFollowsTheChain(t *testing.T) {
	d := newDesk(t)
	f := policytest.New(t)
	next := f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false })
	operators, err := json.Marshal(f.Operators)
	if err != nil {
		t.Fatal(err)
	}
	d.Write("operators.json", operators)
	d.Write("one.json", f.Envelope)
	d.Write("two.json", next.Envelope)
	r := d.Must("verify @two.json --operators @operators.json --previous @one.json")
	if !strings.Contains(r.Out, "succeeds: "+string(f.Digest)) {
		t.Errorf("verify said %q", r.Out)
	}
	d.Refused(exit.Refused, "verify @one.json --operators @operators.json --previous @two.json", string(policy.CodeManifestRolledBack))

	r = d.Must("diff @one.json @two.json")
	if !strings.Contains(r.Out, "narrows  workloads[web].hostAccess") {
		t.Errorf("diff said %q", r.Out)
	}
	var changes []policy.Change
	if err := json.Unmarshal([]byte(d.Must("diff @one.json @two.json -o json").Out), &changes); err != nil || len(changes) != 3 {
		t.Errorf("changes %v, %v; want version, previous and hostAccess", changes, err)
	}
	if r := d.Must("diff @one.json @one.json"); r.Out != "no difference\n" {
		t.Errorf("diff of one file said %q", r.Out)
	}
	if r := d.Must("diff @one.json @one.json -o json"); r.Out != "[]\n" {
		t.Errorf("diff of one file said %q", r.Out)
	}
}

func TestManifestsComeFromStandardInput(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	d.Stdin = string(d.Read("manifest.json"))
	d.Stdin = d.Must("sign - --key @op.pem").Out
	d.Must("verify - --operators @operators.json")
	d.Must("show -")
}

func TestSignWarnsOfAKeyThatOthersMayRead(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	if err := os.Chmod(d.Path("op.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	if r := d.Must("sign @manifest.json --key @op.pem"); !strings.Contains(r.ErrOut, "chmod 600") {
		t.Errorf("no warning: %q", r.ErrOut)
	}
}

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	d.Must("sign @manifest.json --key @op.pem -o @signed.json")
	d.Must("init --trust-domain c8s.test --new-key @eve.pem -o @e.json --operators-out @eve.json")
	d.Write("tampered.json", bytes.Replace(d.Read("signed.json"), []byte(`"sig": "`), []byte(`"sig": "AAAA`), 1))
	d.Write("typo.json", bytes.Replace(d.Read("manifest.json"), []byte(`"schema"`), []byte(`"Schema"`), 1))
	d.Write("junk.pem", []byte("junk"))
	weak, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(weak)
	if err != nil {
		t.Fatal(err)
	}
	d.Write("weak.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	tests := []struct {
		line string
		code int
		want string
	}{
		{"verify @signed.json --operators @eve.json", exit.Refused, string(policy.CodeThresholdUnmet)},
		{"verify @tampered.json --operators @operators.json", exit.Refused, string(policy.CodeThresholdUnmet)},
		{"verify @manifest.json --operators @operators.json", exit.Refused, "c8s manifest sign"},
		{"verify @missing.json --operators @operators.json", exit.Refused, "no such file"},
		{"verify @signed.json --operators @manifest.json", exit.Refused, string(policy.CodeMissingField)},
		{"verify @signed.json --key @op.pem", exit.Refused, ".pub"},
		{"sign @typo.json --key @op.pem", exit.Refused, `write "schema"`},
		{"sign @manifest.json --key @op.pem.pub", exit.Refused, "private key"},
		{"sign @manifest.json --key @junk.pem", exit.Refused, "no PEM block"},
		{"sign @manifest.json --key @weak.pem", exit.Refused, string(policy.CodeKeyUnsupported)},
		{"show @junk.pem", exit.Refused, string(policy.CodeSyntax)},
		{"diff @manifest.json @typo.json", exit.Refused, "$.Schema"},
		{"init --trust-domain c8s.test --operator-key @op.pem.pub --threshold 2 -o @x --operators-out @y", exit.Refused, string(policy.CodeThresholdInvalid)},
		{"init --new-key @x.pem", exit.Misuse, "--trust-domain"},
		{"init --trust-domain c8s.test", exit.Misuse, "--new-key"},
		{initLine("--force --new-key @x.pem --algorithm rsa"), exit.Misuse, "--algorithm"},
		{initLine("--force --new-key @x.pem --min-tcb 1,2,3"), exit.Misuse, "--min-tcb"},
		{initLine("--force --new-key @x.pem --min-tcb 1,2,3,256"), exit.Misuse, "--min-tcb"},
		{initLine("--force --new-key @x.pem --workload nodigest"), exit.Misuse, "--workload"},
		{"init extra", exit.Misuse, "Usage:"},
		{"sign @manifest.json", exit.Misuse, "--key"},
		{"sign --key @op.pem", exit.Misuse, "Usage:"},
		{"verify @signed.json", exit.Misuse, "--operators or --key"},
		{"verify @signed.json --operators @operators.json --key @op.pem.pub", exit.Misuse, "--operators or --key"},
		{"verify @signed.json --operators @operators.json --threshold 2", exit.Misuse, "--threshold"},
		{"show @signed.json -o yaml", exit.Misuse, "--output"},
		{"diff @signed.json", exit.Misuse, "Usage:"},
		{"show --bogus", exit.Misuse, "--help"},
		{"bogus", exit.Misuse, "bogus"},
	}
	for _, tt := range tests {
		d.Refused(tt.code, tt.line, tt.want)
	}
}

// A message must never repeat a private key, whatever is wrong with its file.
func TestErrorsNeverRepeatKeyMaterial(t *testing.T) {
	d := newDesk(t)
	d.Must(initLine("--new-key @op.pem"))
	key := string(d.Read("op.pem"))
	secret := strings.Split(key, "\n")[1]
	d.Write("renamed.pem", []byte(strings.ReplaceAll(key, "PRIVATE KEY", "EC PRIVATE KEY")))
	d.Write("twice.pem", []byte(key+key))
	for _, line := range []string{
		"sign @manifest.json --key @renamed.pem", "sign @manifest.json --key @twice.pem",
		"show @op.pem", "verify @op.pem --operators @operators.json", "verify @manifest.json --operators @op.pem",
	} {
		r := d.Run(line)
		if r.Code == exit.OK || strings.Contains(r.Out+r.ErrOut, secret[:12]) {
			t.Errorf("%q: exit %d, %q", line, r.Code, r.ErrOut)
		}
	}
}

func TestEveryCommandHasExamplesAndExitCodesAreDocumented(t *testing.T) {
	c := manifestcmd.New()
	if !strings.Contains(c.Long, "Exit codes: 0 success, 1 refused, 2 wrong usage") {
		t.Error("exit codes are not documented")
	}
	for _, sub := range c.Commands() {
		if sub.Example == "" || sub.Long == "" {
			t.Errorf("%s has no example or description", sub.Name())
		}
	}
}

func TestInitForSimulatedMachinesNeedsNothingFilledIn(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) error {
		c := manifestcmd.New()
		c.SetArgs(args)
		c.SetOut(io.Discard)
		c.SetErr(io.Discard)
		c.SilenceErrors, c.SilenceUsage = true, true
		return c.Execute()
	}
	initArgs := []string{
		"init", "--trust-domain", "dev.example.org", "--new-key", at("op.pem"), "--sim-dir", at("sim"),
		"--workload", "web=sha256:" + strings.Repeat("ab", 32), "-o", at("m.json"), "--operators-out", at("operators.json"),
	}
	if err := run(initArgs...); err != nil {
		t.Fatal(err)
	}
	if err := run("sign", at("m.json"), "--key", at("op.pem"), "-o", at("m.signed.json")); err != nil {
		t.Fatal(err)
	}
	if err := run("verify", at("m.signed.json"), "--operators", at("operators.json")); err != nil {
		t.Fatal(err)
	}
	if err := run(append(initArgs, "--force", "--root", "sha256:"+strings.Repeat("cd", 32))...); err == nil {
		t.Error("--root beside --sim-dir was accepted")
	}
}
