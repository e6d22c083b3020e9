// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

func TestEveryReasonIsDocumented(t *testing.T) {
	files, err := filepath.Glob("*.go")
	must(t, err)
	var source []byte
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		must(t, err)
		source = append(source, text...)
	}
	pages := ""
	for _, name := range []string{"../docs/datapath.md", "../docs/tunnel.md"} {
		page, err := os.ReadFile(name)
		must(t, err)
		pages += string(page)
	}
	var reasons []string
	for _, m := range regexp.MustCompile(`reason[A-Za-z]+ += "([a-z-]+)"`).FindAllSubmatch(source, -1) {
		reasons = append(reasons, string(m[1]))
	}
	if len(reasons) < 20 {
		t.Errorf("only %d reasons were found", len(reasons))
	}
	for _, kind := range policy.DenyKinds() {
		reasons = append(reasons, "denied-"+string(kind))
	}
	for _, r := range reasons {
		if !strings.Contains(pages, "`"+r+"`") {
			t.Errorf("neither docs/datapath.md nor docs/tunnel.md explains %s", r)
		}
	}
}
