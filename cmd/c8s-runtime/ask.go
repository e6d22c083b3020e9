// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/nri/image"
)

// judge answers, here or in the daemon.
type judge interface {
	Create(ctx context.Context, r gate.CreateRequest) error
	Exec(ctx context.Context, r gate.ExecRequest) error
}

// ask returns nil when what is about to start may start. Only when nobody
// listens at the gate is the answer looked for elsewhere.
func (p program) ask(ctx context.Context, cfg config, inv invocation) error {
	if ns := inv.namespace(); ns != image.Namespace {
		return fmt.Errorf("containerd's namespace %.80q is refused: on this node only Kubernetes starts containers, in %s", ns, image.Namespace)
	}
	question, err := questionOf(inv)
	if err != nil {
		return err
	}
	err = question(ctx, gate.Client{Path: cfg.Gate, UID: uint32(os.Geteuid())})
	if !errors.Is(err, gate.ErrNoDaemon) {
		return err
	}
	if p.alone != nil {
		return question(ctx, p.alone)
	}
	alone, done, err := newLone(cfg, p.now)
	if err != nil {
		return err
	}
	defer done()
	return question(ctx, alone)
}

// questionOf reads the files that say what will start.
func questionOf(inv invocation) (func(context.Context, judge) error, error) {
	if inv.command == "create" {
		r, err := createRequest(inv)
		return func(ctx context.Context, j judge) error { return j.Create(ctx, r) }, err
	}
	r, err := execRequest(inv)
	return func(ctx context.Context, j judge) error { return j.Exec(ctx, r) }, err
}

func createRequest(inv invocation) (gate.CreateRequest, error) {
	r := gate.CreateRequest{ID: inv.id, Namespace: inv.namespace()}
	var err error
	if r.Config, err = readFile(filepath.Join(inv.bundle, "config.json"), maxSpec); err != nil {
		return r, err
	}
	r.Passwd, r.Group, err = accounts(inv.bundle, r.Config)
	return r, err
}

func execRequest(inv invocation) (gate.ExecRequest, error) {
	r := gate.ExecRequest{ID: inv.id, Namespace: inv.namespace()}
	var err error
	if r.Process, err = readFile(inv.process, maxSpec); err != nil {
		return r, err
	}
	bundle, err := bundleOf(filepath.Join(inv.root, inv.id, "state.json"))
	if err != nil {
		return r, err
	}
	r.Config, err = readFile(filepath.Join(bundle, "config.json"), maxSpec)
	return r, err
}

// bundleOf finds where a container's configuration is in the state that runc
// keeps of it. `runc state` says the same, but costs as much as the exec.
func bundleOf(state string) (string, error) {
	b, err := readFile(state, maxState)
	if err != nil {
		return "", err
	}
	var s struct {
		Config struct {
			Labels []string `json:"labels"`
		} `json:"config"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return "", fmt.Errorf("reading %s: %w", state, err)
	}
	var found []string
	for _, label := range s.Config.Labels {
		if path, ok := strings.CutPrefix(label, "bundle="); ok && filepath.IsAbs(path) {
			found = append(found, path)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("reading %s: it names %d bundles, want one", state, len(found))
	}
	return found[0], nil
}
