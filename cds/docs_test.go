// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestEveryCodeIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/cds.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("refusal.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`code[A-Z]\w+\s+= "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(codes) < 10 {
		t.Fatalf("found only %d codes in refusal.go", len(codes))
	}
	for _, c := range codes {
		if !strings.Contains(string(page), "`"+c[1]+"`") {
			t.Errorf("docs/cds.md does not explain %s", c[1])
		}
	}
}
