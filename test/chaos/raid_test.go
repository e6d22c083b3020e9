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
	cancel  context.CancelFunc
	done    sync.WaitGroup
	victims []victim
	tried   atomic.Uint64
	replies atomic.Uint64

	mu     sync.Mutex
	failed error // an attack that could not be made proves nothing
}

type victim struct {
	name string
	*attacks.Victim
}

func startRaids(t *testing.T, w *world) *raids {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &raids{cancel: cancel}
	outside := w.Lab.Outside("outside")
	r.watch(t, w, "the host outside", outside.NS, lab.Uplink, outside.Addr4, outside.Addr6)
	for i, attacker := range w.raiders {
		n := attacker.node.Lab
		prey, err := attacker.node.AddPod(t.Context(), stranger, lab.PodSpec{Name: fmt.Sprintf("prey-%d", i), Kind: attacker.kind, Images: []string{string(image(stranger))}})
		must(t, err)
		must(t, prey.WaitState(t.Context(), "open", ""))
		r.watch(t, w, "another pod of "+n.Name, prey.NS, prey.Interface, prey.Addr4, prey.Addr6)
		r.watch(t, w, n.Name, n.NS, "", n.Addr4, n.Addr6)
		from := attacker.now()
		env := attacks.Env{
			Interface: from.Interface, Src4: from.Addr4, Src6: from.Addr6, Spoof4: prey.Addr4, Spoof6: prey.Addr6,
			Outside4: outside.Addr4, Outside6: outside.Addr6, Peer4: prey.Addr4, Peer6: prey.Addr6, Node4: n.Addr4, Node6: n.Addr6,
			Canary: w.canary, Wait: 50 * time.Millisecond,
		}
		r.done.Go(func() { r.attack(ctx, from, env) })
	}
	t.Cleanup(func() {
		cancel()
		r.done.Wait()
	})
	return r
}

func (r *raids) watch(t *testing.T, w *world, name string, ns *lab.NS, iface string, addrs ...netip.Addr) {
	t.Helper()
	v, err := attacks.NewVictim(ns, iface, w.canary, addrs...)
	must(t, err)
	r.victims = append(r.victims, victim{name, v})
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
	r.cancel()
	r.done.Wait()
	time.Sleep(300 * time.Millisecond) // what arrives late is still an escape
	for _, v := range r.victims {
		if n := v.Hits(); n > 0 {
			t.Errorf("%d packets with the canary reached %s: %v", n, v.name, v.Report().Canaries)
		}
		if err := v.Close(); err != nil {
			t.Errorf("%s was not watched completely: %v", v.name, err)
		}
	}
	if n := r.replies.Load(); n > 0 {
		t.Errorf("%d attacks got an answer", n)
	}
	if r.tried.Load() == 0 || r.failed != nil {
		t.Errorf("of %d attacks: %v", r.tried.Load(), r.failed)
	}
}

func (r *raids) report() string { return fmt.Sprintf("attacks: %d tried\n", r.tried.Load()) }
