// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"os"
	"strings"
	"testing"
)

func TestEveryEntryIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/log.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries() {
		row := "| `" + string(e.Type) + "` |"
		_, rest, found := strings.Cut(string(page), row)
		line, _, _ := strings.Cut(rest, "\n")
		if want := "| `" + strings.Join(e.Type.fields(), "`, `") + "` |"; !found || !strings.HasSuffix(line, want) {
			t.Errorf("docs/log.md has no row of %s that ends with %s", row, want)
		}
	}
}

func TestThePageShowsTheCheckpointOfTheVectors(t *testing.T) {
	page, err := os.ReadFile("../../docs/log.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(makeVectors(t).Checkpoint) {
		if line != "\n" && !strings.Contains(string(page), "    "+line) {
			t.Errorf("docs/log.md lacks %s", line)
		}
	}
}
