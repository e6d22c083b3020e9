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

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/manifestcmd"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// desk is a folder in which one operator works.
type desk struct {
	t     *testing.T
	dir   string
	stdin string
}

func newDesk(t *testing.T) *desk { return &desk{t: t, dir: t.TempDir()} }

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) read(name string) []byte {
	d.t.Helper()
	text, err := os.ReadFile(d.path(name))
	if err != nil {
		d.t.Fatal(err)
	}
	return text
}

func (d *desk) write(name string, text []byte) {
	d.t.Helper()
	if err := os.WriteFile(d.path(name), text, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

type result struct {
	code        int
	out, errOut string
}

// run runs one command line. Words that start with @ are files of the desk.
func (d *desk) run(line string) result {
	d.t.Helper()
	args := strings.Fields(line)
	for i, arg := range args {
		if before, name, ok := strings.Cut(arg, "@"); ok {
			args[i] = before + d.path(name)
		}
	}
	var out, errOut bytes.Buffer
	c := manifestcmd.New()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	c.SetIn(strings.NewReader(d.stdin))
	c.SetOut(&out)
	c.SetErr(&errOut)
	err := c.Execute()
	if err != nil {
		errOut.WriteString(err.Error())
	}
	return result{exit.Code(err), out.String(), errOut.String()}
}

func (d *desk) must(line string) result {
	d.t.Helper()
	r := d.run(line)
	if r.code != exit.OK {
		d.t.Fatalf("%q: exit %d: %s", line, r.code, r.errOut)
	}
	return r
}

func (d *desk) refused(code int, line, want string) {
	d.t.Helper()
	if r := d.run(line); r.code != code || !strings.Contains(r.errOut, want) {
		d.t.Errorf("%q: exit %d, %q; want exit %d with %q", line, r.code, r.errOut, code, want)
	}
}

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
			d.must(initLine("--new-key @op.pem --algorithm " + algorithm))
			if info, err := os.Stat(d.path("op.pem")); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("key file: %v, %v; want mode 0600", info.Mode(), err)
			}
			r := d.must("sign @manifest.json --key @op.pem -o @signed.json")
			if !strings.Contains(r.errOut, "signed version 1 of c8s.test") || strings.Contains(r.errOut, "warning") {
				t.Errorf("sign said %q", r.errOut)
			}
			r = d.must("verify @signed.json --operators @operators.json")
			if !strings.Contains(r.out, "verified: version 1 of c8s.test (not for production)") || !strings.Contains(r.out, "signers:  operator-1") {
				t.Errorf("verify said %q", r.out)
			}
			d.must("verify @signed.json --key me=@op.pem.pub")
			r = d.must("show @signed.json")
			for _, want := range []string{"NOT CHECKED", "SIMULATED", "workload web", string(policy.DigestOf(d.read("manifest.json")))} {
				if !strings.Contains(r.out, want) {
					t.Errorf("show lacks %q:\n%s", want, r.out)
				}
			}
			entries, err := os.ReadDir(d.dir)
			if err != nil || len(entries) != 5 {
				t.Errorf("%d files are left, want 5: %v", len(entries), entries)
			}
		})
	}
}

func TestInitMarksWhatItCannotKnow(t *testing.T) {
	d := newDesk(t)
	r := d.must("init --trust-domain c8s.test --new-key @op.pem -o @m.json --operators-out @o.json")
	for _, path := range []string{"$.substrates[0].measurements[0]", "$.substrates[0].snp.minTCB", "$.workloads[0].images[0].digest"} {
		if !strings.Contains(r.out, path) {
			t.Errorf("init does not name %s:\n%s", path, r.out)
		}
		d.refused(exit.Refused, "sign @m.json --key @op.pem", path)
	}
}

func TestInitLeavesASimulatedRootToTheOperator(t *testing.T) {
	d := newDesk(t)
	r := d.must("init --trust-domain c8s.test --new-key @op.pem -o @m.json --operators-out @o.json --simulated")
	if !strings.Contains(r.out, "$.substrates[0].roots[0]") {
		t.Errorf("init does not ask for the root:\n%s", r.out)
	}
}

func TestInitAcceptsTheVendorsRoots(t *testing.T) {
	for product, chain := range map[string][]byte{policy.ProductMilan: trust.AskArkMilanVcekBytes, policy.ProductGenoa: trust.AskArkGenoaVcekBytes} {
		d := newDesk(t)
		d.must("init --trust-domain c8s.test --new-key @op.pem -o @m.json --operators-out @o.json --product " + product)
		_, rest := pem.Decode(chain) // the intermediate
		ark, _ := pem.Decode(rest)
		if want := string(policy.DigestOf(ark.Bytes)); !strings.Contains(string(d.read("m.json")), want) {
			t.Errorf("%s: the manifest does not name %s", product, want)
		}
	}
}

func TestInitSetsHostDataToTheOperators(t *testing.T) {
	d := newDesk(t)
	d.must(initLine("--new-key @op.pem"))
	m, err := policy.Parse(d.read("manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := policy.ParseOperators(d.read("operators.json"))
	if err != nil {
		t.Fatal(err)
	}
	var shown struct{ OperatorsDigest string }
	if err := json.Unmarshal([]byte(d.must("show @manifest.json -o json").out), &shown); err != nil {
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
			d.write(file, []byte("precious"))
			d.refused(exit.Refused, initLine("--new-key @op.pem"), "--force")
			if string(d.read(file)) != "precious" {
				t.Error("the file was overwritten")
			}
			if entries, err := os.ReadDir(d.dir); err != nil || len(entries) != 1 {
				t.Errorf("a refused init left files: %v", entries)
			}
			d.must(initLine("--new-key @op.pem --force"))
			if string(d.read(file)) == "precious" {
				t.Error("--force did not replace the file")
			}
		})
	}
	d := newDesk(t)
	d.must(initLine("--new-key @op.pem"))
	d.refused(exit.Refused, "sign @manifest.json --key @op.pem -o @manifest.json", "--force")
	d.refused(exit.Misuse, initLine("--new-key @manifest.json --force"), "two outputs")
}

