// SPDX-License-Identifier: Apache-2.0

// Command c8s-runtime-alone is what c8s-runtime becomes while no node daemon
// runs. It is a program of its own because it speaks to containerd: what that
// takes would cost each start of c8s-runtime two milliseconds.
//
// Its invariant: it starts only containers of bootstrap entries, by a manifest
// that the installed operators signed, and only while nobody listens at the gate.
package main

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/c8s-dev/c8s/cmd/internal/front"
)

// configPath is the settings of c8s-runtime.
var configPath = "/etc/c8s/runtime.json"

func main() {
	p := front.Program{
		Now:   time.Now,
		Exec:  func(path string, args []string) error { return syscall.Exec(path, args, os.Environ()) },
		Alone: judge,
	}
	if err := p.Run(context.Background(), configPath, os.Args[1:]); err != nil {
		os.Exit(1)
	}
}

func judge(ctx context.Context, cfg front.Config, q front.Question) error {
	l, done, err := newLone(cfg, time.Now)
	if err != nil {
		return err
	}
	defer done()
	return q(ctx, l)
}
