// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

func TestOnlyAConcludedVerdictWithChecksIsAccepted(t *testing.T) {
	pass := Check{ID: "a", Status: Pass}
	for name, c := range map[string]struct {
		verdict *Verdict
		code    string // "" is accepted
	}{
		"nil":                      {nil, "not-appraised"},
		"zero":                     {&Verdict{}, "not-appraised"},
		"OK without checks":        {&Verdict{OK: true, Code: CodeAccepted}, "not-appraised"},
		"passed":                   {&Verdict{OK: true, Code: CodeAccepted, Checks: []Check{pass, {ID: "b", Status: NotApplicable}}}, ""},
		"passed, not concluded":    {&Verdict{Checks: []Check{pass}}, "not-appraised"},
		"OK with a failed check":   {&Verdict{OK: true, Code: CodeAccepted, Checks: []Check{pass, {ID: "b", Status: Fail}}}, "not-appraised"},
		"check without a status":   {&Verdict{OK: true, Code: CodeAccepted, Checks: []Check{{ID: "b"}}}, "not-appraised"},
		"failed with its own code": {&Verdict{Code: "finer", Checks: []Check{pass, {ID: "b", Code: "finer", Status: Fail}}}, "finer"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.verdict.Err()
			var refused *RefusedError
			switch {
			case c.code == "" && err != nil:
				t.Error(err)
			case c.code != "" && (!errors.As(err, &refused) || refused.Code != c.code):
				t.Errorf("got %v, want code %q", err, c.code)
			}
		})
	}
}

func TestConcludeTakesTheFirstFailure(t *testing.T) {
	v := &Verdict{Checks: []Check{{ID: "a", Status: Pass}, {ID: "b", Status: Fail, Code: "b-code"}, {ID: "c", Status: Fail}}}
	v.Conclude()
	if v.OK || v.Code != "b-code" {
		t.Errorf("got %v %q", v.OK, v.Code)
	}
	v.Checks = []Check{{ID: "c", Status: Fail}}
	if v.Conclude(); v.Code != "c" {
		t.Errorf("a failure without a code is %q", v.Code)
	}
	if v.Checks = nil; true {
		v.Conclude()
	}
	if v.OK {
		t.Error("no checks were accepted")
	}
}

func TestVerdictReadsWellAndCannotBeUsedToForgeLines(t *testing.T) {
	v := &Verdict{SubstrateFacts: policy.SubstrateFacts{Simulated: true}, Checks: []Check{
		{ID: "measurement", Status: Fail, Expected: strings.Repeat("a", 96), Actual: "x\nACCEPTED\x1b[2J", Source: "s", Remedy: "do this"},
	}}
	v.Conclude()
	s := v.String()
	for _, want := range []string{"REFUSED (measurement)", "SIMULATED", "do this", "…", "x?ACCEPTED?[2J"} {
		if !strings.Contains(s, want) {
			t.Errorf("%q is missing in\n%s", want, s)
		}
	}
	if b, err := json.Marshal(v); err != nil || !strings.Contains(string(b), `"status":"fail"`) {
		t.Errorf("JSON: %s, %v", b, err)
	}
	var none *Verdict
	if !strings.HasPrefix(none.String(), "REFUSED") {
		t.Error("no verdict does not read as a refusal")
	}
}
