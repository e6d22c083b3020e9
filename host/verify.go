// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Result is what was found out about a guarantee.
type Result string

// The results. Unknown is for what could not be looked at: it is no pass.
const (
	Pass    Result = "PASS"
	Fail    Result = "FAIL"
	Unknown Result = "UNKNOWN"
)

// Finding is one guarantee of a node and whether it holds.
type Finding struct {
	Name     string `json:"name"`
	Result   Result `json:"result"`
	Expected string `json:"expected"`
	Actual   string `json:"actual"`
	Remedy   string `json:"remedy,omitempty"` // only where it does not pass
}

const remedyInstall = "run 'c8s node install' again"

// Judge makes a finding out of a condition.
func Judge(name string, ok bool, expected, actual, remedy string) Finding {
	if ok {
		return Finding{Name: name, Result: Pass, Expected: expected, Actual: actual}
	}
	return Finding{Name: name, Result: Fail, Expected: expected, Actual: actual, Remedy: remedy}
}

// Undecided is the finding where looking failed.
func Undecided(name, expected string, err error, remedy string) Finding {
	return Finding{Name: name, Result: Unknown, Expected: expected, Actual: err.Error(), Remedy: remedy}
}

// Verify compares the node's files with what an installation made of them, and
// with what containerd will read at its next start.
func (n *Node) Verify() []Finding {
	r, err := readRecord(n.disk)
	if err != nil {
		return []Finding{Undecided("installation", "a record in "+RecordFile, err, "")}
	}
	if len(r.Files) == 0 {
		return []Finding{Judge("installation", false, "a record in "+RecordFile, "C8s is not installed", "run 'c8s node install'")}
	}
	out := []Finding{n.verifyFiles(r)}
	// What is on disk now, C8s's own changes included: so no record is applied.
	now := &Plan{record: new(record)}
	return append(out, n.verifyConfig(now), n.verifyChain(now), n.verifyStarted())
}

func (n *Node) verifyFiles(r *record) Finding {
	const name, expected = "installed files", "every file as it was installed"
	var changed []string
	for _, e := range r.Files {
		if e.Kind == kindChain { // others may write it; verifyChain looks at what is in it
			continue
		}
		c, err := n.disk.read(e.Path)
		if err != nil {
			return Undecided(name, expected, err, "")
		}
		if e.From != nil || !e.After.is(c) {
			changed = append(changed, e.Path)
		}
	}
	return Judge(name, len(changed) == 0, expected, orText(strings.Join(changed, ", "), fmt.Sprintf("%d files as installed", len(r.Files)), " changed or missing"), remedyInstall)
}

// orText returns list with a suffix, or none where it is empty.
func orText(list, none, suffix string) string {
	if list == "" {
		return none
	}
	return list + suffix
}

// verifyConfig reads containerd's configuration with the drop-in in it.
func (n *Node) verifyConfig(p *Plan) Finding {
	const name, expected = "containerd's configuration", "every runtime behind c8s-runtime, NRI on, the validator requiring " + PluginName
	l := n.Layout
	ctrd, err := p.readAll(n.disk, l)
	if err != nil {
		return Undecided(name, expected, err, "")
	}
	var wrong []string
	handlers, err := ctrd.handlers()
	if err != nil {
		wrong = append(wrong, err.Error())
	}
	if err := ctrd.check(); err != nil {
		wrong = append(wrong, err.Error())
	}
	for _, h := range handlers {
		if h.binary != RuntimeProg {
			wrong = append(wrong, fmt.Sprintf("runtime %s starts %q", h.name, h.binary))
		}
	}
	if off, _ := ctrd.nri["disable"].(bool); off {
		wrong = append(wrong, "NRI is disabled")
	}
	validator := table(ctrd.nri, "default_validator")
	required, _ := validator["required_plugins"].([]any)
	if on, _ := validator["enable"].(bool); !on || !slices.Contains(required, any(PluginName)) {
		wrong = append(wrong, "the validator does not require "+PluginName)
	}
	return Judge(name, len(wrong) == 0, expected, orText(strings.Join(wrong, "; "), "as expected", ""), remedyInstall+", and see whether another file in "+path.Dir(l.DropIn())+" is read after "+path.Base(l.DropIn()))
}

func (n *Node) verifyChain(p *Plan) Finding {
	const name, expected = "network configuration", "c8s-cni as the last plugin of the first configuration"
	ctrd, err := p.readAll(n.disk, n.Layout)
	if err != nil {
		return Undecided(name, expected, err, "")
	}
	dir, _ := n.cniDirs(ctrd)
	first, _, err := p.firstConf(n.disk, dir)
	if err != nil {
		return Undecided(name, expected, err, "")
	}
	if first == "" {
		return Undecided(name, expected, fmt.Errorf("there is none in %s", dir), "install a network plugin; the node daemon chains c8s-cni then")
	}
	now, err := n.disk.read(path.Join(dir, first))
	if err != nil {
		return Undecided(name, expected, err, "")
	}
	c, err := parseConflist(first, now.data)
	if err != nil {
		return Undecided(name, expected, fmt.Errorf("%s: %w", path.Join(dir, first), err), "")
	}
	return Judge(name, path.Ext(first) == extConflist && c.chained(n.Gate()), expected, fmt.Sprintf("%s has %d plugins and c8s-cni %d times, last: %t", path.Join(dir, first), len(c.plugins), c.ours, c.last), remedyInstall)
}
