// SPDX-License-Identifier: Apache-2.0

package front

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/c8s-dev/c8s/nri/gate"
)

// Judge answers, here or in the daemon.
type Judge interface {
	Create(ctx context.Context, r gate.CreateRequest) error
	Exec(ctx context.Context, r gate.ExecRequest) error
}

// Question puts what is about to start before a judge; nil means that it may.
type Question func(ctx context.Context, j Judge) error

// namespace is image.Namespace, of a package too large to be linked here.
const namespace = "k8s.io"

// ask returns nil when what is about to start may start. Only when nobody
// listens at the gate is the answer looked for elsewhere.
func (p Program) ask(ctx context.Context, cfg Config, inv invocation) error {
	if ns := inv.namespace(); ns != namespace {
		return fmt.Errorf("containerd's namespace %.80q is refused: on this node only Kubernetes starts containers, in %s", ns, namespace)
	}
	question, err := questionOf(inv)
	if err != nil {
		return err
	}
	err = question(ctx, gate.Client{Path: cfg.Gate, UID: uint32(os.Geteuid())})
	if !errors.Is(err, gate.ErrNoDaemon) {
		return err
	}
	return p.Alone(ctx, cfg, question)
}

// questionOf reads the files that say what will start.
func questionOf(inv invocation) (Question, error) {
	if inv.command == "create" {
		r, err := createRequest(inv)
		return func(ctx context.Context, j Judge) error { return j.Create(ctx, r) }, err
	}
	r, err := execRequest(inv)
	return func(ctx context.Context, j Judge) error { return j.Exec(ctx, r) }, err
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
