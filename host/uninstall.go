// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
)

// changedSuffix marks what others made of a file that C8s removes.
const changedSuffix = ".c8s-changed"

// Report is what uninstalling did.
type Report struct {
	Restored []string // files that are what they were
	Changed  []string // what others had changed since, and what became of it
	// InUse is set where c8s-runtime's place is still needed: the real runtime
	// stands there now, for what was started through it.
	InUse bool
}

// RestoreConfig gives back every configuration: from containerd's restart on,
// containers start without C8s. Programs stay, since containerd and running
// containers still name them.
func (n *Node) RestoreConfig() (*Report, error) {
	return n.uninstall(n.isProgram, false)
}

// Uninstall gives back everything. While inUse, the real runtime stands in
// c8s-runtime's place; uninstalling again later removes it.
func (n *Node) Uninstall(inUse bool) (*Report, error) {
	return n.uninstall(func(e *entry) bool { return inUse && e.Path == RuntimeProg }, inUse)
}

// isProgram says whether a file is one of C8s's programs or what they read.
func (n *Node) isProgram(e *entry) bool { return e.Kind == kindOwn && e.Path != n.DropIn() }

func (n *Node) uninstall(keep func(*entry) bool, standIn bool) (*Report, error) {
	release, err := n.disk.lock()
	if err != nil {
		return nil, fmt.Errorf("uninstalling: %w", err)
	}
	defer release()
	r, err := readRecord(n.disk)
	if err != nil {
		return nil, fmt.Errorf("uninstalling: %w", err)
	}
	rep := new(Report)
	if e := r.find(RuntimeProg); e != nil && standIn {
		rep.InUse = true
		if err := n.standIn(r, e); err != nil {
			return rep, fmt.Errorf("uninstalling: %w", err)
		}
	}
	var errs []error
	// The network first, then containerd, then what they name.
	for _, e := range slices.Backward(r.Files) {
		if !keep(e) {
			errs = append(errs, n.giveBack(&Plan{record: r}, e, rep))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return rep, fmt.Errorf("uninstalling: %w", err)
	}
	r.Files = slices.DeleteFunc(r.Files, func(e *entry) bool { return !keep(e) })
	if err := n.sweep(r); err != nil {
		return rep, fmt.Errorf("uninstalling: %w", err)
	}
	return rep, nil
}

// giveBack makes a file what it was before C8s, or as near to it as what others
// did since allows. Entries stay in the record until all are done: it may be
// repeated.
func (n *Node) giveBack(p *Plan, e *entry, rep *Report) error {
	now, err := n.disk.read(e.Path)
	if err != nil {
		return err
	}
	switch {
	case e.Before.is(now):
		rep.Restored = append(rep.Restored, e.Path)
		return n.disk.tidy(e.Path)
	case e.ours(now):
		before, err := restore(n.disk, e.Before)
		if err != nil {
			return fmt.Errorf("giving back %s: %w", e.Path, err)
		}
		rep.Restored = append(rep.Restored, e.Path)
		return change{path: e.Path, now: now, after: before}.make(n.disk)
	case e.Kind == kindOwn:
		return n.giveBackOwn(e, now, rep)
	case e.Kind == kindChain:
		return n.giveBackChain(p, e, rep)
	}
	rep.Changed = append(rep.Changed, fmt.Sprintf("%s was changed since and stays as it is; the import of %s in it does no harm", e.Path, n.importPattern()))
	return nil
}

// giveBackOwn keeps a copy of what others wrote into a file that has to go.
func (n *Node) giveBackOwn(e *entry, now *content, rep *Report) error {
	before, err := restore(n.disk, e.Before)
	if err != nil {
		return fmt.Errorf("giving back %s: %w", e.Path, err)
	}
	if now != nil {
		if err := n.disk.write(e.Path+changedSuffix, now); err != nil {
			return err
		}
		rep.Changed = append(rep.Changed, fmt.Sprintf("%s was changed since; what it was is in %s", e.Path, e.Path+changedSuffix))
	} else {
		rep.Changed = append(rep.Changed, e.Path+" was removed since")
	}
	return change{path: e.Path, now: now, after: before}.make(n.disk)
}

// giveBackChain takes c8s-cni out of a configuration that others rewrote.
func (n *Node) giveBackChain(p *Plan, e *entry, rep *Report) error {
	without, now, err := p.lookConf(n.disk, e.Path)
	if err != nil {
		return err
	}
	rep.Changed = append(rep.Changed, fmt.Sprintf("%s was rewritten since and stays as it is, without %s", e.Path, cniProgName))
	if without.same(now) {
		return nil
	}
	return change{path: e.Path, now: now, after: without}.make(n.disk)
}

// standIn puts the real runtime into c8s-runtime's place.
func (n *Node) standIn(r *record, e *entry) error {
	config, err := n.disk.read(RuntimeFile)
	if err != nil {
		return err
	}
	if config == nil { // gone already: an earlier run put it there
		return nil
	}
	var c RuntimeConfig
	if err := json.Unmarshal(config.data, &c); err != nil {
		return fmt.Errorf("reading %s: %w", RuntimeFile, err)
	}
	real, err := n.disk.read(c.Runtime)
	if err != nil || real == nil {
		return errors.Join(fmt.Errorf("putting the real runtime %s in the place of %s: it is not there", c.Runtime, e.Path), err)
	}
	now, err := n.disk.read(e.Path)
	if err != nil {
		return err
	}
	e.From, e.After = &pending{stateOf(now)}, stateOf(real)
	if err := r.write(n.disk); err != nil {
		return err
	}
	return change{path: e.Path, now: now, after: real}.make(n.disk)
}

// sweep keeps the record of what is left; where nothing is, it removes all that
// C8s made for itself.
func (n *Node) sweep(r *record) error {
	if len(r.Files) > 0 {
		return r.write(n.disk)
	}
	// A pod's hostPath volume makes folders that no record knows.
	ours := []string{path.Dir(path.Dir(RuntimeProg)), path.Dir(RuntimeProg)}
	for _, dir := range slices.Backward(append(ours, r.Folders...)) {
		if err := n.disk.rmdir(dir); err != nil {
			return err
		}
	}
	copies, err := n.disk.list(backupDir)
	if err != nil {
		return err
	}
	for _, name := range copies {
		if err := n.disk.remove(path.Join(backupDir, name)); err != nil {
			return err
		}
	}
	// The record last: until here a second run knows what is left to do.
	return errors.Join(n.disk.rmdir(backupDir), n.disk.remove(RecordFile), n.disk.rmdir(Dir))
}
