// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/lab"
)

// disturbance breaks something and repairs it. When run returns, all that is
// left is to wait until the cluster has noticed.
type disturbance struct {
	name     string
	run      func(ctx context.Context, w *world, rnd *rand.Rand) error
	harmless bool // new connections must not fail
	alone    bool // nothing else may break at the same time
}

func disturbances() []disturbance {
	return []disturbance{
		{name: "kill daemon", run: killDaemon},
		{name: "stop daemon", run: stopDaemon},
		{name: "upgrade", run: upgrade, harmless: true, alone: true},
		{name: "upgrade, new one killed", run: failedUpgrade, alone: true},
		{name: "kill CDS", run: killCDS},
		{name: "partition nodes", run: partition},
		{name: "uplink flaps", run: flapUplink},
		{name: "pod link flaps", run: flapPodLink},
		{name: "flush rules", run: command("ip", "rule", "del", "pref", "100")},
		{name: "flush IPv6 rules", run: command("ip", "-6", "rule", "del", "pref", "100")},
		{name: "flush routes", run: command("ip", "route", "flush", "table", "15008")},
		{name: "flush nft", run: command("nft", "flush", "ruleset")},
		{name: "remove a pin", run: removePin, harmless: true, alone: true},
		{name: "remove all pins", run: removePins, harmless: true, alone: true},
		{name: "remove all pins, kill daemon", run: removePinsAndKill, alone: true},
		{name: "detach a link", run: detachLink, alone: true},
		{name: "delete qdisc", run: deleteQdisc, harmless: true, alone: true},
		{name: "reboot node", run: reboot, alone: true},
		{name: "replace client", run: replace(client)},
		{name: "replace server", run: replace(server)},
		{name: "revoke in manifest", run: revoke, alone: true},
		{name: "deny workload", run: deny, alone: true},
		{name: "switch sameNode", run: switchSameNode, alone: true},
	}
}

// breakThings disturbs until ctx ends: usually one thing at a time, sometimes
// two, with a pause between in which nothing may fail.
func breakThings(ctx context.Context, t *testing.T, w *world, book *ledger, rnd *rand.Rand) {
	t.Helper()
	all := disturbances()
	if *only != "" {
		var some []disturbance
		for _, d := range all {
			if d.name == *only {
				some = append(some, d)
			}
		}
		if all = some; len(all) == 0 {
			t.Fatalf("nothing is called %q", *only)
		}
	}
	var queue []disturbance
	for pause(ctx, time.Duration(500+rnd.IntN(1500))*time.Millisecond) {
		if len(queue) < 2 { // everything has its turn
			for _, i := range rnd.Perm(len(all)) {
				queue = append(queue, all[i])
			}
		}
		now := queue[:1]
		if rnd.IntN(3) == 0 && len(queue) > 1 && !queue[0].alone && !queue[1].alone {
			now = queue[:2]
		}
		queue = queue[len(now):]
		if !disturb(t, w, book, now, rnd) {
			return
		}
	}
}

// disturb does what is to be done, at once, and waits until all is well again.
func disturb(t *testing.T, w *world, book *ledger, now []disturbance, rnd *rand.Rand) bool {
	t.Helper()
	ctx := t.Context() // what was broken is repaired, also when the time is over
	var done sync.WaitGroup
	errs := make([]error, len(now))
	var open []*breakage
	for i, d := range now {
		open = append(open, book.begin(d.name, d.harmless))
		own := rand.New(rand.NewPCG(rnd.Uint64(), 0))
		done.Go(func() { errs[i] = d.run(ctx, w, own) })
	}
	done.Wait()
	healed := w.allOpen(ctx)
	for i, d := range now {
		book.end(open[i])
		if errs[i] != nil {
			t.Errorf("%s: %v", d.name, errs[i])
			return false
		}
	}
	if healed != nil {
		t.Errorf("after %s: %v", now[0].name, healed)
		return false
	}
	return true
}

func some[T any](rnd *rand.Rand, of []T) T { return of[rnd.IntN(len(of))] }

func brief(rnd *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rnd.Int64N(int64(most)))
}

func killDaemon(ctx context.Context, w *world, rnd *rand.Rand) error {
	n := some(rnd, w.Nodes)
	if err := n.Kill(); err != nil {
		return err
	}
	pause(ctx, brief(rnd, 2*time.Second))
	return n.Start(ctx)
}

func stopDaemon(ctx context.Context, w *world, rnd *rand.Rand) error {
	n := some(rnd, w.Nodes)
	if err := n.Stop(); err != nil {
		return err
	}
	pause(ctx, brief(rnd, 2*time.Second))
	return n.Start(ctx)
}

func upgrade(ctx context.Context, w *world, rnd *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	n := some(rnd, w.Nodes)
	name := fmt.Sprintf("%x", rnd.Uint64())
	if err := n.Succeed("--instance", name); err != nil {
		return err
	}
	if err := n.WaitInstance(ctx, name); err != nil {
		return err
	}
	for former := n.Former(); former.Running(); { // it resets what outlives its drain
		if !pause(ctx, 20*time.Millisecond) {
			return errors.New("the daemon that was replaced does not end")
		}
	}
	return nil
}

