// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// debPackage is one package; sum is the SHA-256 of its file.
type debPackage struct{ name, sum string }

// apt is apt with one suite and folders of its own.
type apt struct {
	suite, dir string
	options    []string
}

func (s Source) newApt(suite string) (*apt, error) {
	a := &apt{suite: suite, dir: filepath.Join(s.Cache, "apt", suite)}
	for _, sub := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("making a folder for apt: %w", err)
		}
	}
	sources := filepath.Join(a.dir, "sources.list")
	line := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, cmp.Or(s.Mirror, DefaultMirror), suite)
	if err := os.WriteFile(sources, []byte(line), 0o644); err != nil {
		return nil, fmt.Errorf("writing apt's sources: %w", err)
	}
	for _, o := range []string{
		"Dir::Etc::sourcelist=" + sources, "Dir::Etc::sourceparts=-", "Dir::State::lists=" + filepath.Join(a.dir, "lists"),
		"Dir::Cache=" + filepath.Join(a.dir, "cache"), "Acquire::Languages=none", "APT::Architecture=amd64",
		"APT::Sandbox::User=root", // apt's own user may not write below a home folder
	} {
		a.options = append(a.options, "-o", o)
	}
	return a, nil
}

func (a *apt) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, program, append(append([]string(nil), a.options...), args...)...)
	c.Env = append(os.Environ(), "LC_ALL=C")
	return c
}

func (a *apt) output(ctx context.Context, program string, args ...string) (string, error) {
	out, err := a.command(ctx, program, args...).Output()
	if err != nil {
		detail := ""
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			detail = strings.TrimSpace(string(exit.Stderr))
		}
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, detail)
	}
	return string(out), nil
}

var (
	imageName = regexp.MustCompile(`^linux-image-[0-9]\S*-cloud-amd64$`)
	// Since Debian 13 backports, image packages are empty and depend on these.
	partName = regexp.MustCompile(`^linux-(binary|modules)-[0-9]\S*-cloud-amd64$`)
)

// newest lists the packages of the suite's newest kernel, the image first.
func (a *apt) newest(ctx context.Context) ([]debPackage, error) {
	if err := run(a.command(ctx, "apt-get", "update", "-qq", "--error-on=any")); err != nil {
		return nil, err
	}
	images, err := a.dependencies(ctx, metapackage, imageName)
	if err != nil {
		return nil, err
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("%s depends on %q instead of on one kernel", metapackage, images)
	}
	parts, err := a.dependencies(ctx, images[0], partName)
	if err != nil {
		return nil, err
	}
	var all []debPackage
	for _, name := range append(images, parts...) {
		text, err := a.output(ctx, "apt-cache", "show", "--no-all-versions", name)
		if err != nil {
			return nil, err
		}
		sum := field(text, "SHA256")
		if sum == "" {
			return nil, fmt.Errorf("apt does not say the SHA-256 of %s", name)
		}
		all = append(all, debPackage{name, sum})
	}
	return all, nil
}

func (a *apt) dependencies(ctx context.Context, name string, like *regexp.Regexp) (found []string, err error) {
	text, err := a.output(ctx, "apt-cache", "depends", "--important", name)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		if dep, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && like.MatchString(dep) {
			found = append(found, dep)
		}
	}
	return found, nil
}

// field is a field of a control stanza (deb822(5)).
func field(stanza, name string) string {
	for line := range strings.Lines(stanza) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// download puts the packages' files into dir; apt checks them.
func (a *apt) download(ctx context.Context, dir string, packages []debPackage) ([]string, error) {
	args := []string{"download", "-qq"}
	for _, p := range packages {
		args = append(args, p.name)
	}
	c := a.command(ctx, "apt-get", args...)
	c.Dir = dir
	if err := run(c); err != nil {
		return nil, err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err == nil && len(debs) != len(packages) {
		err = fmt.Errorf("apt-get downloaded %q for %v", debs, packages)
	}
	return debs, err
}
