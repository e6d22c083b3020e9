// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/c8s-dev/c8s/test/kernels/cpio"
	"github.com/c8s-dev/c8s/test/kernels/debian"
	"github.com/c8s-dev/c8s/test/kernels/guest"
	"github.com/c8s-dev/c8s/test/privileged"
)

// Folders in the guest.
const (
	guestSource = "/src" // the module's root; tests run in their package's folder
	guestTests  = "/tests"
	guestC8s    = "/tests/c8s"
)

// builds are the programs made of this module for the guests.
type builds struct {
	root, dir string
	init      string
	c8s       string // only for e2e
	tests     []builtTest
}

type builtTest struct {
	binary
	file string
}

// build compiles the guest's first process and the tests, static.
func build(ctx context.Context, dir string, wanted []binary) (*builds, error) {
	root, err := output(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	b := &builds{root: root, dir: dir, init: filepath.Join(dir, "init")}
	if err := b.goCommand(ctx, "build", "-o", b.init, "./test/kernels/init"); err != nil {
		return nil, err
	}
	for _, w := range wanted {
		t := builtTest{w, filepath.Join(dir, strings.ReplaceAll(w.pkg, "/", "-")+".test")}
		if err := b.goCommand(ctx, "test", "-c", "-vet=off", "-o", t.file, "./"+w.pkg); err != nil {
			return nil, err
		}
		if w.pkg == "test/e2e" {
			b.c8s = filepath.Join(dir, "c8s")
			if err := b.goCommand(ctx, "build", "-o", b.c8s, "./cmd/c8s"); err != nil {
				return nil, err
			}
		}
		b.tests = append(b.tests, t)
	}
	return b, nil
}

func (b *builds) goCommand(ctx context.Context, verb string, args ...string) error {
	c := exec.CommandContext(ctx, "go", append([]string{verb, "-trimpath", "-ldflags=-s -w"}, args...)...)
	c.Dir, c.Env = b.root, append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("building for the guests: %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// writeImage writes the guest's whole file system: it is unpacked into memory,
// so there is no disk.
func (b *builds) writeImage(ctx context.Context, file string, k *debian.Kernel) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	buffered := bufio.NewWriterSize(f, 1<<20)
	w := cpio.NewWriter(buffered)
	w.File("/init", b.init)
	plan := guest.Plan{Env: []string{
		"PATH=/usr/sbin:/usr/bin", "HOME=/tmp", "TMPDIR=/tmp", privileged.RequireEnv + "=1", "C8S_KERNEL_GUEST=1", "C8S_E2E_BINARY=" + guestC8s,
	}}
	for _, m := range k.Modules {
		w.File(guest.ModuleDir+"/"+m.Name+".ko", m.File)
		plan.Modules = append(plan.Modules, m.Name)
	}
	if err := addPrograms(ctx, w); err != nil {
		return err
	}
	if b.c8s != "" {
		w.File(guestC8s, b.c8s)
	}
	for _, t := range b.tests {
		s := guest.Suite{Name: t.pkg, Path: guestTests + "/" + filepath.Base(t.file), Dir: guestSource + "/" + t.pkg, Run: t.run, Skip: t.skip, Limit: t.limit}
		plan.Suites = append(plan.Suites, s)
		w.File(s.Path, t.file)
		if err := b.addFiles(w, t.binary); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	w.Data(guest.PlanFile, 0o644, string(raw))
	if err := w.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// addFiles adds a package's testdata and the other files it reads.
func (b *builds) addFiles(w *cpio.Writer, t binary) error {
	w.Dir(guestSource + "/" + t.pkg)
	for _, name := range t.files {
		w.File(guestSource+"/"+name, filepath.Join(b.root, name))
	}
	data := filepath.Join(b.root, t.pkg, "testdata")
	if _, err := os.Stat(data); err != nil {
		return nil //nolint:nilerr // most have none
	}
	return filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(b.root, path)
		w.File(guestSource+"/"+name, path)
		return err
	})
}

// addPrograms adds this machine's programs with the libraries they load.
func addPrograms(ctx context.Context, w *cpio.Writer) error {
	added := map[string]bool{}
	for _, name := range append([]string{"busybox"}, programs...) {
		path, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("%w (run \"hack/deps kernels\")", err)
		}
		w.File("/usr/bin/"+name, path)
		libraries, err := libraries(ctx, path)
		if err != nil {
			return err
		}
		for _, lib := range libraries {
			if !added[lib] {
				added[lib] = true
				w.File(lib, lib)
			}
		}
	}
	for _, name := range applets {
		w.Link("/usr/bin/"+name, "busybox")
	}
	w.Link("/bin", "usr/bin")
	return nil
}

// libraries are the files that ldd(1) names; a static program has none.
func libraries(ctx context.Context, program string) (files []string, err error) {
	out, err := exec.CommandContext(ctx, "ldd", program).CombinedOutput()
	if strings.Contains(string(out), "not a dynamic executable") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w: %s", program, err, out)
	}
	for line := range strings.Lines(string(out)) {
		for word := range strings.FieldsSeq(line) {
			if strings.HasPrefix(word, "/") {
				files = append(files, word)
			}
		}
	}
	return files, nil
}
