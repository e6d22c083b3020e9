// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/attacks"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// raids are pods that try every known way out, again and again.
type raids struct {
	world   *world
	ctx     context.Context
	all     []*raid
	victims []victim // that are no pods
	tried   atomic.Uint64
	replies atomic.Uint64

	mu      sync.Mutex
	failed  error // an attack that could not be made proves nothing
	escaped []error
}

// raid is one attacker, and the pod next to it that it is after.
type raid struct {
	attacker *slot
	prey     *cluster.Pod
	victim   victim
	cancel   context.CancelFunc
	done     chan struct{}
}

type victim struct {
	name string
	*attacks.Victim
}

func startRaids(t *testing.T, w *world) *raids {
	t.Helper()
	r := &raids{world: w, ctx: t.Context()}
	w.raids = r
	outside := w.Lab.Outside("outside")
	must(t, r.watch("the host outside", outside.NS, lab.Uplink, outside.Addr4, outside.Addr6))
	for _, attacker := range w.raiders {
		n := attacker.node.Lab
		must(t, r.watch(n.Name, n.NS, "", n.Addr4, n.Addr6))
		one := &raid{attacker: attacker}
		must(t, r.begin(one))
		r.all = append(r.all, one)
	}
	t.Cleanup(func() {
		for _, one := range r.all {
			one.halt()
		}
	})
	return r
}

func (r *raids) newVictim(name string, ns *lab.NS, iface string, addrs ...netip.Addr) (victim, error) {
	v, err := attacks.NewVictim(ns, iface, r.world.canary, addrs...)
	return victim{name, v}, err
}

func (r *raids) watch(name string, ns *lab.NS, iface string, addrs ...netip.Addr) error {
	v, err := r.newVictim(name, ns, iface, addrs...)
	r.victims = append(r.victims, v)
	return err
}

// begin starts one raid, with new prey.
func (r *raids) begin(one *raid) error {
	node := one.attacker.node
	prey, err := node.AddPod(r.ctx, stranger, lab.PodSpec{Name: "prey", Kind: one.attacker.kind, Images: []string{string(image(stranger))}})
	if err != nil {
		return err
	}
	one.prey = prey
	if err := prey.WaitState(r.ctx, "open", ""); err != nil {
		return err
	}
	if one.victim, err = r.newVictim("another pod of "+node.Lab.Name, prey.NS, prey.Interface, prey.Addr4, prey.Addr6); err != nil {
		return err
	}
	from := one.attacker.now()
	if from == nil {
		return errVacant
	}
	outside, n := r.world.Lab.Outside("outside"), node.Lab
	env := attacks.Env{
		Interface: from.Interface, Src4: from.Addr4, Src6: from.Addr6, Spoof4: prey.Addr4, Spoof6: prey.Addr6,
		Outside4: outside.Addr4, Outside6: outside.Addr6, Peer4: prey.Addr4, Peer6: prey.Addr6, Node4: n.Addr4, Node6: n.Addr6,
		Canary: r.world.canary, Wait: 50 * time.Millisecond,
	}
	ctx, cancel := context.WithCancel(r.ctx)
	one.cancel, one.done = cancel, make(chan struct{})
	go func() {
		defer close(one.done)
		r.attack(ctx, from, env)
	}()
	return nil
}

func (one *raid) halt() {
	one.cancel()
	<-one.done
}

// end stops one raid and judges what its prey saw.
func (r *raids) end(one *raid) {
	one.halt()
	time.Sleep(300 * time.Millisecond) // what arrives late is still an escape
	r.judge(one.victim)
}

func (r *raids) judge(v victim) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := v.Hits(); n > 0 {
		r.escaped = append(r.escaped, fmt.Errorf("%d packets with the canary reached %s: %v", n, v.name, v.Report().Canaries))
	}
	if err := v.Close(); err != nil {
		r.escaped = append(r.escaped, fmt.Errorf("%s was not watched completely: %w", v.name, err))
	}
}

func (r *raids) attack(ctx context.Context, from *cluster.Pod, env attacks.Env) {
	for {
		for _, a := range attacks.All() {
			if !pause(ctx, 10*time.Millisecond) {
				return
			}
			err := from.Do(func() error {
				result, err := a.Run(ctx, env)
				if result.Replied {
					r.replies.Add(1)
				}
				return err
			})
			if err != nil && ctx.Err() == nil {
				r.mu.Lock()
				r.failed = fmt.Errorf("%s from %s: %w", a.Name, from.Name, err)
				r.mu.Unlock()
			}
			r.tried.Add(1)
		}
	}
}

func (r *raids) stop(t *testing.T) {
	t.Helper()
	for _, one := range r.all {
		r.end(one)
	}
	for _, v := range r.victims {
		r.judge(v)
	}
	for _, err := range r.escaped {
		t.Error(err)
	}
	if n := r.replies.Load(); n > 0 {
		t.Errorf("%d attacks got an answer", n)
	}
	if r.tried.Load() == 0 || r.failed != nil {
		t.Errorf("of %d attacks: %v", r.tried.Load(), r.failed)
	}
}

func (r *raids) report() string { return fmt.Sprintf("attacks: %d tried\n", r.tried.Load()) }
