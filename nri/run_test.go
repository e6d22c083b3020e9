// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// background runs the enforcer inside a synctest bubble.
func (w *world) background() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.e.Run(ctx)
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

// noWeb takes the entry web, and whoever talks to it, out of a manifest.
func noWeb(m *policy.Manifest) {
	m.Workloads = m.Workloads[1:]
	m.Workloads[0].Peers = policy.Peers{}
}

func unlisted(how string) func(*policy.Manifest) {
	return func(m *policy.Manifest) { m.Unlisted = how }
}

// inBubble: the cleanups of t run after the bubble, so the world gets its own.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t) })
}

func TestWhatANewManifestDoesNotAdmitIsStoppedOrCut(t *testing.T) {
	for _, tc := range []struct {
		how   string
		host  bool
		stops bool
	}{{"", false, true}, {policy.UnlistedStop, false, true}, {policy.UnlistedCut, false, false}, {policy.UnlistedCut, true, true}} {
		t.Run(fmt.Sprintf("%q host %t", tc.how, tc.host), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				w := newWorld(t, unlisted(tc.how))
				w.background()
				seen := w.watch()
				p, entry := podOf("shop"), policytest.Web
				if p.host = tc.host; tc.host {
					entry = hostAgent
				}
				w.announced(p)
				w.started(p, "c1", entry)
				if !tc.host {
					seen.want(false, "shop", "")
				}
				w.next(func(m *policy.Manifest) {
					if noWeb(m); tc.host {
						m.Workloads = m.Workloads[:1]
					}
				})
				if !tc.host {
					seen.want(true, "shop", "workload-unlisted")
				}
				synctest.Wait()
				if got := slices.Equal(w.runtime.stops(), []string{"c1"}); got != tc.stops {
					t.Errorf("stopped %v", w.runtime.stops())
				}
				wantCode(t, w.create(p, "c2", side), CodePodRefused)
			})
		})
	}
}

func TestStoppingIsRepeatedUntilTheContainerIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.background()
		p := w.announced(podOf("shop"))
		w.started(p, "c1", policytest.Web)
		w.runtime.set(func() { w.runtime.away = true })
		w.next(noWeb)
		time.Sleep(time.Minute)
		w.runtime.set(func() { w.runtime.away = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(w.runtime.stops()) == 0 {
			t.Fatal("given up")
		}
		w.e.ended("c1")
		synctest.Wait()
		w.runtime.set(func() { clear(w.runtime.stopped) })
		time.Sleep(time.Hour)
		if stops := w.runtime.stops(); len(stops) != 0 {
			t.Errorf("stopped what is gone: %v", stops)
		}
	})
}

// The kubelet keeps a dead container until another one has replaced it.
func TestAStoppedContainerDoesNotKeepItsPodFromStartingAnother(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.background()
		p := podOf("shop")
		w.running(p, p.container("c1", "unlisted"))
		synctest.Wait()
		if stops := w.runtime.stops(); !slices.Equal(stops, []string{"c1"}) {
			t.Fatalf("stopped %v", stops)
		}
		wantCode(t, w.create(p, "c2", policytest.Web), CodePodRefused)
		w.runtime.set(func() { w.runtime.dead = map[string]bool{"c1": true} })
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := w.create(p, "c3", policytest.Web); err != nil {
			t.Errorf("after it was stopped: %v", err)
		}
	})
}

func TestAManifestThatAdmitsAgainOpensAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, unlisted(policy.UnlistedCut))
		w.background()
		seen := w.watch()
		p := w.announced(podOf("shop"))
		w.started(p, "c1", policytest.Web)
		seen.want(false, "shop", "")
		listed := w.fixture.Manifest.Workloads
		w.next(noWeb)
		seen.want(true, "shop", "workload-unlisted")
		w.next(func(m *policy.Manifest) { m.Workloads = listed })
		seen.want(false, "shop", "")
	})
}

func TestASandboxThatIsNotListedAnyMoreGoes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.background()
		p := w.announced(podOf("shop"))
		w.started(p, "c1", policytest.Web)
		w.next(func(m *policy.Manifest) { m.Sandboxes[0].Digest = policytest.Digest("pause:2") })
		synctest.Wait()
		if stops := w.runtime.stops(); !slices.Equal(stops, []string{p.id}) {
			t.Errorf("stopped %v", stops)
		}
		wantCode(t, w.create(p, "c2", side), policy.CodeSandboxUnlisted)
	})
}

// running is what a restarted daemon finds: nobody asked it about these.
func (w *world) running(p testPod, containers ...*api.Container) {
	w.runtime.sandbox(p)
	for _, c := range containers {
		w.runtime.container(p, c.Id, c.Name, p.spec(c.Name))
	}
	w.e.synchronize([]*api.PodSandbox{p.nri()}, containers)
}

func TestWhatRunsWhenTheDaemonStartsIsJudged(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.background()
		seen := w.watch()
		p := podOf("shop")
		w.running(p, p.container("c1", policytest.Web), p.container("c2", side))
		e := seen.want(false, "shop", "")
		if len(e.Pod.Images) != 2 {
			t.Errorf("%+v", e.Pod)
		}
		if err := w.e.starting(t.Context(), p.container("c1", policytest.Web)); err != nil {
			t.Errorf("made before the daemon came, started after: %v", err)
		}
		wantCode(t, w.create(p, "c3", policytest.DB), policy.CodeImageUnlisted) // bound as before
	})
}

