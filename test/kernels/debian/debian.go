// SPDX-License-Identifier: Apache-2.0

// Package debian fetches kernels of Debian's suites without installing
// anything: apt gets its own sources, lists and cache, and checks Debian's
// signatures as ever.
//
// Invariant: a folder of the cache is named after all that made it, appears
// whole or not at all, and is never changed.
package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Defaults of a Source.
const (
	DefaultMirror = "http://deb.debian.org/debian"
	keyring       = "/usr/share/keyrings/debian-archive-keyring.gpg"
	metapackage   = "linux-image-cloud-amd64" // depends on the suite's newest
	// selectionAge is how long the newest kernel of a suite is not asked for again.
	selectionAge = 24 * time.Hour
	layout       = "1" // of a cached folder; part of its name
)

// Source is where kernels come from.
type Source struct {
	Cache  string // folder, made if missing
	Mirror string
	Log    *slog.Logger
}

// Kernel is a kernel and the modules that were asked for.
type Kernel struct {
	Package string // "linux-image-6.1.0-50-cloud-amd64"
	Image   string // file
	Modules []Module
}

// Fetch returns the newest kernel of a suite with modules and what they depend
// on. Modules that the kernel has built in are left out.
func (s Source) Fetch(ctx context.Context, suite string, modules []string) (*Kernel, error) {
	k, err := s.fetch(ctx, suite, modules)
	if err != nil {
		return nil, fmt.Errorf("fetching the kernel of %s: %w", suite, err)
	}
	return k, nil
}

func (s Source) fetch(ctx context.Context, suite string, modules []string) (*Kernel, error) {
	apt, err := s.newApt(suite)
	if err != nil {
		return nil, err
	}
	packages, err := s.selection(ctx, apt)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(fmt.Append(nil, layout, packages, modules))
	dir := filepath.Join(s.Cache, strings.TrimPrefix(packages[0].name, "linux-image-")+"-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := s.unpack(ctx, apt, packages, modules, dir); err != nil {
			return nil, err
		}
	}
	list, err := readModules(dir)
	if err != nil {
		return nil, err
	}
	return &Kernel{Package: packages[0].name, Image: filepath.Join(dir, "vmlinuz"), Modules: list}, nil
}

// selection says which packages are the newest kernel. It asks once a day, and
// without a network goes on with what it knew.
func (s Source) selection(ctx context.Context, a *apt) ([]debPackage, error) {
	file := filepath.Join(a.dir, "selected")
	known, err := readSelection(file)
	if st, statErr := os.Stat(file); err == nil && statErr == nil && time.Since(st.ModTime()) < selectionAge {
		return known, nil
	}
	fresh, askErr := a.newest(ctx)
	if askErr != nil && err == nil {
		s.Log.Warn("the suite cannot be asked for its newest kernel; going on with the one known", "suite", a.suite, "kernel", known[0].name, "err", askErr)
		return known, nil
	}
	if askErr != nil {
		return nil, askErr
	}
	return fresh, writeSelection(file, fresh)
}

// unpack downloads the packages and makes dir of them.
func (s Source) unpack(ctx context.Context, a *apt, packages []debPackage, modules []string, dir string) error {
	tmp, err := os.MkdirTemp(s.Cache, ".unpack-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(tmp)
	s.Log.Info("downloading", "suite", a.suite, "kernel", packages[0].name)
	debs, err := a.download(ctx, tmp, packages)
	if err != nil {
		return err
	}
	tree, made := filepath.Join(tmp, "tree"), filepath.Join(tmp, "made")
	for _, deb := range debs {
		if err := run(exec.CommandContext(ctx, "dpkg-deb", "-x", deb, tree)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(made, 0o755); err != nil {
		return err
	}
	image, err := find(tree, "boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz")
	if err != nil {
		return err
	}
	if err := os.Rename(image, filepath.Join(made, "vmlinuz")); err != nil {
		return err
	}
	if err := packModules(ctx, tree, modules, made); err != nil {
		return err
	}
	if err := os.Rename(made, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return err // another run may have been quicker
	}
	return nil
}

// find is the one file that one of the patterns below root matches.
func find(root string, patterns ...string) (string, error) {
	var all []string
	for _, p := range patterns {
		found, err := filepath.Glob(filepath.Join(root, p))
		if err != nil {
			return "", err
		}
		all = append(all, found...)
	}
	if len(all) != 1 {
		return "", fmt.Errorf("found %q instead of one file like %s", all, strings.Join(patterns, " or "))
	}
	return all[0], nil
}

func run(c *exec.Cmd) error {
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(c.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// A selection is a file of lines "name sha256", the image first.
func writeSelection(file string, packages []debPackage) error {
	var b strings.Builder
	for _, p := range packages {
		fmt.Fprintln(&b, p.name, p.sum)
	}
	if err := os.WriteFile(file+"_new", []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(file+"_new", file)
}

func readSelection(file string) ([]debPackage, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []debPackage
	for line := range strings.Lines(string(raw)) {
		words := strings.Fields(line)
		if len(words) != 2 || !strings.HasPrefix(words[0], "linux-") {
			return nil, fmt.Errorf("%s: not a line of a selection: %q", file, line)
		}
		all = append(all, debPackage{words[0], words[1]})
	}
	if len(all) == 0 || !strings.HasPrefix(all[0].name, "linux-image-") || slices.ContainsFunc(all, func(p debPackage) bool { return strings.ContainsRune(p.name, '/') }) {
		return nil, fmt.Errorf("%s: it names no kernel", file)
	}
	return all, nil
}
