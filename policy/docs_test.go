// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestEveryCodeIsDocumented(t *testing.T) {
	source, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`Code += "([a-z0-9-]+)"`).FindAllSubmatch(source, -1)
	if len(codes) < 60 {
		t.Errorf("only %d codes were found", len(codes))
	}
	for _, c := range codes {
		if !strings.Contains(string(page), "`"+string(c[1])+"`") {
			t.Errorf("docs/policy.md does not list %s", c[1])
		}
	}
}