func TestWhatRunsUnlistedWhenTheDaemonStartsIsStoppedOrCut(t *testing.T) {
	for _, how := range []string{policy.UnlistedStop, policy.UnlistedCut} {
		inBubble(t, func(t *testing.T) {
			w := newWorld(t, unlisted(how))
			w.background()
			p := podOf("shop")
			w.running(p, p.container("c1", policytest.Web), p.container("c2", "unlisted"))
			synctest.Wait()
			want := map[string][]string{policy.UnlistedStop: {"c2"}}[how]
			if stops := w.runtime.stops(); !slices.Equal(stops, want) {
				t.Errorf("%s: stopped %v, want %v", how, stops, want)
			}
			if pods, cut, _ := w.e.meshPods(); len(pods) != 0 || cut[p.uid] == "" {
				t.Errorf("%s: in the mesh: %v, cut: %v", how, pods, cut)
			}
			w.e.ended("c2")
			if pods, _, _ := w.e.meshPods(); len(pods) != 1 {
				t.Errorf("%s: not in the mesh without it", how)
			}
		})
	}
}

func TestWithoutContainerdsWordNothingThatRunsIsInTheMeshAndNothingIsStopped(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.background()
		w.runtime.set(func() { w.runtime.away = true })
		p := podOf("shop")
		w.running(p, p.container("c1", policytest.Web))
		time.Sleep(time.Minute)
		synctest.Wait()
		if pods, _, _ := w.e.meshPods(); len(pods) != 0 || len(w.runtime.stops()) != 0 {
			t.Fatalf("in the mesh %v, stopped %v", pods, w.runtime.stops())
		}
		w.runtime.set(func() { w.runtime.away = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		if pods, _, _ := w.e.meshPods(); len(pods) != 1 {
			t.Error("not judged when containerd answered again")
		}
	})
}

func TestNothingIsStoppedBeforeThereIsAManifest(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t)
		w.e.Manifest(nil)
		w.background()
		p := podOf("shop")
		w.running(p, p.container("c1", "unlisted"))
		time.Sleep(time.Hour)
		synctest.Wait()
		if pods, _, _ := w.e.meshPods(); len(pods) != 0 || len(w.runtime.stops()) != 0 {
			t.Fatalf("in the mesh %v, stopped %v", pods, w.runtime.stops())
		}
		w.e.Manifest(w.fixture.Signed)
		synctest.Wait()
		if stops := w.runtime.stops(); !slices.Equal(stops, []string{"c1"}) {
			t.Errorf("stopped %v", stops)
		}
	})
}

func TestSynchronizingForgetsWhatIsGone(t *testing.T) {
	w := newWorld(t)
	p, q := w.announced(podOf("shop")), w.announced(podOf("store"))
	w.started(p, "c1", policytest.Web)
	w.started(p, "c2", side)
	w.started(q, "c3", policytest.DB)
	dead := podOf("dead").nri()
	dead.Pid = 0
	made := podOf("made") // its sandbox was asked about, and is not announced yet
	w.runtime.sandbox(made)
	wantCode(t, w.e.Create(t.Context(), w.request(made.id, made.sandboxSpec())), policy.CodeAllowed)
	w.e.synchronize([]*api.PodSandbox{p.nri(), dead}, []*api.Container{p.container("c1", policytest.Web)})
	if len(w.e.pods) != 2 || w.e.pods[made.id] == nil || len(w.e.pods[p.id].containers) != 1 {
		t.Errorf("%v", w.e.pods)
	}
	if pods, _, _ := w.e.meshPods(); len(pods) != 1 {
		t.Errorf("what was known is judged anew: %v", pods)
	}
}

func TestASandboxThatIsMadeAnewIsAnotherPod(t *testing.T) {
	w := newWorld(t)
	seen := w.watch()
	p := w.announced(podOf("shop"))
	w.started(p, "c1", policytest.Web)
	first := seen.want(false, "shop", "")
	w.e.gone(p.id)
	p.id = "sandbox-shop-2"
	w.announced(p)
	w.started(p, "c2", policytest.Web)
	seen.want(true, "shop", "")
	if second := seen.want(false, "shop", ""); second.Pod.Netns == first.Pod.Netns {
		t.Errorf("%+v", second.Pod)
	}
}

// Pods come and go while manifests change; the race detector is the judge, and
// what is left over in the end.
func TestPodsAndManifestsComeAndGoAtOnce(t *testing.T) {
	w := newWorld(t)
	w.background()
	seen := w.watch()
	with, without := w.fixture.Signed, w.fixture.Next(t, noWeb).Signed
	ctx, cancel := context.WithCancel(t.Context())
	var others, pods sync.WaitGroup
	others.Go(func() {
		for ctx.Err() == nil {
			w.e.Manifest(without)
			w.e.Manifest(with)
		}
	})
	others.Go(func() {
		for {
			select {
			case <-seen.out:
			case <-ctx.Done():
				return
			}
		}
	})
	others.Go(func() {
		registry := prometheus.NewRegistry()
		registry.MustRegister(w.e.Collector())
		for ctx.Err() == nil {
			if _, err := registry.Gather(); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 4 {
		pods.Go(func() {
			for n := range 20 {
				p := podOf(fmt.Sprintf("p%d-%d", i, n))
				c := p.container(p.id+"-c", policytest.Web)
				w.runtime.sandbox(p)
				w.runtime.container(p, c.Id, c.Name, p.spec(c.Name))
				_ = w.e.Create(ctx, w.request(p.id, p.sandboxSpec()))
				_ = w.e.announce(ctx, p.nri())
				_, _ = w.e.creating(ctx, p.nri(), c)
				_ = w.e.Create(ctx, w.request(c.Id, p.spec(c.Name)))
				_ = w.e.starting(ctx, c)
				_ = w.e.update(c, &api.LinuxResources{})
				w.e.ended(c.Id)
				w.e.gone(p.id)
			}
		})
	}
	pods.Wait()
	cancel()
	others.Wait()
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	if len(w.e.pods) != 0 {
		t.Errorf("left over: %v", w.e.pods)
	}
}