func TestForceReplacesALooselyProtectedKeyWith0600(t *testing.T) {
	d := newDesk(t)
	d.write("op.pem", nil)
	if err := os.Chmod(d.path("op.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.must(initLine("--new-key @op.pem --force"))
	if info, err := os.Stat(d.path("op.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func TestTwoOperatorsSignOneEnvelopeInPlace(t *testing.T) {
	d := newDesk(t)
	d.must(initLine("--new-key @alice.pem"))
	d.must("init --trust-domain c8s.test --new-key @bob.pem -o @ignore.json --operators-out @ignore2.json")
	d.must(initLine("--force --threshold 2 --operator-key alice=@alice.pem.pub --operator-key @bob.pem.pub"))
	d.must("sign @manifest.json --key @alice.pem -o @signed.json")
	d.refused(exit.Refused, "verify @signed.json --operators @operators.json", string(policy.CodeThresholdUnmet))
	d.must("sign @signed.json --key @bob.pem -o @signed.json")
	var v struct {
		Signers []string
		Version uint64
		Digest  policy.Digest
	}
	r := d.must("verify @signed.json --operators @operators.json -o json")
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatal(err)
	}
	if strings.Join(v.Signers, " ") != "alice bob" || v.Digest != policy.DigestOf(d.read("manifest.json")) {
		t.Errorf("verified %+v", v)
	}
	d.must("verify @signed.json --key @alice.pem.pub --key @bob.pem.pub --threshold 2")
	r = d.must("verify @signed.json --key @alice.pem.pub")
	if !strings.Contains(r.out, "ignored:") {
		t.Errorf("an ignored signature is not reported: %s", r.out)
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
	d.write("operators.json", operators)
	d.write("one.json", f.Envelope)
	d.write("two.json", next.Envelope)
	r := d.must("verify @two.json --operators @operators.json --previous @one.json")
	if !strings.Contains(r.out, "succeeds: "+string(f.Digest)) {
		t.Errorf("verify said %q", r.out)
	}
	d.refused(exit.Refused, "verify @one.json --operators @operators.json --previous @two.json", string(policy.CodeManifestRolledBack))

	r = d.must("diff @one.json @two.json")
	if !strings.Contains(r.out, "narrows  workloads[web].hostAccess") {
		t.Errorf("diff said %q", r.out)
	}
	var changes []policy.Change
	if err := json.Unmarshal([]byte(d.must("diff @one.json @two.json -o json").out), &changes); err != nil || len(changes) != 3 {
		t.Errorf("changes %v, %v; want version, previous and hostAccess", changes, err)
	}
	if r := d.must("diff @one.json @one.json"); r.out != "no difference\n" {
		t.Errorf("diff of one file said %q", r.out)
	}
	if r := d.must("diff @one.json @one.json -o json"); r.out != "[]\n" {
		t.Errorf("diff of one file said %q", r.out)
	}
}

func TestManifestsComeFromStandardInput(t *testing.T) {
	d := newDesk(t)
	d.must(initLine("--new-key @op.pem"))
	d.stdin = string(d.read("manifest.json"))
	d.stdin = d.must("sign - --key @op.pem").out
	d.must("verify - --operators @operators.json")
	d.must("show -")
}

func TestSignWarnsOfAKeyThatOthersMayRead(t *testing.T) {
	d := newDesk(t)
	d.must(initLine("--new-key @op.pem"))
	if err := os.Chmod(d.path("op.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	if r := d.must("sign @manifest.json --key @op.pem"); !strings.Contains(r.errOut, "chmod 600") {
		t.Errorf("no warning: %q", r.errOut)
	}
}

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	d := newDesk(t)
	d.must(initLine("--new-key @op.pem"))
	d.must("sign @manifest.json --key @op.pem -o @signed.json")
	d.must("init --trust-domain c8s.test --new-key @eve.pem -o @e.json --operators-out @eve.json")
	d.write("tampered.json", bytes.Replace(d.read("signed.json"), []byte(`"sig": "`), []byte(`"sig": "AAAA`), 1))
	d.write("typo.json", bytes.Replace(d.read("manifest.json"), []byte(`"schema"`), []byte(`"Schema"`), 1))
	d.write("junk.pem", []byte("junk"))
	weak, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(weak)
	if err != nil {
		t.Fatal(err)
	}
	d.write("weak.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
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
		d.refused(tt.code, tt.line, tt.want)
	}
}

// A message must never repeat a private key, whatever is wrong with its file.
func TestErrorsNeverRepeatKeyMaterial(t *testing.T) {
	d := newDesk(t)
	d.must(initLine("--new-key @op.pem"))
	key := string(d.read("op.pem"))
	secret := strings.Split(key, "\n")[1]
	d.write("renamed.pem", []byte(strings.ReplaceAll(key, "PRIVATE KEY", "EC PRIVATE KEY")))
	d.write("twice.pem", []byte(key+key))
	for _, line := range []string{
		"sign @manifest.json --key @renamed.pem", "sign @manifest.json --key @twice.pem",
		"show @op.pem", "verify @op.pem --operators @operators.json", "verify @manifest.json --operators @op.pem",
	} {
		r := d.run(line)
		if r.code == exit.OK || strings.Contains(r.out+r.errOut, secret[:12]) {
			t.Errorf("%q: exit %d, %q", line, r.code, r.errOut)
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
