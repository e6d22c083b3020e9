// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/policy"
)

// keepTrust has a node keep the operators it has, and the newest manifest of
// theirs. Who runs the installation says what is given to it, and on Kubernetes
// that is the control plane: a node's trust anchor is chosen once. It returns
// what was not taken as given.
func (f *installFlags) keepTrust(files *host.Files) (kept []string, err error) {
	given, err := policy.ParseOperators(files.Operators)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(f.layout.Root, host.Operators)
	operators, err := desk.ReadOperators(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading whom the node trusts already: %w", err)
	}
	if operators.Digest() != given.Digest() {
		if files.Operators, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("reading whom the node trusts already: %w", err)
		}
		kept = append(kept, fmt.Sprintf("the node's operators are others than those in %s, and stay; to change them, uninstall first", f.operators))
	}
	installed, err := desk.ReadFile(filepath.Join(f.layout.Root, host.Manifest), maxManifest)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the installed manifest: %w", err)
	}
	now, errNow := policy.Open(installed, operators)
	next, errNext := policy.Open(files.Manifest, operators)
	switch {
	case errNext == nil && (errNow != nil || next.Manifest.Version > now.Manifest.Version || next.Digest == now.Digest):
	case errNow == nil:
		files.Manifest = installed
		kept = append(kept, fmt.Sprintf("the node's manifest, version %d, stays: %s is no newer one of its operators", now.Manifest.Version, f.manifest))
	default:
		return nil, fmt.Errorf("%s, under the operators that the node has: %w", f.manifest, errNext)
	}
	return kept, nil
}
