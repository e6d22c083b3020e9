// SPDX-License-Identifier: Apache-2.0

// Command c8s-runtime is the OCI runtime that containerd starts in the place of
// runc. It asks the node daemon before a container is made or a process is added
// to one, and then becomes runc.
//
// Its invariant: runc is never started for a create or an exec before an answer
// allowed it. Whatever goes wrong on the way, and whatever is not understood, is
// a refusal, which containerd reports to the kubelet with its reason.
package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"
)

// configPath is where the node's image has the settings. Nothing that containerd
// passes on can name another file; tests link another in.
var configPath = "/etc/c8s/runtime.json"

func main() {
	p := program{
		now:  time.Now,
		exec: func(path string, args []string) error { return syscall.Exec(path, args, os.Environ()) },
	}
	if err := p.run(context.Background(), configPath, os.Args[1:]); err != nil {
		os.Exit(1)
	}
}

// program is one start of the command.
type program struct {
	now   func() time.Time
	exec  func(path string, args []string) error // becomes another program; returns only when it could not
	alone judge                                  // nil: by the manifest on the disk
}

// run returns only when the runtime was not started; the reason has been
// reported by then.
func (p program) run(ctx context.Context, configPath string, args []string) error {
	inv, err := parse(args)
	if err == nil {
		err = p.decide(ctx, configPath, inv, args)
	}
	if err != nil {
		err = fmt.Errorf("c8s-runtime: %s: %w", inv.title(), err)
		report(inv, os.Stderr, p.now(), err)
	}
	return err
}

func (p program) decide(ctx context.Context, configPath string, inv invocation, args []string) error {
	cfg, err := readConfig(configPath)
	if err != nil {
		return err
	}
	if inv.command == "create" || inv.command == "exec" {
		if err := p.ask(ctx, cfg, inv); err != nil {
			return err
		}
	}
	if err := p.exec(cfg.Runtime, append([]string{cfg.Runtime}, args...)); err != nil {
		return fmt.Errorf("starting %s: %w", cfg.Runtime, err)
	}
	return nil
}
