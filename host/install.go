// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
)

// Files are what comes onto the node.
type Files struct {
	Runtime   []byte // the program c8s-runtime
	Alone     []byte // the program c8s-runtime-alone
	CNI       []byte // the program c8s-cni
	Operators []byte // the operators' keys
	Manifest  []byte // a manifest they signed
}

// RuntimeConfig is what c8s-runtime reads from RuntimeFile.
type RuntimeConfig struct {
	Runtime    string   `json:"runtime"`           // the program that really starts containers
	Gate       string   `json:"gate"`              // the daemon's socket
	Operators  string   `json:"operators"`         // whose manifests count while there is no daemon
	Manifest   string   `json:"manifest"`          // the installed one
	StateDir   string   `json:"stateDir"`          // the daemon's, which keeps a newer one there
	Containerd string   `json:"containerd"`        // its socket
	Kubelet    string   `json:"kubelet,omitempty"` // its folder, unless it is the usual one
	CRI        []string `json:"cri,omitempty"`     // folders of containerd's CRI plugin, unless they are the usual ones
}

func (n *Node) runtimeConfig(ctrd *containerd, program string) ([]byte, error) {
	c := RuntimeConfig{
		Runtime: program, Gate: n.Gate(), Operators: Operators, Manifest: Manifest, StateDir: n.StateDir,
		Containerd: n.Containerd, Kubelet: n.Kubelet,
	}
	if ctrd.root != defaultRoot || ctrd.state != defaultState {
		c.CRI = []string{path.Join(ctrd.root, criFolder), path.Join(ctrd.state, criFolder)}
	}
	text, err := json.MarshalIndent(c, "", "  ")
	return append(text, '\n'), err
}

// Plan says what installing would change. It changes nothing.
func (n *Node) Plan(f Files) (*Plan, error) {
	p, err := n.plan(f)
	if err != nil {
		return nil, fmt.Errorf("planning the installation: %w", err)
	}
	return p, nil
}

func (n *Node) plan(f Files) (*Plan, error) {
	r, err := readRecord(n.disk)
	if err != nil {
		return nil, err
	}
	p := &Plan{record: r}
	ctrd, err := p.readContainerd(n.disk, n.Layout)
	if err != nil {
		return nil, err
	}
	handlers, err := ctrd.handlers()
	if err := errors.Join(err, ctrd.check()); err != nil {
		return nil, err
	}
	program, err := runc(n.disk, handlers, n.Runc)
	if err != nil {
		return nil, err
	}
	if program == RuntimeProg {
		return nil, fmt.Errorf("containerd's configuration starts %s already, and not by the drop-in of C8s; name the real runtime with --runc", RuntimeProg)
	}
	conf, bin := n.cniDirs(ctrd)
	config, err := n.runtimeConfig(ctrd, program)
	if err != nil {
		return nil, err
	}
	// In this order: nothing is named by a configuration before it is there.
	for _, file := range []struct {
		path string
		body *content
	}{
		{aloneProg, own(f.Alone, modeProg)},
		{RuntimeProg, own(f.Runtime, modeProg)},
		{path.Join(bin, cniProgName), own(f.CNI, modeProg)},
		{Operators, own(f.Operators, modeFile)},
		{Manifest, own(f.Manifest, modeFile)},
		{RuntimeFile, own(config, modeFile)},
		{n.DropIn(), own(ctrd.dropIn(handlers), modeFile)},
	} {
		if err := p.want(n.disk, file.path, kindOwn, func(*content) (*content, error) { return file.body, nil }); err != nil {
			return nil, err
		}
	}
	if err := p.want(n.disk, n.ContainerdConfig, kindEdited, n.importing); err != nil {
		return nil, err
	}
	if p.Network, err = p.planCNI(n.disk, conf, n.Gate()); err != nil {
		return nil, err
	}
	return p, p.letGo(n.disk, "")
}

// importing makes containerd's main configuration import the drop-in.
func (n *Node) importing(before *content) (*content, error) {
	if before == nil {
		before = own(fmt.Appendf(nil, "version = %d\n", fresh), modeFile)
	}
	text, err := addImport(before.data, n.ContainerdConfig, n.importPattern())
	if err != nil {
		return nil, fmt.Errorf("editing %s: %w", n.ContainerdConfig, err)
	}
	return &content{text, before.mode, before.uid, before.gid}, nil
}

func (n *Node) cniDirs(ctrd *containerd) (conf, bin string) {
	conf, bin = ctrd.cniDirs()
	if n.CNIConf != "" {
		conf = n.CNIConf
	}
	if n.CNIBin != "" {
		bin = n.CNIBin
	}
	return conf, bin
}

// Install makes the node as the plan says, which is made anew under the lock.
func (n *Node) Install(f Files) (*Plan, error) {
	release, err := n.disk.lock()
	if err != nil {
		return nil, fmt.Errorf("installing: %w", err)
	}
	defer release()
	p, err := n.Plan(f)
	if err != nil {
		return nil, err
	}
	if err := n.apply(p); err != nil {
		return nil, fmt.Errorf("installing: %w; run it again to go on, or 'c8s node uninstall' to go back", err)
	}
	return p, nil
}

// Rechain puts c8s-cni back to the end of the network configuration where
// somebody took it out or put another configuration first. It reports whether
// there was anything to do.
func (n *Node) Rechain() (bool, error) {
	release, err := n.disk.lock()
	if err != nil {
		return false, fmt.Errorf("chaining %s: %w", cniProgName, err)
	}
	defer release()
	p, dir, err := n.planChain()
	if err != nil {
		return false, err
	}
	if !p.Changes() {
		return false, nil
	}
	if err := n.apply(p); err != nil {
		return false, fmt.Errorf("chaining %s in %s: %w", cniProgName, dir, err)
	}
	return true, nil
}

// planChain plans the network configuration alone.
func (n *Node) planChain() (p *Plan, dir string, err error) {
	r, err := readRecord(n.disk)
	if err != nil {
		return nil, "", err
	}
	if len(r.Files) == 0 {
		return nil, "", fmt.Errorf("chaining %s: C8s is not installed on this node; run 'c8s node install'", cniProgName)
	}
	p = &Plan{record: r}
	ctrd, err := p.readContainerd(n.disk, n.Layout)
	if err != nil {
		return nil, "", err
	}
	dir, _ = n.cniDirs(ctrd)
	if p.Network, err = p.planCNI(n.disk, dir, n.Gate()); err != nil {
		return nil, "", err
	}
	return p, dir, p.letGo(n.disk, kindChain)
}
