// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/c8s-dev/c8s/internal/pause"
	"github.com/c8s-dev/c8s/policy"
)

// scripted is a source that says what it is told to.
type scripted chan PodEvent

func (s scripted) Watch(ctx context.Context, out chan<- PodEvent) error {
	for {
		select {
		case e := <-s:
			select {
			case out <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watching runs watchPods until the returned function is called.
func (w *world) watching() (source scripted, stop func()) {
	source = make(scripted)
	w.cfg.Source = source
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error, 1)
	go func() { done <- w.watchPods(ctx, w.ctx) }()
	return source, func() { cancel(); <-done }
}

func TestAdoptedPodGoesOnWhenTheSourceDescribesItTheSame(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		web.Addrs = append(web.Addrs, netip.MustParseAddr("fd81:1::2"))
		w.add(web)
		w.want(web.UID, StateOpen, "")
		source, stop := w.watching()
		again := web
		again.Addrs = slices.Clone(web.Addrs)
		slices.Reverse(again.Addrs)
		source <- PodEvent{Pod: again}
		pause.For(w.ctx, 2*confirmWithin, nil)
		w.want(web.UID, StateOpen, "")
		if n := len(w.cds.enrolments()); n != 1 {
			t.Errorf("the pod began anew: %d enrolments", n)
		}
		stop()
		w.want(web.UID, StateOpen, "") // the pod outlives its source
	})
}

func TestAdoptedPodThatIsDescribedOtherwiseBeginsAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		source, stop := w.watching()
		defer stop()
		changed := web
		changed.Addrs = []netip.Addr{netip.MustParseAddr("10.81.1.9")}
		source <- PodEvent{Pod: changed}
		synctest.Wait()
		w.want(web.UID, StateOpen, "")
		if s := w.status(web.UID); s.Addrs[0] != changed.Addrs[0] || len(w.cds.enrolments()) != 2 {
			t.Errorf("%v after %d enrolments", s.Addrs, len(w.cds.enrolments()))
		}
	})
}

func TestAdoptedPodThatTheSourceDoesNotNameEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		_, stop := w.watching()
		defer stop()
		pause.For(w.ctx, confirmWithin-time.Second, nil)
		w.want(web.UID, StateOpen, "")
		pause.For(w.ctx, 2*time.Second, nil)
		w.want(web.UID, StateClosed, "")
		if _, known := w.kernel.pod(7); known {
			t.Error("the kernel still knows it")
		}
	})
}

// Containerd keeps a plugin waiting for as long as a pod takes to end.
func TestPodsOfTheDaemonBeforeStayWhileTheSourceKnowsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		connected := make(chan struct{})
		w.cfg.Lacking = func() error {
			select {
			case <-connected:
				return nil
			default:
				return errors.New("not connected")
			}
		}
		_, stop := w.watching()
		defer stop()
		pause.For(w.ctx, 10*confirmWithin, nil)
		w.want(web.UID, StateOpen, "")
		close(connected)
		pause.For(w.ctx, 2*confirmWithin, nil)
		w.want(web.UID, StateClosed, "")
	})
}

// heir is what a successor with the world's agent is.
func (w *world) heir() *run { return &run{Agent: w.Agent, life: w.ctx} }

func TestSuccessorFollowsThePodsOfTheOwner(t *testing.T) {
	inWorld(t, func(w *world) {
		w.preparing()
		r, web := w.heir(), w.web()
		owner := &run{Agent: &Agent{pods: map[string]*member{}}}
		list := func(infos ...PodInfo) (pods []handover.Pod) {
			clear(owner.pods)
			for _, info := range infos {
				p := newPod(w.Agent, info)
				p.set(StateOpen, "", "")
				owner.pods[info.UID] = &member{pod: p}
			}
			return owner.Pods()
		}
		r.adopt(list(web))
		synctest.Wait()
		r.adopt(append(list(web), handover.Pod{Info: []byte(`{"uid":"x"}`), Open: true}, handover.Pod{Info: []byte(`[`)}))
		synctest.Wait()
		if s := w.status(web.UID); s.State != StateOpen || len(w.cds.enrolments()) != 1 || len(w.pods) != 1 {
			t.Errorf("%+v after %d enrolments, %d pods", s, len(w.cds.enrolments()), len(w.pods))
		}
		if err := r.unsettled(list(web)); err != nil {
			t.Errorf("unsettled: %v", err)
		}
		r.adopt(nil)
		synctest.Wait()
		if len(w.pods)+len(w.ending) != 0 {
			t.Error("a pod that the owner no longer has stays")
		}
	})
}

func TestSuccessorWaitsForWhatIsOpenNow(t *testing.T) {
	open := func() []handover.Pod {
		raw := `{"namespace":"default","name":"web-0","uid":"web-uid","netns":"/ns/web","interface":"eth0","addresses":["10.81.1.2"],"images":["` +
			string(policy.DigestOf([]byte("web"))) + `"],"later":1}`
		return []handover.Pod{{Info: []byte(raw), Open: true}}
	}
	for name, tt := range map[string]struct {
		arrange func(w *world)
		waits   bool
	}{
		"enrolled":       {func(*world) {}, false},
		"no certificate": {func(w *world) { w.cds.hook = func(ctx context.Context) { <-ctx.Done() } }, true},
		"no link":        {func(w *world) { w.link("/ns/web", 0) }, true},
		"refused by law": {func(w *world) { w.publish(listed("other")) }, false},
		"node not ready": {func(w *world) { w.node.Store(nil) }, true},
		// The connection to NRI, say: only the owner of the node has it.
		"owner's part away": {func(w *world) { w.cfg.Lacking = func() error { return errors.New("not the owner") } }, false},
		"cluster unknown":   {func(w *world) { w.cfg.Cluster = silentCluster{} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.preparing()
				w.web()
				tt.arrange(w)
				r := w.heir()
				r.adopt(open())
				synctest.Wait()
				if err := r.unsettled(open()); (err != nil) != tt.waits {
					t.Errorf("waits for %v, want that it waits: %t", err, tt.waits)
				}
			})
		})
	}
}

type silentCluster struct{ Cluster }

func (silentCluster) Contact() (bool, time.Time) { return false, time.Time{} }

func FuzzParseAdopted(f *testing.F) {
	f.Add([]byte(`{"namespace":"n","name":"p","uid":"u","netns":"/n","interface":"eth0","addresses":["10.0.0.1","fd00::1"],"images":["sha256:aa"],"more":[]}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"addresses":["::ffff:10.0.0.1"]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		info, err := parseAdopted(raw)
		if err != nil {
			return
		}
		if err := info.Validate(); err != nil {
			t.Errorf("accepted: %v", err)
		}
		if !info.sameAs(info) {
			t.Error("it is not the same as itself")
		}
	})
}
