// SPDX-License-Identifier: Apache-2.0

// Package enforce_test attacks whole nodes: real containerd with the real
// c8s-runtime and c8s-cni, the real daemon and CDS, and pods made as a kubelet
// makes them. What the manifest does not list must not start, and nothing may
// talk past the lock, whatever containerd is asked and whatever is killed.
package enforce_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programs are where TestMain built them, and the simulated vendor beside them:
// making one takes seconds, so that all tests share it.
var programs struct{ dir, c8s, runtime, cni, vendor string }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test says that it needs root
	}
	dir, err := os.MkdirTemp("", "c8s-enforce-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	const module = "github.com/c8s-dev/c8s/cmd/"
	build := exec.Command("go", "build", "-o", dir+"/", module+"c8s", module+"c8s-runtime", module+"c8s-runtime-alone", module+"c8s-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the programs: %v\n%s", err, out)
		return 1
	}
	p := &programs
	p.dir, p.c8s, p.runtime, p.cni = dir, filepath.Join(dir, "c8s"), filepath.Join(dir, "c8s-runtime"), filepath.Join(dir, "c8s-cni")
	p.vendor = filepath.Join(dir, "sim")
	return m.Run()
}
