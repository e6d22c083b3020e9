// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

func TestEveryCodeIsOnThePage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "nri.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []policy.Code{
		CodeManifestMissing, CodeForeignContainer, CodeConfigUnreadable, CodeImageUnknown, CodePodUnknown,
		CodePodRefused, CodeContainerUnknown, CodeSandboxSetting, CodePodNotOpen, CodeUpdateNotAllowed,
	} {
		if !strings.Contains(string(page), "`"+string(code)+"`") {
			t.Errorf("docs/nri.md does not list %q", code)
		}
	}
}
