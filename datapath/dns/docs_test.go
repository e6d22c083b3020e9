// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"os"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

func TestReasonsAndResultsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/dns.md")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, c := range []policy.Code{codeNotAllowed, codeTooManyNames, codeBlocked, codeNoUpstream} {
		words = append(words, string(c))
	}
	for r := range results {
		words = append(words, r.String())
	}
	for _, w := range words {
		if !strings.Contains(string(page), "`"+w+"`") {
			t.Errorf("docs/dns.md does not explain %s", w)
		}
	}
}
