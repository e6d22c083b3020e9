// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Limits of containerd's configuration, and its names.
const (
	maxConfig    = 4 << 20
	maxImports   = 64
	oldest       = 2 // version of the configuration that containerd 2.0 still reads
	newest       = 4 // containerd 2.3 and later
	fresh        = 3 // what is written where there is none: read by 2.0 and later
	sectionCRI   = "io.containerd.cri.v1.runtime"
	sectionCRIv2 = "io.containerd.grpc.v1.cri"
	sectionNRI   = "io.containerd.nri.v1.nri"
	shimRunc     = "io.containerd.runc.v2"
	handlerRunc  = "runc" // there without being configured
	defaultRoot  = "/var/lib/containerd"
	defaultState = "/run/containerd"
	criFolder    = "io.containerd.grpc.v1.cri" // below root and state, also in version 2 and later
)

// containerd is what its configuration says without C8s, as far as it matters.
type containerd struct {
	version  int
	root     string
	state    string
	disabled []string
	cri      map[string]any
	nri      map[string]any
}

// config is one file.
type config struct {
	Version  int            `toml:"version"`
	Root     string         `toml:"root"`
	State    string         `toml:"state"`
	Imports  []string       `toml:"imports"`
	Disabled []string       `toml:"disabled_plugins"`
	Plugins  map[string]any `toml:"plugins"`
}

func parseConfig(data []byte) (*config, error) {
	if len(data) > maxConfig {
		return nil, fmt.Errorf("larger than %d bytes", maxConfig)
	}
	var c config
	if err := toml.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	return &c, nil
}

// readContainerd reads the configuration as it would be without C8s.
func (p *Plan) readContainerd(d disk, l Layout) (*containerd, error) {
	return p.readFiles(d, l, map[string]bool{l.DropIn(): true})
}

// readAll reads the configuration as containerd does.
func (p *Plan) readAll(d disk, l Layout) (*containerd, error) {
	return p.readFiles(d, l, map[string]bool{})
}

// readFiles reads the main configuration and what it imports, in containerd's
// order: breadth first, later files win, tables are merged.
func (p *Plan) readFiles(d disk, l Layout, seen map[string]bool) (*containerd, error) {
	out := &containerd{version: fresh, root: defaultRoot, state: defaultState, cri: map[string]any{}, nri: map[string]any{}}
	queue := []string{l.ContainerdConfig}
	for len(queue) > 0 {
		file := queue[0]
		queue = queue[1:]
		if seen[file] {
			continue
		}
		if seen[file] = true; len(seen) > maxImports {
			return nil, fmt.Errorf("reading containerd's configuration: more than %d files", maxImports)
		}
		before, _, err := p.record.look(d, file)
		if err != nil {
			return nil, fmt.Errorf("reading containerd's configuration: %w", err)
		}
		if before == nil {
			continue
		}
		c, err := parseConfig(before.data)
		if err != nil {
			return nil, fmt.Errorf("reading containerd's configuration %s: %w", file, err)
		}
		if file == l.ContainerdConfig {
			if c.Version < oldest || c.Version > newest {
				return nil, fmt.Errorf("reading containerd's configuration %s: its version is %d, expected %d to %d; C8s needs containerd 2.0 or newer, 'containerd config migrate' brings an older file forward",
					file, c.Version, oldest, newest)
			}
			out.version = c.Version
		}
		out.merge(c)
		more, err := importsOf(d, file, c.Imports)
		if err != nil {
			return nil, fmt.Errorf("reading containerd's configuration %s: %w", file, err)
		}
		queue = append(queue, more...)
	}
	return out, nil
}

func (o *containerd) merge(c *config) {
	if c.Root != "" {
		o.root = c.Root
	}
	if c.State != "" {
		o.state = c.State
	}
	o.disabled = append(o.disabled, c.Disabled...)
	for section, into := range map[string]map[string]any{sectionCRIv2: o.cri, sectionCRI: o.cri, sectionNRI: o.nri} {
		if from, ok := c.Plugins[section].(map[string]any); ok {
			mergeTable(into, from)
		}
	}
}

func mergeTable(into, from map[string]any) {
	for key, v := range from {
		have, both := into[key].(map[string]any)
		add, ok := v.(map[string]any)
		if both && ok {
			mergeTable(have, add)
			continue
		}
		if ok { // a copy: it may be merged into later
			have = map[string]any{}
			mergeTable(have, add)
			v = have
		}
		into[key] = v
	}
}

