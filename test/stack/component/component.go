// SPDX-License-Identifier: Apache-2.0

// Package component finds what hack/stack/build has built.
//
// Invariant: a folder it names holds what this checkout pins and nothing
// older, because folders are named after that.
package component

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Components of hack/stack, each a folder of programs; of Nginx it is what an
// image is made of.
const (
	Containerd    = "containerd"
	ContainerdNRI = "containerd-nri"
	Runc          = "runc"
	CNI           = "cni"
	Etcd          = "etcd"
	Kubernetes    = "kubernetes"
	Helm          = "helm"
	Nginx         = "nginx"
	Pebble        = "pebble"
)

// ErrNotBuilt means that the programs of a component are not there yet.
var ErrNotBuilt = errors.New("not built: run make stack")

// Folders finds the folders with the programs of components, in that order.
func Folders(ctx context.Context, components ...string) ([]string, error) {
	root, err := checkout()
	if err != nil {
		return nil, fmt.Errorf("finding the programs of %s: %w", strings.Join(components, ", "), err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, "hack/stack/build"), append([]string{"--print"}, components...)...)
	cmd.Stderr = new(strings.Builder)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("finding the programs of %s: %w: %s", strings.Join(components, ", "), err, cmd.Stderr)
	}
	folders := strings.Fields(string(out))
	for i, folder := range folders {
		if _, err := os.Stat(folder); err != nil {
			return nil, fmt.Errorf("component %s (%s): %w", components[i], folder, ErrNotBuilt)
		}
	}
	return folders, nil
}

// checkout is the folder with hack/stack above the working directory.
func checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "hack/stack/build")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no hack/stack/build above the working directory")
		}
	}
}
