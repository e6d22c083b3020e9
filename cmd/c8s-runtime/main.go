// SPDX-License-Identifier: Apache-2.0

// Command c8s-runtime is the OCI runtime that containerd starts in the place of
// runc: see package front.
//
// Its invariant: without an answer of the node daemon's it starts nothing. While
// no daemon runs it becomes c8s-runtime-alone, which judges by itself.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/c8s-dev/c8s/cmd/internal/front"
)

// configPath is where the node's image has the settings. Nothing that containerd
// passes on can name another file; tests link another in.
var configPath = "/etc/c8s/runtime.json"

// alone is the name of the program beside this one.
const alone = "c8s-runtime-alone"

func main() {
	become := func(path string, args []string) error { return syscall.Exec(path, args, os.Environ()) }
	p := front.Program{Now: time.Now, Exec: become, Alone: func(context.Context, front.Config, front.Question) error {
		return becomeAlone(become)
	}}
	if err := p.Run(context.Background(), configPath, os.Args[1:]); err != nil {
		os.Exit(1)
	}
}

// becomeAlone returns only when it could not.
func becomeAlone(become func(path string, args []string) error) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("no node daemon runs; finding %s: %w", alone, err)
	}
	path := filepath.Join(filepath.Dir(self), alone)
	return fmt.Errorf("no node daemon runs; starting %s: %w", path, become(path, append([]string{path}, os.Args[1:]...)))
}
