// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"regexp"
	"strings"
	"testing"
)

func TestEveryCodeAndMetricIsDocumented(t *testing.T) {
	page := string(mustRead(t, "../../docs/ingress-certificates.md"))
	for file, form := range map[string]string{"refusal.go": `(?m)^\tCode\w+ += "([a-z-]+)"`, "metrics.go": `"((?:certificate|tls)_[a-z_]+)"`} {
		found := regexp.MustCompile(form).FindAllStringSubmatch(string(mustRead(t, file)), -1)
		if len(found) < 4 {
			t.Errorf("%s: only %v", file, found)
		}
		for _, m := range found {
			if !strings.Contains(page, "`"+m[1]) && !strings.Contains(page, "`c8s_ingress_"+m[1]) {
				t.Errorf("%s is not on the page", m[1])
			}
		}
	}
}
