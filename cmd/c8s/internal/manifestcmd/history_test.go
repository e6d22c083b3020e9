// SPDX-License-Identifier: Apache-2.0

package manifestcmd_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk/desktest"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// archive is a desk with a folder of three versions and what else may lie in
// such a folder.
func archive(t *testing.T) (*desktest.Desk, *policytest.Fixture) {
	t.Helper()
	d := newDesk(t)
	one := policytest.New(t)
	two := one.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = false })
	three := two.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = true })
	operators, err := json.Marshal(one.Operators)
	if err != nil {
		t.Fatal(err)
	}
	d.Write("operators.json", operators)
	if err := os.Mkdir(d.Path("a"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.Write("a/z-first.json", one.Envelope)
	d.Write("a/second.json", two.Envelope)
	d.Write("a/a-third.json", three.Envelope)
	d.Write("a/draft.json", three.Payload)
	d.Write("a/notes.txt", []byte("notes"))
	return d, one
}

func TestHistoryFollowsAChainFromAFolder(t *testing.T) {
	d, one := archive(t)
	r := d.Must("history @a --operators @operators.json")
	lines := strings.Split(strings.TrimSpace(r.Out), "\n")
	if len(lines) != 4 || !strings.Contains(lines[1], "z-first.json") || !strings.Contains(lines[3], "a-third.json") || r.ErrOut != "" {
		t.Errorf("said %q and %q", r.Out, r.ErrOut)
	}
	var steps []struct {
		Version  uint64
		Digest   policy.Digest
		Previous policy.Digest
		Signers  []string
		Changes  []policy.Change
	}
	if err := json.Unmarshal([]byte(d.Must("history @a --operators @operators.json -o json").Out), &steps); err != nil {
		t.Fatal(err)
	}
	if len(steps) != 3 || steps[0].Digest != one.Digest || steps[1].Previous != one.Digest || len(steps[0].Changes) != 0 || len(steps[1].Changes) != 3 || len(steps[2].Signers) == 0 {
		t.Errorf("steps %+v", steps)
	}
}

func TestHistoryWithoutATrustAnchorSaysSo(t *testing.T) {
	d, _ := archive(t)
	if r := d.Must("history @a"); !strings.Contains(r.ErrOut, "--operators") {
		t.Errorf("warned %q", r.ErrOut)
	}
}

func TestHistoryStartsAtTheFirstVersionGiven(t *testing.T) {
	d, _ := archive(t)
	r := d.Must("history @a/a-third.json @a/second.json --operators @operators.json")
	if n := strings.Count(r.Out, "\n"); n != 3 || strings.Contains(r.Out, "z-first") {
		t.Errorf("said %q", r.Out)
	}
}

func TestHistoryTakesTheCopyWithEnoughSignatures(t *testing.T) {
	d := newDesk(t)
	f := policytest.New(t, policytest.WithOperators(2, 2))
	partly, err := policy.Sign(f.Payload, f.Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	d.Write("a.json", partly)
	d.Write("b.json", f.Envelope)
	if r := d.Must("history @a.json @b.json"); !strings.Contains(r.Out, "b.json") || strings.Contains(r.Out, "a.json") {
		t.Errorf("said %q", r.Out)
	}
	d.Refused(exit.Refused, "history @a.json", string(policy.CodeThresholdUnmet))
}

func TestHistoryShowsAChainUpToWhereItBreaks(t *testing.T) {
	d, one := archive(t)
	fork := one.Next(t, func(m *policy.Manifest) { m.Workloads[0].Namespaces = []string{"other"} })
	other := policytest.New(t)
	d.Write("fork.json", fork.Envelope)
	d.Write("other.json", other.Next(t, func(*policy.Manifest) {}).Envelope)
	for line, want := range map[string]struct {
		code  policy.Code
		steps int
	}{
		"history @a/z-first.json @a/second.json @fork.json --operators @operators.json": {policy.CodeManifestForked, 2},
		"history @a/z-first.json @a/a-third.json --operators @operators.json":           {policy.CodeManifestGap, 1},
		"history @a/z-first.json @other.json --operators @operators.json":               {policy.CodeThresholdUnmet, 1},
		"history @other.json --operators @operators.json":                               {policy.CodeThresholdUnmet, 0},
	} {
		r := d.Run(line)
		if r.Code != exit.Refused || !strings.Contains(r.ErrOut, string(want.code)) || strings.Count(r.Out, "sha256:") != want.steps {
			t.Errorf("%s: exit %d, %q, %q; want %s after %d steps", line, r.Code, r.Out, r.ErrOut, want.code, want.steps)
		}
	}
}

func TestHistoryRefusesWhatIsNoHistory(t *testing.T) {
	d, _ := archive(t)
	if err := os.Mkdir(d.Path("empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.Refused(exit.Refused, "history @empty", "no signed manifest")
	d.Refused(exit.Refused, "history @missing", "no such file")
	d.Refused(exit.Refused, "history @a/draft.json", "not signed")
	d.Refused(exit.Refused, "history @a/notes.txt", "not signed")
	d.Refused(exit.Misuse, "history @a @empty", "one folder")
	d.Refused(exit.Misuse, "history", "Usage:")
	d.Refused(exit.Misuse, "history @a --operators @operators.json --threshold 2", "--threshold")
}