// failedUpgrade kills the successor at a moment that nobody chose. Then the
// daemon before it goes on, unless it had just given the node away.
func failedUpgrade(ctx context.Context, w *world, rnd *rand.Rand) error {
	n := some(rnd, w.Nodes)
	if err := n.Succeed(); err != nil {
		return err
	}
	pause(ctx, brief(rnd, 3*time.Second))
	if err := n.Kill(); err != nil {
		return err
	}
	former := n.Former()
	for end := time.Now().Add(15 * time.Second); former.Running() && time.Now().Before(end); pause(ctx, 20*time.Millisecond) {
		if w.tryAll(ctx) == nil {
			n.Take(former)
			return nil
		}
	}
	if former.Running() {
		n.Take(former)
		return nil // whether it heals is asked next
	}
	return n.Start(ctx)
}

func killCDS(ctx context.Context, w *world, rnd *rand.Rand) error {
	r := some(rnd, w.CDS)
	if err := r.Kill(); err != nil {
		return err
	}
	pause(ctx, brief(rnd, 3*time.Second))
	return r.Start()
}

func partition(ctx context.Context, w *world, rnd *rand.Rand) error {
	n := some(rnd, w.Nodes)
	var others []*lab.Host
	for _, o := range w.Nodes {
		if o != n {
			others = append(others, &o.Lab.Host)
		}
	}
	if rnd.IntN(2) == 0 {
		others = nil // from everybody
	}
	if err := n.CutFrom(ctx, others...); err != nil {
		return err
	}
	pause(ctx, 500*time.Millisecond+brief(rnd, 4*time.Second))
	return n.Heal(ctx)
}

func flapUplink(ctx context.Context, w *world, rnd *rand.Rand) error {
	port := some(rnd, w.Nodes).Lab.WirePort
	return flap(ctx, rnd, w.Lab.Wire, port)
}

// flapPodLink takes a bridge port down and up: a routed pod would lose its
// route, which is its CNI's to bring back.
func flapPodLink(ctx context.Context, w *world, rnd *rand.Rand) error {
	for {
		s := some(rnd, append(append([]*slot(nil), w.clients...), w.servers...))
		if p := s.now(); p != nil && s.kind == lab.Bridged {
			return flap(ctx, rnd, s.node.Lab.NS, p.HostLink)
		}
	}
}

func flap(ctx context.Context, rnd *rand.Rand, ns *lab.NS, link string) error {
	for range 1 + rnd.IntN(3) {
		for _, state := range []string{"down", "up"} {
			if out, err := ns.Command(ctx, "ip", "link", "set", link, state).CombinedOutput(); err != nil {
				return fmt.Errorf("setting %s %s: %w: %s", link, state, err, out)
			}
			pause(ctx, brief(rnd, 500*time.Millisecond))
		}
	}
	return nil
}

// command runs a program on a node. What it removes may be gone already.
func command(name string, args ...string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rnd *rand.Rand) error {
		n := some(rnd, w.Nodes)
		_, _ = n.Lab.Command(ctx, name, args...).CombinedOutput()
		return nil
	}
}

func replace(entry string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rnd *rand.Rand) error {
		slots := w.clients
		if entry == server {
			slots = w.servers
		}
		s := some(rnd, slots)
		if err := s.empty(); err != nil {
			return err
		}
		pause(ctx, brief(rnd, 500*time.Millisecond))
		return w.fill(ctx, s)
	}
}

// revoke takes the one rule away, sees that nobody gets through, and gives it
// back.
func revoke(ctx context.Context, w *world, rnd *rand.Rand) error {
	var rules []policy.PeerRule
	err := w.Publish(ctx, func(m *policy.Manifest) {
		rules, m.Workloads[1].Peers.From = m.Workloads[1].Peers.From, nil
	})
	if err != nil {
		return err
	}
	err = w.nobodyGetsThrough(ctx)
	return errors.Join(err, w.Publish(ctx, func(m *policy.Manifest) { m.Workloads[1].Peers.From = rules }))
}

// switchSameNode changes whether pods of one node talk through TLS. What goes
// without it when it must not any more ends.
func switchSameNode(ctx context.Context, w *world, rnd *rand.Rand) error {
	return w.Publish(ctx, func(m *policy.Manifest) {
		if m.SameNode == policy.SameNodeLocal {
			m.SameNode = policy.SameNodeMesh
		} else {
			m.SameNode = policy.SameNodeLocal
		}
	})
}

// deny does the same by the deny list.
func deny(ctx context.Context, w *world, rnd *rand.Rand) error {
	if err := w.Deny(ctx, policy.Denial{Kind: policy.DenyWorkload, Value: server, Reason: "chaos"}); err != nil {
		return err
	}
	err := w.serversAreShutOut(ctx)
	if err == nil {
		err = w.nobodyGetsThrough(ctx)
	}
	return errors.Join(err, w.Deny(ctx))
}

func (w *world) serversAreShutOut(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	for _, s := range w.servers {
		if err := s.now().WaitState(ctx, agent.StateLocked, "denied-workload"); err != nil {
			return err
		}
	}
	return nil
}

// nobodyGetsThrough tries every pair once.
func (w *world) nobodyGetsThrough(ctx context.Context) error {
	for _, from := range w.clients {
		for _, to := range w.servers {
			short, cancel := context.WithTimeout(ctx, time.Second)
			err := pair{from, to, false}.exchange(short, w.canary)
			cancel()
			if err == nil {
				return fmt.Errorf("%s reached %s while the operators forbid it", from, to)
			}
		}
	}
	return nil
}
