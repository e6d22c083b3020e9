// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/test/cluster"
)

// wholeAgain waits until the daemon has noticed the damage and says so.
func wholeAgain(ctx context.Context, n *cluster.Node, damage func() error) error {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	before, err := n.Status(ctx)
	if err != nil {
		return err
	}
	if err := damage(); err != nil {
		return err
	}
	for {
		now, err := n.Status(ctx)
		if err != nil {
			return err
		}
		if now.Restored != before.Restored {
			return nil
		}
		if !pause(ctx, 50*time.Millisecond) {
			return errors.New("nobody noticed the damage")
		}
	}
}

// removePin needs the daemon to itself: another disturbance may end it.
func removePin(ctx context.Context, w *world, rnd *rand.Rand) error {
	n := some(rnd, w.Nodes)
	pins, err := n.Pins()
	if err != nil {
		return err
	}
	return wholeAgain(ctx, n, func() error { return n.RemovePins(some(rnd, pins)) })
}

func removePins(ctx context.Context, w *world, rnd *rand.Rand) error {
	n := some(rnd, w.Nodes)
	return wholeAgain(ctx, n, func() error { return n.RemovePins() })
}

// removePinsAndKill ends every link in the kernel.
func removePinsAndKill(ctx context.Context, w *world, rnd *rand.Rand) error {
	n := some(rnd, w.Nodes)
	if err := errors.Join(n.RemovePins(), n.Kill()); err != nil {
		return err
	}
	pause(ctx, brief(rnd, 3*time.Second))
	return n.Start(ctx)
}

func detachLink(ctx context.Context, w *world, rnd *rand.Rand) error {
	n := some(rnd, w.Nodes)
	pins, err := n.Pins()
	if err != nil {
		return err
	}
	var links []string
	for _, pin := range pins {
		// What steer alone holds is not locked twice (docs/loader.md).
		if ok, _ := filepath.Match("c8s/v1/links/*-*", pin); ok {
			links = append(links, pin)
		}
	}
	return wholeAgain(ctx, n, func() error { return n.Detach(some(rnd, links)) })
}

func deleteQdisc(ctx context.Context, w *world, rnd *rand.Rand) error {
	s := some(rnd, w.servers)
	return wholeAgain(ctx, s.node, func() error {
		out, err := s.node.Lab.Command(ctx, "tc", "qdisc", "del", "dev", s.now().HostLink, "clsact").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// reboot loses a node with all that is on it. Of its pods the descriptions
// stay, and new pods come, often with the old addresses: some before the
// daemon, whose containers wait for it.
func reboot(ctx context.Context, w *world, rnd *rand.Rand) error {
	n := some(rnd, w.Nodes)
	var slots []*slot
	var lost []*cluster.Pod
	for _, one := range w.raids.all {
		if one.attacker.node == n {
			w.raids.end(one)
			lost = append(lost, one.prey)
			defer func() { w.raids.fail(w.raids.begin(one)) }()
		}
	}
	for _, s := range w.slots() {
		if s.node == n {
			slots = append(slots, s)
			lost = append(lost, s.take())
		}
	}
	if err := n.PowerOff(ctx, lost...); err != nil {
		return err
	}
	pause(ctx, brief(rnd, 2*time.Second))
	early := rnd.IntN(len(slots) + 1)
	pods := make([]*cluster.Pod, len(slots))
	for i, s := range slots {
		if i == early {
			if err := n.Start(ctx); err != nil {
				return err
			}
		}
		var err error
		if pods[i], err = w.make(ctx, s); err != nil {
			return err
		}
	}
	if early == len(slots) {
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	for i, s := range slots {
		if err := pods[i].WaitState(ctx, agent.StateOpen, ""); err != nil {
			return err
		}
		if err := s.put(pods[i]); err != nil {
			return err
		}
	}
	var errs []error
	for _, p := range lost {
		errs = append(errs, n.HidePod(p))
	}
	return errors.Join(errs...)
}

func (w *world) slots() []*slot {
	return append(append(append([]*slot(nil), w.clients...), w.servers...), w.raiders...)
}

// fail notes an error that makes the raids worthless.
func (r *raids) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = errors.Join(r.failed, err)
}
