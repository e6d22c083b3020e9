// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestDocsHaveEveryCodeAndMetric(t *testing.T) {
	page, err := os.ReadFile("../docs/ingress.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("problem.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`(?m)^\tcode\w+ += "([a-z-]+)"$`).FindAllSubmatch(source, -1)
	if len(codes) < 10 {
		t.Fatalf("only %d codes were found", len(codes))
	}
	for _, c := range codes {
		if !strings.Contains(string(page), "`"+string(c[1])+"`") {
			t.Errorf("docs/ingress.md lacks the code %s", c[1])
		}
	}
	source, err = os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`counter\("(\w+)"`).FindAllSubmatch(source, -1) {
		if name := string(m[1]); !strings.Contains(string(page), "c8s_ingress_"+name) {
			t.Errorf("docs/ingress.md lacks the metric c8s_ingress_%s", name)
		}
	}
}
