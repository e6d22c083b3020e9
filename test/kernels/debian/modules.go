// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Module is one kernel module: its name and its file, not compressed.
type Module struct{ Name, File string }

const moduleList = "modules" // of a cached folder: names in the order of loading

// packModules copies modules and what they depend on out of an unpacked kernel.
func packModules(ctx context.Context, tree string, wanted []string, made string) error {
	p := packer{ctx: ctx, made: made, files: map[string]string{}, builtin: map[string]bool{}, done: map[string]bool{}}
	err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if name, ok := moduleName(d.Name()); ok {
			p.files[name] = path
		}
		if d.Name() == "modules.builtin" {
			return p.readBuiltin(path)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing the modules: %w", err)
	}
	for _, name := range wanted {
		if err := p.add(name); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(made, moduleList), []byte(strings.Join(append(p.order, ""), "\n")), 0o644)
}

// moduleName is the kernel's name of a module's file.
func moduleName(file string) (string, bool) {
	stem, ok := strings.CutSuffix(strings.TrimSuffix(file, ".xz"), ".ko")
	return strings.ReplaceAll(stem, "-", "_"), ok
}

type packer struct {
	ctx     context.Context
	made    string
	files   map[string]string
	builtin map[string]bool
	done    map[string]bool
	order   []string
}

func (p *packer) readBuiltin(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(raw)) {
		if name, ok := moduleName(filepath.Base(strings.TrimSpace(line))); ok {
			p.builtin[name] = true
		}
	}
	return nil
}

// add packs a module after those it depends on.
func (p *packer) add(name string) error {
	if p.done[name] || p.builtin[name] {
		return nil
	}
	p.done[name] = true
	file, ok := p.files[name]
	if !ok {
		return fmt.Errorf("the kernel has no module %s", name)
	}
	data, err := p.read(file)
	if err != nil {
		return fmt.Errorf("reading the module %s: %w", name, err)
	}
	deps, err := dependsOn(data)
	if err != nil {
		return fmt.Errorf("reading the module %s: %w", name, err)
	}
	for _, dep := range deps {
		if err := p.add(dep); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	p.order = append(p.order, name)
	return os.WriteFile(filepath.Join(p.made, name+".ko"), data, 0o644)
}

func (p *packer) read(file string) ([]byte, error) {
	if strings.HasSuffix(file, ".xz") {
		return exec.CommandContext(p.ctx, "xz", "-dc", file).Output()
	}
	return os.ReadFile(file)
}

// dependsOn reads "depends=a,b" from a module's section .modinfo, which is a
// list of strings that end with 0.
func dependsOn(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	info := f.Section(".modinfo")
	if info == nil {
		return nil, errors.New("it has no section .modinfo")
	}
	data, err := info.Data()
	if err != nil {
		return nil, err
	}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok {
			return strings.FieldsFunc(strings.ReplaceAll(list, "-", "_"), func(r rune) bool { return r == ',' }), nil
		}
	}
	return nil, nil
}

func readModules(dir string) ([]Module, error) {
	raw, err := os.ReadFile(filepath.Join(dir, moduleList))
	if err != nil {
		return nil, fmt.Errorf("reading the list of modules: %w", err)
	}
	var all []Module
	for _, name := range strings.Fields(string(raw)) {
		all = append(all, Module{name, filepath.Join(dir, name+".ko")})
	}
	return all, nil
}
