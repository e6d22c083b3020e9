// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// confName is the name that a chained configuration has: a single plugin's
// becomes a list, at the same place in the order of names.
func confName(name string) string {
	return strings.TrimSuffix(name, path.Ext(name)) + extConflist
}

// planCNI adds the chaining of the network configuration that containerd would
// use without C8s: the first by name. It reports whether there is one.
func (p *Plan) planCNI(d disk, dir, gate string) (bool, error) {
	first, all, err := p.firstConf(d, dir)
	if err != nil || first == "" {
		return false, err
	}
	list := confName(first)
	if list != first && slices.Contains(all, list) {
		return false, fmt.Errorf("chaining %s: %s has to become %s, and a file of this name is there; remove one of them", cniProgName, path.Join(dir, first), list)
	}
	file := path.Join(dir, first)
	from, err := p.withoutUs(d, file)
	if err != nil {
		return false, err
	}
	c, err := parseConflist(first, from.data)
	if err != nil {
		return false, fmt.Errorf("chaining %s into %s: %w", cniProgName, file, err)
	}
	text, err := c.chain(gate)
	if err != nil {
		return false, fmt.Errorf("chaining %s into %s: %w", cniProgName, file, err)
	}
	after := &content{text, from.mode, from.uid, from.gid}
	now, err := d.read(path.Join(dir, list))
	if err != nil {
		return false, err
	}
	if now != nil && list == first {
		// Its owner may spell it differently and keep c8s-cni: no need to insist.
		if c, err := parseConflist(list, now.data); err == nil && c.chained(gate) {
			after = now
		}
	}
	err = p.want(d, path.Join(dir, list), kindChain, func(*content) (*content, error) { return after, nil })
	if err != nil || list == first {
		return true, err
	}
	// The list first, then the single one goes: one of them is always there.
	return true, p.want(d, file, kindChain, func(*content) (*content, error) { return nil, nil })
}

// lookConf is look for network configurations: others copy what they find there,
// c8s-cni included.
func (p *Plan) lookConf(d disk, file string) (before, now *content, err error) {
	before, now, err = p.record.look(d, file)
	if err != nil || before == nil {
		return nil, now, err
	}
	c, err := parseConflist(file, before.data)
	if err != nil || c.ours == 0 {
		return before, now, nil // whether it can be used is for the caller to find
	}
	text, err := c.unchain()
	if err != nil {
		return nil, nil, fmt.Errorf("taking %s out of %s: %w", cniProgName, file, err)
	}
	return &content{text, before.mode, before.uid, before.gid}, now, nil
}

// firstConf finds the first configuration by name, as if C8s were not there.
func (p *Plan) firstConf(d disk, dir string) (string, []string, error) {
	names, err := d.list(dir)
	if err != nil {
		return "", nil, err
	}
	for _, e := range p.record.Files {
		if path.Dir(e.Path) == dir && !slices.Contains(names, path.Base(e.Path)) {
			names = append(names, path.Base(e.Path))
		}
	}
	slices.Sort(names)
	var there []string
	for _, name := range names {
		if !isConf(name) {
			continue
		}
		before, err := p.withoutUs(d, path.Join(dir, name))
		if err != nil {
			return "", nil, err
		}
		if before != nil {
			there = append(there, name)
		}
	}
	if len(there) == 0 {
		return "", nil, nil
	}
	return there[0], there, nil
}

// withoutUs is what a configuration would be without C8s. One that became a
// list is gone for good if its owner removed the list.
func (p *Plan) withoutUs(d disk, file string) (*content, error) {
	before, now, err := p.lookConf(d, file)
	if err != nil || now != nil || before == nil {
		return before, err
	}
	list := p.record.find(path.Join(path.Dir(file), confName(path.Base(file))))
	if list == nil || list.Path == file {
		return before, nil
	}
	made, err := d.read(list.Path)
	if err != nil || !list.ours(made) {
		return nil, err
	}
	return before, nil
}
