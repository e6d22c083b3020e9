// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/c8s-dev/c8s/internal/unixsock"
)

const (
	// yieldWithin is how long the owner's parts may take to end.
	yieldWithin = 5 * time.Second
	// drainQuiet is how long nothing may have been carried before a daemon that
	// handed over ends: streams of other nodes may still be on their way to it.
	drainQuiet = 5 * time.Second
	// sweepEvery is how often it looks for pods whose link has gone.
	sweepEvery = 100 * time.Millisecond
	// heirLook is how often a daemon that is to end looks at its successor.
	heirLook = 50 * time.Millisecond
)

// awaitSuccessor answers on the hand-over socket while this daemon owns the node.
func (r *run) awaitSuccessor() error {
	ln, err := unixsock.Listen(r.cfg.RunDir, HandoverSocket, handover.Network)
	if err != nil {
		return fmt.Errorf("opening the hand-over socket: %w", err)
	}
	r.part(r.life, "hand-over", func(ctx context.Context) error {
		if err := r.heir.Serve(ctx, ln); err != nil {
			return err
		}
		<-ctx.Done() // handed over; what is left to do is drain
		return ctx.Err()
	})
	return nil
}

// Pods implements handover.Owner.
func (r *run) Pods() (pods []handover.Pod) {
	for _, m := range r.sortedPods() {
		raw, err := json.Marshal(m.pod.described())
		if err != nil {
			m.pod.log.Error("describing the pod to the successor", "err", err)
			continue
		}
		pods = append(pods, handover.Pod{Info: raw, Open: m.pod.statusNow().State == StateOpen})
	}
	return pods
}

// Yield implements handover.Owner: what only one daemon may be ends first, so
// that new connections wait as shortly as possible.
func (r *run) Yield(context.Context) ([]handover.Socket, error) {
	if !r.endSpell(yieldWithin) {
		return nil, errors.New("the parts that only one daemon may run have not ended yet; try again later")
	}
	r.books.hold()
	r.proxy.Pause()
	r.bindings.Pause() // a pod has either an answer that is handed over or none
	return r.sockets.all(), nil
}

// Resume implements handover.Owner. The successor may have changed the kernel.
func (r *run) Resume() {
	r.cfg.Log.Warn("the successor has failed; this daemon goes on")
	r.takeKernel()
	r.bindings.Resume()
	r.proxy.Resume()
	r.beginSpell()
}

// Gone implements handover.Owner.
func (r *run) Gone() {
	r.cfg.Log.Info("handed over; established connections may end in their own time", "within", r.cfg.Drain)
	r.succeeded.Store(true)
	r.yielded()
	if err := r.cfg.Loader.LetGo(); err != nil {
		r.cfg.Log.Warn("letting go of the lock", "err", err)
	}
	r.proxy.Leave()
	r.sockets.close()
	r.part(r.life, "vanished pods", r.sweepPods)
	close(r.passed)
}

// drainAfter ends when nothing is carried any more, or when it is time to. The
// process may have to stay: Kubernetes would start its container anew, to take
// the node back.
func (r *run) drainAfter(told context.Context) {
	r.drain(r.life, r.cfg.Drain, drainQuiet)
	if r.cfg.Linger {
		select {
		case <-told.Done():
		case <-r.life.Done():
		}
	}
}

// drainAlone ends a daemon that was told to end. A successor that is preparing
// gets its time; without one, new connections are refused at once.
func (r *run) drainAlone() {
	limit, cancel := context.WithTimeout(r.life, r.cfg.Drain)
	defer cancel()
	tick := time.NewTicker(heirLook)
	defer tick.Stop()
	for r.heir.Busy() && limit.Err() == nil {
		select {
		case <-tick.C:
		case <-limit.Done():
		}
	}
	select {
	case <-r.passed:
		r.drain(limit, r.cfg.Drain, drainQuiet)
	default:
		r.cfg.Log.Info("ending; new connections are refused, established ones may end in their own time", "within", r.cfg.Drain)
		r.proxy.Refuse()
		r.drain(limit, r.cfg.Drain, 0)
	}
}

func (r *run) drain(ctx context.Context, within, quiet time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if left := r.proxy.Drain(ctx, quiet); left > 0 {
		r.cfg.Log.Warn("connections were reset: the drain time is over", "connections", left)
	}
}

// sweepPods forgets pods whose link has gone. The pod source is the successor's
// now, and an address that is used again must not reach the pod that had it.
func (r *run) sweepPods(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		links, err := netlink.LinkList()
		if err != nil {
			continue // links changed meanwhile; the next look is near
		}
		here := map[int]bool{}
		for _, link := range links {
			here[link.Attrs().Index] = true
		}
		for _, m := range r.sortedPods() {
			if ifindex := m.pod.hostIfindex(); ifindex != 0 && !here[ifindex] {
				r.podEvent(r.life, PodEvent{Removed: true, Pod: m.pod.info})
			}
		}
	}
}

// newHeir makes the server that successors talk to.
func (r *run) newHeir() *handover.Server {
	return &handover.Server{
		Owner: r, Release: r.cfg.Version, Terms: r.cfg.Terms, UID: uint32(os.Geteuid()), Log: r.cfg.Log, //nolint:gosec // never negative on Linux
	}
}
