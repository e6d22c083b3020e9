// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/c8s-dev/c8s/internal/pause"
	"github.com/c8s-dev/c8s/loader"
)

// preparing has the world's pods reach the kernel only through a tenure.
func (w *world) preparing() *tenure {
	w.books = newTenure(w.kernel)
	w.Agent.kernel = w.books
	return w.books
}

func TestSuccessorsPodsOpenInTheKernelOnlyOnceItOwnsTheNode(t *testing.T) {
	inWorld(t, func(w *world) {
		held := w.preparing()
		web := w.web()
		was := (&pod{info: web}).kernelPod(7, true, access{})
		w.kernel.pods[7] = was // as its owner has it
		w.add(web)
		if s := w.status(web.UID); s.State != StateOpen {
			t.Fatalf("in the books it is %s (%s)", s.State, s.Detail)
		}
		if w.kernel.sets+w.kernel.locks != 0 {
			t.Errorf("the kernel was touched: %d settings, %d locks", w.kernel.sets, w.kernel.locks)
		}
		if !held.knows(7) || held.knows(8) {
			t.Error("the books do not know which link has a pod")
		}
		if failed := held.begin(); len(failed) != 0 {
			t.Error(failed)
		}
		w.want(web.UID, StateOpen, "")
		if w.kernel.sets != 1 {
			t.Errorf("the pod was set %d times, want once, open", w.kernel.sets)
		}
		w.remove(web)
		if _, known := w.kernel.pod(7); known {
			t.Error("the owner cannot remove the pod")
		}
	})
}

func TestSuccessorClosesWhatItDoesNotAdmit(t *testing.T) {
	inWorld(t, func(w *world) {
		held := w.preparing()
		w.publish(listed("other"))
		web := w.web()
		w.kernel.pods[7] = (&pod{info: web}).kernelPod(7, true, access{})
		w.add(web)
		if p, _ := w.kernel.pod(7); !p.Open {
			t.Error("it was closed before its time")
		}
		held.begin()
		if p, _ := w.kernel.pod(7); p.Open {
			t.Error("a pod that the manifest does not list is open")
		}
	})
}

func TestFormerOwnerCannotTouchTheKernel(t *testing.T) {
	inWorld(t, func(w *world) {
		held := w.preparing()
		held.begin()
		web := w.web()
		w.add(web)
		w.want(web.UID, StateOpen, "")
		held.hold()
		w.publish(listed("other")) // drops the pod
		synctest.Wait()
		w.remove(web)
		if p, known := w.kernel.pod(7); !known || !p.Open {
			t.Errorf("the successor's pod was changed: %+v, %t", p, known)
		}
		// The successor failed: what happened meanwhile is made true.
		if failed := held.begin(); len(failed) != 0 {
			t.Error(failed)
		}
		if _, known := w.kernel.pod(7); known {
			t.Error("the removed pod came back")
		}
	})
}

func TestPodsThatCannotBeTakenOverAreNamed(t *testing.T) {
	k := &fakeKernel{pods: map[int]loader.Pod{}, setErr: errors.New("no")}
	held := newTenure(k)
	for _, ifindex := range []int{7, 8} {
		if err := held.SetPod(loader.Pod{Ifindex: ifindex}); err != nil {
			t.Fatal(err)
		}
	}
	if err := held.DeletePod(8); err != nil {
		t.Fatal(err)
	}
	if failed := held.begin(); len(failed) != 1 || failed[7] == nil {
		t.Errorf("%v", failed)
	}
}

func TestDrainingDaemonRenewsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		w.want(web.UID, StateOpen, "")
		w.succeeded.Store(true)
		w.judgeAgain()
		synctest.Wait()
		pause.For(w.ctx, 2*life, nil)
		if n := len(w.cds.enrolments()); n != 1 {
			t.Errorf("the pod was enrolled %d times", n)
		}
	})
}

// An address that is used again must not reach the pod that had it.
func TestDrainingDaemonForgetsPodsWhoseLinkHasGone(t *testing.T) {
	inWorld(t, func(w *world) {
		held := w.preparing()
		held.begin()
		gone, here := w.web(), w.web()
		here.UID, here.Netns, here.Addrs = "here", "/ns/here", []netip.Addr{netip.MustParseAddr("10.81.1.3")}
		w.link(gone.Netns, 1<<30) // no machine has so many
		w.link(here.Netns, 1)     // every machine has one
		w.add(gone)
		w.add(here)
		held.hold()
		ctx, cancel := context.WithCancel(w.ctx)
		swept := make(chan error, 1)
		go func() { swept <- w.heir().sweepPods(ctx) }()
		pause.For(w.ctx, 2*sweepEvery, nil)
		synctest.Wait()
		if _, known := w.mesh.Pod(gone.Addrs[0]); known {
			t.Error("the pod whose link has gone is still in the mesh")
		}
		if _, known := w.mesh.Pod(here.Addrs[0]); !known {
			t.Error("a pod whose link is there has left the mesh")
		}
		cancel()
		<-swept
	})
}
