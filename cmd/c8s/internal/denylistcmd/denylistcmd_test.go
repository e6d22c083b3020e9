// SPDX-License-Identifier: Apache-2.0

package denylistcmd_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/denylistcmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// newDesk has two operators, alice and bob, who both must sign.
func newDesk(t *testing.T) *desktest.Desk {
	t.Helper()
	d := desktest.New(t, denylistcmd.New)
	o := policy.Operators{Threshold: 2}
	for _, name := range []string{"alice", "bob"} {
		key, err := operatorkey.Generate(policy.AlgorithmEd25519)
		if err != nil {
			t.Fatal(err)
		}
		if err := operatorkey.Write(d.Path(name+".pem"), key, false); err != nil {
			t.Fatal(err)
		}
		described, err := policy.NewOperatorKey(name, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		o.Keys = append(o.Keys, described)
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	d.Write("operators.json", text)
	return d
}

func parse(t *testing.T, text []byte) *policy.DenyList {
	t.Helper()
	l, err := policy.ParseDenyList(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const create = "add @list.json --trust-domain c8s.test --reason stolen --workload web"

func TestAFirstListIsWrittenSignedAndVerified(t *testing.T) {
	d := newDesk(t)
	machine := policytest.Hex(0xc1, 64)
	r := d.Must(create + " --machine " + machine + " --measurement " + policytest.Hex(1, 48) + " --serial 7f --key @alice.pem.pub --key " + string(policytest.Digest("k")))
	if !strings.Contains(r.ErrOut, "narrows  entries[workload web]") {
		t.Errorf("said %q", r.ErrOut)
	}
	l := parse(t, d.Read("list.json"))
	if l.Version != 1 || len(l.Entries) != 6 || l.Denies(policy.Holder{Machine: machine}).Allowed || l.Denies(policy.Holder{Workload: "web"}).Allowed || !l.Denies(policy.Holder{Workload: "db"}).Allowed {
		t.Errorf("the list is %+v", l)
	}
	d.Must("sign @list.json --key @alice.pem -o @signed.json")
	d.Refused(exit.Refused, "verify @signed.json --operators @operators.json", string(policy.CodeThresholdUnmet))
	r = d.Must("sign @signed.json --key @bob.pem -o @signed.json")
	if !strings.Contains(r.ErrOut, "signed deny list 1 of c8s.test with 6 entries") {
		t.Errorf("sign said %q", r.ErrOut)
	}
	r = d.Must("verify @signed.json --operators @operators.json")
	if !strings.Contains(r.Out, "verified: deny list 1 of c8s.test, 6 entries") || !strings.Contains(r.Out, "signers:  alice, bob") {
		t.Errorf("verify said %q", r.Out)
	}
	r = d.Must("show @signed.json")
	for _, want := range []string{"NOT CHECKED", "denies machine", machine + "  (stolen)", string(policy.DigestOf(d.Read("list.json")))} {
		if !strings.Contains(r.Out, want) {
			t.Errorf("show lacks %q:\n%s", want, r.Out)
		}
	}
}

func TestASignedListIsFollowedByItsSuccessor(t *testing.T) {
	d := newDesk(t)
	d.Must(create)
	d.Must("sign @list.json --key @alice.pem --key @bob.pem -o @one.json")
	before := d.Read("one.json")
	d.Refused(exit.Misuse, "add @one.json --workload db --reason stolen --force", "stays as it is")
	d.Must("add @one.json --workload db --reason stolen -o @next.json")
	r := d.Must("remove @next.json --workload web")
	if !strings.Contains(r.ErrOut, "widens  entries[workload web]") {
		t.Errorf("said %q", r.ErrOut)
	}
	next := parse(t, d.Read("next.json"))
	if next.Version != 2 || next.Previous != policy.DigestOf(d.Read("list.json")) || len(next.Entries) != 1 {
		t.Errorf("the next list is %+v", next)
	}
	if !bytes.Equal(d.Read("one.json"), before) {
		t.Error("the signed list was changed")
	}
	d.Must("sign @next.json --key @alice.pem --key @bob.pem -o @two.json")
	var v struct {
		Version  uint64
		Succeeds policy.Digest
		Signers  []string
	}
	r = d.Must("verify @two.json --operators @operators.json --previous @one.json -o json")
	if err := json.Unmarshal([]byte(r.Out), &v); err != nil || v.Version != 2 || v.Succeeds != next.Previous || len(v.Signers) != 2 {
		t.Errorf("verified %+v, %v", v, err)
	}
	d.Refused(exit.Refused, "verify @one.json --operators @operators.json --previous @two.json", string(policy.CodeDenyListRolledBack))
	var changes []policy.Change
	if err := json.Unmarshal([]byte(d.Must("diff @one.json @two.json -o json").Out), &changes); err != nil || len(changes) != 4 {
		t.Errorf("changes %v, %v; want version, previous and two entries", changes, err)
	}
	if r := d.Must("diff @one.json @one.json"); r.Out != "no difference\n" {
		t.Errorf("diff of one file said %q", r.Out)
	}
	if r := d.Must("remove @next.json --workload db -o -"); len(parse(t, []byte(r.Out)).Entries) != 0 {
		t.Errorf("wrote %q", r.Out)
	}
}

func TestListsComeFromStandardInput(t *testing.T) {
	d := newDesk(t)
	d.Must(create)
	d.Stdin = string(d.Read("list.json"))
	d.Stdin = d.Must("add - --workload db --reason stolen").Out
	d.Stdin = d.Must("sign - --key @alice.pem --key @bob.pem").Out
	d.Must("verify - --operators @operators.json")
	if r := d.Must("show - -o json"); !strings.Contains(r.Out, `"value": "db"`) {
		t.Errorf("showed %q", r.Out)
	}
}

func TestAReasonIsASentence(t *testing.T) {
	d := newDesk(t)
	const why = "CVE-2026-0001: leaks <keys> & more"
	if r := d.RunArgs("add", d.Path("list.json"), "--trust-domain", "c8s.test", "--workload", "web", "--reason", why); r.Code != exit.OK {
		t.Fatal(r.ErrOut)
	}
	if l := parse(t, d.Read("list.json")); l.Entries[0].Reason != why {
		t.Errorf("the reason is %q", l.Entries[0].Reason)
	}
}

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	d := newDesk(t)
	d.Must(create)
	d.Must("sign @list.json --key @alice.pem --key @bob.pem -o @signed.json")
	f := policytest.New(t)
	d.Write("manifest.json", f.Envelope)
	d.Write("junk", []byte("junk"))
	before := d.Read("list.json")
	tests := []struct {
		line string
		code int
		want string
	}{
		{"add @new.json --workload web --reason stolen", exit.Misuse, "--trust-domain"},
		{"add @new.json --trust-domain C8S --workload web --reason stolen", exit.Refused, string(policy.CodeTrustDomainInvalid)},
		{"add @list.json --trust-domain other.test --workload db --reason stolen", exit.Refused, "not of other.test"},
		{"add @list.json --workload db", exit.Misuse, "--reason"},
		{"add @list.json --reason stolen", exit.Misuse, "at least one"},
		{"add @list.json --workload web --reason stolen", exit.Refused, "denied already (stolen)"},
		{"add @list.json --workload db --workload db --reason stolen", exit.Refused, "denied already"},
		{"add @list.json --workload Db --reason stolen", exit.Refused, "nothing was written"},
		{"add @list.json --serial 0A --reason stolen", exit.Refused, string(policy.CodeSerialInvalid)},
		{"add @list.json --key @junk --reason stolen", exit.Refused, "PEM"},
		{"add @list.json --key @alice.pem --reason stolen", exit.Refused, ".pub"},
		{"add @list.json --workload db --reason stolen -o @signed.json", exit.Refused, "--force"},
		{"remove @list.json --workload db", exit.Refused, "is not denied"},
		{"remove @list.json", exit.Misuse, "at least one"},
		{"remove @new.json --workload db", exit.Refused, "no such file"},
		{"sign @list.json", exit.Misuse, "--key"},
		{"sign @manifest.json --key @alice.pem", exit.Refused, "c8s manifest"},
		{"sign @junk --key @alice.pem", exit.Refused, string(policy.CodeSyntax)},
		{"verify @list.json --operators @operators.json", exit.Refused, "c8s denylist sign"},
		{"verify @manifest.json --operators @operators.json", exit.Refused, "c8s manifest"},
		{"verify @signed.json", exit.Misuse, "--operators or --key"},
		{"verify @signed.json --key @alice.pem.pub --previous @list.json", exit.Refused, "without signatures"},
		{"show @signed.json -o yaml", exit.Misuse, "--output"},
		{"diff @signed.json", exit.Misuse, "Usage:"},
		{"add --bogus", exit.Misuse, "--help"},
		{"bogus", exit.Misuse, "bogus"},
	}
	for _, tt := range tests {
		d.Refused(tt.code, tt.line, tt.want)
	}
	if !bytes.Equal(d.Read("list.json"), before) {
		t.Error("a refused edit was written")
	}
}

func TestEveryCommandHasExamplesAndExitCodesAreDocumented(t *testing.T) {
	c := denylistcmd.New()
	if !strings.Contains(c.Long, "Exit codes: 0 success, 1 refused, 2 wrong usage") {
		t.Error("exit codes are not documented")
	}
	for _, sub := range c.Commands() {
		if sub.Example == "" || sub.Long == "" {
			t.Errorf("%s has no example or description", sub.Name())
		}
	}
}
