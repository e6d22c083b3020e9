// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestParseReadsDescribedValues(t *testing.T) {
	got, err := parse("enum c8s_reason {\n\t/* Fine. */\n\tC8S_ALLOWED = 0,\n\n\t/* Not TCP. */\n\tC8S_IP_OPTIONS,\n\tC8S_REASON_COUNT,\n};\n")
	if err != nil || len(got) != 2 || got[1] != (reason{"ip-options", "ReasonIPOptions", "Not TCP."}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for name, src := range map[string]string{
		"no enum":        "int x;",
		"no end":         "enum c8s_reason {",
		"no description": "enum c8s_reason {\nC8S_A,\nC8S_REASON_COUNT,\n};",
		"no count":       "enum c8s_reason {\n/* A. */\nC8S_A,\n};",
		"foreign value":  "enum c8s_reason {\n/* A. */\nC8S_A = 5,\nC8S_REASON_COUNT,\n};",
	} {
		if got, err := parse(src); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
