// SPDX-License-Identifier: Apache-2.0

// Package front is what stands in runc's place: it asks the node daemon before
// a container is made or a process is added to one, and then becomes runc.
//
// Its invariant: runc is never started for a create or an exec before an answer
// allowed it. Whatever goes wrong on the way, and whatever is not understood, is
// a refusal, which containerd reports to the kubelet with its reason.
//
// It runs for every call of the runtime, a dozen in a pod's life, so what it
// links is kept small: package initialisation is most of what it costs.
package front

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Program is one start of a program that stands in runc's place.
type Program struct {
	Now func() time.Time
	// Exec becomes another program; it returns only when it could not.
	Exec func(path string, args []string) error
	// Alone decides while nobody listens at the gate. Its nil allows.
	Alone func(ctx context.Context, cfg Config, q Question) error
}

// Run returns only when the runtime was not started; the reason has been
// reported by then.
func (p Program) Run(ctx context.Context, configPath string, args []string) error {
	inv, err := parse(args)
	if err == nil {
		err = p.decide(ctx, configPath, inv, args)
	}
	if err != nil {
		err = fmt.Errorf("c8s-runtime: %s: %w", inv.title(), err)
		report(inv, os.Stderr, p.Now(), err)
	}
	return err
}

func (p Program) decide(ctx context.Context, configPath string, inv invocation, args []string) error {
	cfg, err := readConfig(configPath)
	if err != nil {
		return err
	}
	if inv.command == "create" || inv.command == "exec" {
		if err := p.ask(ctx, cfg, inv); err != nil {
			return err
		}
	}
	if err := p.Exec(cfg.Runtime, append([]string{cfg.Runtime}, args...)); err != nil {
		return fmt.Errorf("starting %s: %w", cfg.Runtime, err)
	}
	return nil
}
