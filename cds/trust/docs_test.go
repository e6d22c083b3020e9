// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestEveryCodeIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/cds-keys.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range []string{"endorsement.go", "countersignature.go", "../beacon/beacon.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range regexp.MustCompile(`Code[A-Z]\w*\s+= "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
			found++
			if !strings.Contains(string(page), "`"+c[1]+"`") {
				t.Errorf("docs/cds-keys.md does not explain %s", c[1])
			}
		}
	}
	if found < 11 {
		t.Errorf("found only %d codes", found)
	}
}