// importsOf resolves imports as containerd does: relative to the file, with
// patterns.
func importsOf(d disk, file string, imports []string) ([]string, error) {
	var out []string
	for _, imp := range imports {
		if imp = path.Clean(imp); !path.IsAbs(imp) {
			imp = path.Join(path.Dir(file), imp)
		}
		if !strings.Contains(imp, "*") {
			out = append(out, imp)
			continue
		}
		dir, pattern := path.Split(imp)
		if strings.Contains(dir, "*") {
			return nil, fmt.Errorf("it imports %s: patterns of folders are not understood; name the folder", imp)
		}
		names, err := d.list(path.Clean(dir))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			ok, err := path.Match(pattern, name)
			if err != nil {
				return nil, fmt.Errorf("it imports %s: %w", imp, err)
			}
			if ok {
				out = append(out, dir+name)
			}
		}
	}
	return out, nil
}

func table(t map[string]any, keys ...string) map[string]any {
	for _, k := range keys {
		t, _ = t[k].(map[string]any)
	}
	return t
}

func text(t map[string]any, key string) string {
	s, _ := t[key].(string)
	return s
}

// handler is one runtime of the CRI.
type handler struct {
	name   string
	binary string // as configured; empty: runc in containerd's PATH
	typed  bool   // the configuration names its type
}

// handlers returns the runtimes by name. Every one must start its containers
// through a program that can be put behind c8s-runtime.
func (o *containerd) handlers() ([]handler, error) {
	all := table(o.cri, "containerd", "runtimes")
	names := slices.Collect(maps.Keys(all))
	if !slices.Contains(names, handlerRunc) {
		names = append(names, handlerRunc)
	}
	slices.Sort(names)
	var out []handler
	var errs []error
	for _, name := range names {
		t := table(all, name)
		shim := text(t, "runtime_type")
		known := shim == shimRunc || shim == "" && name == handlerRunc
		if !known || text(t, "runtime_path") != "" {
			errs = append(errs, fmt.Errorf("containerd's runtime %q is of type %q, path %q: expected %s and no path, since nothing would check the containers it starts; remove it from the configuration",
				name, shim, text(t, "runtime_path"), shimRunc))
			continue
		}
		if text(t, "cni_conf_dir") != "" {
			errs = append(errs, fmt.Errorf("containerd's runtime %q has network configurations of its own in %q: expected none, since c8s-cni would not be in them; remove cni_conf_dir", name, text(t, "cni_conf_dir")))
		}
		out = append(out, handler{name, text(table(t, "options"), "BinaryName"), shim != ""})
	}
	return out, errors.Join(errs...)
}

// check refuses a configuration under which the drop-in could not do its work.
func (o *containerd) check() error {
	var errs []error
	for _, plugin := range o.disabled {
		if slices.Contains([]string{sectionCRI, sectionCRIv2, sectionNRI}, plugin) {
			errs = append(errs, fmt.Errorf("containerd's disabled_plugins names %s: expected that it is enabled; take it out of the list", plugin))
		}
	}
	if n, ok := table(o.cri, "cni")["max_conf_num"].(int64); ok && n != 1 {
		errs = append(errs, fmt.Errorf("containerd's cni.max_conf_num is %d: expected 1, since c8s-cni locks one network of a pod; remove the line", n))
	}
	return errors.Join(errs...)
}

// cniDirs returns the folders of network configurations and of plugins.
func (o *containerd) cniDirs() (conf, bin string) {
	conf, bin = "/etc/cni/net.d", "/opt/cni/bin"
	cni := table(o.cri, "cni")
	if v := text(cni, "conf_dir"); v != "" {
		conf = v
	}
	if v := text(cni, "bin_dir"); v != "" {
		bin = v
	}
	if all, ok := cni["bin_dirs"].([]any); ok && len(all) > 0 {
		if v, ok := all[0].(string); ok {
			bin = v
		}
	}
	return conf, bin
}

// runc finds the program behind the handlers. One c8s-runtime serves them all
// and is not told which was asked for, so there can be one program only.
func runc(d disk, handlers []handler, chosen string) (string, error) {
	binary := chosen
	for i, h := range handlers {
		switch {
		case chosen != "":
		case i > 0 && h.binary != binary:
			return "", fmt.Errorf("containerd's runtimes %q and %q start different programs, %q and %q: expected one; name the one for all with --runc", handlers[0].name, h.name, binary, h.binary)
		default:
			binary = h.binary
		}
	}
	if binary == "" {
		binary = "runc"
	}
	if strings.Contains(binary, "/") {
		if !path.IsAbs(binary) {
			return "", fmt.Errorf("the runtime %q: expected an absolute path; give it with --runc", binary)
		}
		return binary, mustExist(d, binary)
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		c, err := d.read(path.Join(dir, binary))
		if err != nil {
			return "", err
		}
		if c != nil {
			return path.Join(dir, binary), nil
		}
	}
	return "", fmt.Errorf("the runtime %q is in none of the node's folders of programs; name it with --runc", binary)
}

func mustExist(d disk, file string) error {
	c, err := d.read(file)
	if err == nil && c == nil {
		err = fmt.Errorf("the runtime %s is not there; name the right one with --runc", file)
	}
	return err
}
