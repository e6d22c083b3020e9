// SPDX-License-Identifier: Apache-2.0

// Package layers holds the README to its word: packages lower in its table
// never import higher ones, and every package stands in it.
package layers

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "github.com/c8s-dev/c8s/"
)

// table returns the folders of the README's table, row by row.
func table(t *testing.T) (rows [][]string) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(readme), "## Where things are\n")
	section, _, _ = strings.Cut(section, "\n## ")
	folder := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !folder.MatchString(cells[2]) {
			continue
		}
		var row []string
		for _, m := range folder.FindAllStringSubmatch(cells[2], -1) {
			row = append(row, m[1])
		}
		rows = append(rows, row)
	}
	if !found || len(rows) < 10 {
		t.Fatalf("the README's table was not found: %v", rows)
	}
	return rows
}

// rowOf finds the row whose folder holds pkg most closely; -1 if none does.
func rowOf(rows [][]string, pkg string) int {
	best, length := -1, 0
	for i, row := range rows {
		for _, folder := range row {
			if (pkg == folder || strings.HasPrefix(pkg, folder+"/")) && len(folder) > length {
				best, length = i, len(folder)
			}
		}
	}
	return best
}

// imports lists what the files of each package import from this module, tests
// apart.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	tree := os.DirFS(root)
	err := fs.WalkDir(tree, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, foreign := fs.Stat(tree, path.Join(file, "go.mod"))
			if file != "." && (foreign == nil || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := path.Dir(file)
		all[pkg] = append(all[pkg], []string{}...) // also when it imports nothing
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(name, module); ok && !slices.Contains(all[pkg], ours) {
				all[pkg] = append(all[pkg], ours)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d packages were found", len(all))
	}
	return all
}

// forTests reports whether a package exists for tests: it may import anything.
func forTests(pkg string) bool {
	return strings.HasPrefix(pkg, "test/") || strings.HasSuffix(pkg, "test") && path.Base(pkg) != "attest"
}

func TestPackagesImportOnlyLowerOnes(t *testing.T) {
	rows, demo := table(t), "cmd/c8s/internal/demo" // is a test that users run
	for pkg, imported := range imports(t) {
		at := rowOf(rows, pkg)
		if at < 0 {
			t.Errorf("%s stands in no row of the README's table", pkg)
		}
		if forTests(pkg) {
			continue
		}
		for _, other := range imported {
			switch to := rowOf(rows, other); {
			case forTests(other) && pkg != demo:
				t.Errorf("%s, which is no test, imports %s", pkg, other)
			case to < at:
				t.Errorf("%s (row %d of the README's table) imports %s (row %d), which is higher", pkg, at+1, other, to+1)
			}
		}
	}
}
