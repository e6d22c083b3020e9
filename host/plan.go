// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Node is a machine whose files are to be changed.
type Node struct {
	Layout
	disk disk
}

// Open takes the node as it is; it changes nothing.
func Open(l Layout) (*Node, error) {
	root := trimRoot(l.Root)
	if info, err := os.Stat(root + "/"); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("opening the node's root %s: %w", l.Root, errors.Join(err, errNotFolder(info)))
	}
	for name, p := range map[string]string{
		"containerd's configuration": l.ContainerdConfig, "the run folder": l.RunDir, "the state folder": l.StateDir, "containerd's socket": l.Containerd,
	} {
		if !path.IsAbs(p) {
			return nil, fmt.Errorf("opening the node: %s must be an absolute path, not %q", name, p)
		}
	}
	return &Node{l, node{root}}, nil
}

func trimRoot(root string) string { return strings.TrimRight(root, "/") }

func errNotFolder(info os.FileInfo) error {
	if info != nil && !info.IsDir() {
		return syscall.ENOTDIR
	}
	return nil
}

// own is a file that belongs to root, or to whoever runs a test.
func own(data []byte, mode os.FileMode) *content {
	return &content{data, mode, os.Geteuid(), os.Getegid()}
}

// change is one file on its way from what it is now to what it shall be.
type change struct {
	path   string
	kind   kind
	before *content // what it would be without C8s
	now    *content
	after  *content
}

// Plan is what an installation would change.
type Plan struct {
	// Network says whether there is a network configuration to chain c8s-cni
	// into. Where there is none yet, the daemon does it when there is.
	Network bool

	changes []change // in the order in which to make them
	record  *record

	overwritten []string
}

// Changes says whether the node differs from what it shall be.
func (p *Plan) Changes() bool {
	return p.Count() > 0
}

// Diff shows the changes as a unified diff; programs as one line each.
func (p *Plan) Diff() string {
	var b strings.Builder
	for _, c := range p.changes {
		if !c.now.same(c.after) {
			b.WriteString(diff(c.path, c.now, c.after))
		}
	}
	return b.String()
}

// look finds out what a file is, and what it would be without C8s.
func (r *record) look(d disk, file string) (before, now *content, err error) {
	if now, err = d.read(file); err != nil {
		return nil, nil, err
	}
	e := r.find(file)
	switch {
	case e == nil:
		return now, now, nil
	case e.ours(now):
		before, err = restore(d, e.Before)
		if err != nil {
			return nil, nil, fmt.Errorf("finding what %s was before C8s: %w", file, err)
		}
		return before, now, nil
	case e.Kind == kindOwn && e.Before == nil:
		return nil, now, nil
	}
	return now, now, nil // rewritten by others: that is what it is without C8s
}

// want adds a file to the plan.
func (p *Plan) want(d disk, file string, k kind, edit func(before *content) (*content, error)) error {
	look := p.record.look
	if k == kindChain {
		look = p.lookConf
	}
	before, now, err := look(d, file)
	if err != nil {
		return err
	}
	after, err := edit(before)
	if err != nil {
		return err
	}
	if e := p.record.find(file); e != nil && !e.ours(now) && !now.same(after) {
		p.overwritten = append(p.overwritten, file)
	}
	p.changes = append(p.changes, change{file, k, before, now, after})
	return nil
}

// letGo plans to give back every recorded file that the plan does not name.
func (p *Plan) letGo(d disk, only kind) error {
	for _, e := range slices.Backward(p.record.Files) {
		if only != "" && e.Kind != only || slices.ContainsFunc(p.changes, func(c change) bool { return c.path == e.Path }) {
			continue
		}
		if err := p.want(d, e.Path, e.Kind, func(before *content) (*content, error) { return before, nil }); err != nil {
			return err
		}
	}
	return nil
}

// apply makes the changes. It may be repeated after any failure: the record says
// what is about to happen before it does.
func (n *Node) apply(p *Plan) error {
	if !p.Changes() && !slices.ContainsFunc(p.record.Files, func(e *entry) bool { return e.From != nil }) {
		return nil
	}
	if err := n.prepare(p); err != nil {
		return err
	}
	r := p.record
	for _, c := range p.changes {
		if err := keep(n.disk, c.before); err != nil {
			return fmt.Errorf("keeping what %s was: %w", c.path, err)
		}
		// What is about to be given back keeps its entry until it is.
		r.put(&entry{Path: c.path, Kind: c.kind, Before: stateOf(c.before), After: stateOf(c.after), From: &pending{stateOf(c.now)}})
	}
	if err := r.write(n.disk); err != nil {
		return err
	}
	for _, c := range p.changes {
		if err := c.make(n.disk); err != nil {
			return err
		}
	}
	for _, c := range p.changes {
		if c.before.same(c.after) {
			r.drop(c.path)
		} else {
			r.find(c.path).From = nil
		}
	}
	return r.write(n.disk)
}

// prepare makes the folders. Those that are C8s's by name need no record, and
// hold the one that names the others.
func (n *Node) prepare(p *Plan) error {
	for _, dir := range []string{Dir, backupDir} {
		if err := n.disk.mkdir(dir); err != nil {
			return err
		}
	}
	var absent []string
	for _, c := range p.changes {
		if c.after == nil {
			continue
		}
		dirs, err := n.disk.missing(path.Dir(c.path))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if !slices.Contains(absent, dir) {
				absent = append(absent, dir)
			}
		}
	}
	for _, dir := range absent {
		if !slices.Contains(p.record.Folders, dir) {
			p.record.Folders = append(p.record.Folders, dir)
		}
	}
	if err := p.record.write(n.disk); err != nil {
		return err
	}
	for _, dir := range absent {
		if err := n.disk.mkdir(dir); err != nil {
			return err
		}
	}
	return nil
}

func (c change) make(d disk) error {
	switch {
	case c.now.same(c.after):
		return nil
	case c.after == nil:
		return d.remove(c.path)
	}
	return d.write(c.path, c.after)
}

// Count is how many files the plan changes.
func (p *Plan) Count() int {
	count := 0
	for _, c := range p.changes {
		if !c.now.same(c.after) {
			count++
		}
	}
	return count
}

// Overwritten names files that the plan changes and that others had changed
// since C8s last wrote them.
func (p *Plan) Overwritten() []string { return p.overwritten }
