// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
)

func TestListedPodOpensAndIsDeletedWhenRemoved(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		w.want(web.UID, StateOpen, "")
		w.bindings.Learn(web.UID, "api.example.com", web.Addrs, time.Hour)
		w.remove(web)
		if s := w.bindings.Stats(); s.Held != 0 {
			t.Errorf("what the pod was answered is kept: %+v", s)
		}
		if _, known := w.kernel.pod(7); known || len(w.kernel.deleted) != 1 {
			t.Errorf("the kernel still knows the pod (deleted %v)", w.kernel.deleted)
		}
		if _, known := w.mesh.Pod(web.Addrs[0]); known {
			t.Error("the mesh still knows the pod")
		}
		if len(w.pods)+len(w.ending) != 0 {
			t.Errorf("%d pods, %d ending remain", len(w.pods), len(w.ending))
		}
	})
}

func TestPodHasEvidenceOfItsOwnWhereTheNodeIsToldTo(t *testing.T) {
	for _, told := range []bool{false, true} {
		inWorld(t, func(w *world) {
			w.cfg.PodEvidence, w.cfg.Attester = told, simtest.Attester(t, "node")
			web := w.web()
			w.add(web)
			w.want(web.UID, StateOpen, "")
			if w.cds.fresh != told {
				t.Errorf("told %v, the pod brings evidence: %v", told, w.cds.fresh)
			}
		})
	}
}

func TestPodIsClosedInTheKernelBeforeItIsJudged(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		old := (&pod{info: web}).kernelPod(7, true, access{host: true}) // as an earlier daemon left it
		w.kernel.pods[7] = old
		w.cds.hook = func(ctx context.Context) { <-ctx.Done() }
		w.add(web)
		w.want(web.UID, StateAdmitted, "")
		w.remove(web)
	})
}

func TestWhatHoldsAPodBackHasAStateAndACode(t *testing.T) {
	failure := errors.New("no")
	for _, tt := range []struct {
		name  string
		state State
		code  string
		cause func(*world, *PodInfo)
		cure  func(*world)
	}{
		{
			"namespace unknown", StateSeen, "lock-failed",
			func(w *world, _ *PodInfo) { w.link("/ns/web", 0) }, func(w *world) { w.link("/ns/web", 7) },
		},
		{
			"link cannot be locked", StateSeen, "lock-failed",
			func(w *world, _ *PodInfo) { w.kernel.setErrs(failure, nil) }, func(w *world) { w.kernel.setErrs(nil, nil) },
		},
		{
			"kernel refuses the pod", StateSeen, "lock-failed",
			func(w *world, _ *PodInfo) { w.kernel.setErrs(nil, failure) }, func(w *world) { w.kernel.setErrs(nil, nil) },
		},
		{
			"image not listed", StateLocked, string(policy.CodeImageUnlisted),
			func(w *world, p *PodInfo) { w.publish(listed("db")) }, func(w *world) { w.publish(listed("web")) },
		},
		{
			"node not enrolled", StateAdmitted, "node-not-enrolled",
			func(w *world, _ *PodInfo) { w.node.Store(nil) }, func(w *world) { w.adoptNode(credential("", life, w.cds.root)) },
		},
		{
			"CDS refuses", StateAdmitted, "enrolment-failed",
			func(w *world, _ *PodInfo) { w.cds.err = failure }, func(w *world) { w.cds.set(func() { w.cds.err = nil }) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				web := w.web()
				tt.cause(w, &web)
				w.add(web)
				w.want(web.UID, tt.state, tt.code)
				tt.cure(w)
				time.Sleep(2 * client.RetryMin)
				w.want(web.UID, StateOpen, "")
			})
		})
	}
}

func TestAddressBelongsToOnePodUntilItIsGone(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		second := web
		second.UID, second.Name, second.Netns = "second", "web-1", "/ns/second"
		w.link("/ns/second", 8)
		w.add(second)
		w.wantConflict(second.UID)
		w.want(web.UID, StateOpen, "")
		w.remove(web)
		time.Sleep(client.RetryMax)
		w.want(second.UID, StateOpen, "")
	})
}

func (w *world) wantConflict(uid string) {
	w.t.Helper()
	if s := w.status(uid); s.State != StateEnrolled || s.Reason != "open-failed" {
		w.t.Errorf("the second claimant is %s %q (%s)", s.State, s.Reason, s.Detail)
	}
	if p, _ := w.kernel.pod(8); p.Open {
		w.t.Error("the second claimant is open in the kernel")
	}
}

func TestRetriesBackOffAndRefusalsOfThePodLeaveTheNodeAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.cds.err = &client.RefusedError{Code: "image-unlisted"}
		web := w.web()
		w.add(web)
		time.Sleep(10 * time.Minute)
		asked := w.cds.enrolments()
		if n := len(asked); n < 20 || n > 55 {
			t.Errorf("%d attempts in 10 minutes", n)
		}
		if last := asked[len(asked)-1].Sub(asked[len(asked)-2]); last < client.RetryMax/2 || last > client.RetryMax {
			t.Errorf("the last wait was %s, want between %s and %s", last, client.RetryMax/2, client.RetryMax)
		}
		if len(w.nodeKick) != 0 {
			t.Error("the node is to enrol again because a pod was refused")
		}
		w.cds.set(func() { w.cds.err = &client.RefusedError{Code: "evidence-unknown"} })
		time.Sleep(client.RetryMax)
		if len(w.nodeKick) != 1 {
			t.Error("the node does not enrol again although the CDS does not know it")
		}
	})
}

func TestManifestChange(t *testing.T) {
	reached, probed, changed := listed("web"), listed("web"), listed("web")
	reached.HostAccess = true
	probed.Probes = []uint16{8080}
	changed.Namespaces = []string{"default"}
	for _, tt := range []struct {
		name       string
		next       policy.Workload
		state      State
		code       string
		enrolments int
	}{
		{"entry unchanged", listed("web"), StateOpen, "", 1},
		{"host access given", reached, StateOpen, "", 1},
		{"probes given", probed, StateOpen, "", 1},
		{"entry changed", changed, StateOpen, "", 2},
		{"entry gone", listed("db"), StateLocked, string(policy.CodeImageUnlisted), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				web := w.web()
				w.add(web)
				sets := w.kernel.sets
				w.publish(tt.next, listed("other"))
				w.want(web.UID, tt.state, tt.code)
				if n := len(w.cds.enrolments()); n != tt.enrolments {
					t.Errorf("%d enrolments, want %d", n, tt.enrolments)
				}
				if tt.name == "entry unchanged" && w.kernel.sets != sets {
					t.Error("the kernel was asked although nothing changed")
				}
				if p, _ := w.kernel.pod(7); p.HostAccess != tt.next.HostAccess || !slices.Equal(p.Probes, tt.next.Probes) {
					t.Errorf("host access is %t, probes are %v", p.HostAccess, p.Probes)
				}
			})
		})
	}
}

func TestLockThatTheKernelDidNotTakeIsAskedForAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		w.kernel.setErrs(nil, errors.New("map is busy"))
		w.publish(listed("db"))
		synctest.Wait()
		if _, known := w.mesh.Pod(web.Addrs[0]); known {
			t.Error("the mesh still serves the pod")
		}
		w.kernel.setErrs(nil, nil)
		time.Sleep(client.RetryMin)
		w.want(web.UID, StateLocked, string(policy.CodeImageUnlisted))
	})
}

func TestManifestThatChangesDuringEnrolmentIsObeyed(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.cds.hook = func(context.Context) { w.publish(listed("db")) }
		w.add(web)
		w.want(web.UID, StateLocked, string(policy.CodeImageUnlisted))
		for _, p := range w.kernel.pods {
			if p.Open {
				t.Error("it was opened")
			}
		}
	})
}

func TestChangedDescriptionBeginsAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		old, _ := w.mesh.Pod(web.Addrs[0])
		w.link("/ns/web", 9)
		w.add(web)
		w.want(web.UID, StateOpen, "")
		if _, known := w.kernel.pod(7); known {
			t.Error("the old link is still a pod's")
		}
		if p, _ := w.mesh.Pod(web.Addrs[0]); p == old {
			t.Error("the old identity was carried over")
		}
	})
}

func TestRemovedAndAddedAgainAtOnceIsOpen(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		for range 100 {
			w.podEvent(w.ctx, PodEvent{Pod: web})
			w.podEvent(w.ctx, PodEvent{Removed: true, Pod: web})
		}
		w.add(web)
		w.want(web.UID, StateOpen, "")
	})
}

// A pod with CAP_NET_ADMIN makes and removes links as it likes.
func TestPodWhoseLinksComeAndGoCostsTheOthersLittle(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		for range 600 {
			w.stray(web.Netns, "dummy0 (dummy)")
			w.want(web.UID, StateLocked, string(CodePodLink))
			time.Sleep(50 * time.Millisecond)
			w.stray(web.Netns)
			time.Sleep(50 * time.Millisecond)
		}
		if n := len(w.cds.enrolments()); n > 15 {
			t.Errorf("certified %d times within a minute", n)
		}
		if n := w.rechecks.Load(); n > 20 {
			t.Errorf("all connections were looked at %d times within a minute", n)
		}
		time.Sleep(client.RetryMax)
		w.want(web.UID, StateOpen, "")
		time.Sleep(straysForgotten)
		w.stray(web.Netns, "dummy0 (dummy)")
		w.stray(web.Netns)
		w.want(web.UID, StateOpen, "") // long after, one is the first again
	})
}

func TestOnlySomeOfManyLinksAreNamed(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		many := make([]string, 10_000)
		for i := range many {
			many[i] = fmt.Sprintf("d%d (dummy)", i)
		}
		w.stray(web.Netns, many...)
		w.want(web.UID, StateLocked, string(CodePodLink))
		if d := w.status(web.UID).Detail; len(d) > 1000 || !strings.Contains(d, "d0 (dummy), ") || !strings.Contains(d, "and 9995 more") {
			t.Errorf("%d bytes: %.200s", len(d), d)
		}
	})
}

func TestPodWithAnotherLinkIsLockedUntilItIsGone(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		w.want(web.UID, StateOpen, "")
		rechecks := w.rechecks.Load()
		w.stray(web.Netns, "net1 (macvlan)")
		w.want(web.UID, StateLocked, string(CodePodLink))
		if p, _ := w.kernel.pod(7); p.Open {
			t.Error("the kernel has the pod open")
		}
		if _, known := w.mesh.Pod(web.Addrs[0]); known || w.rechecks.Load() == rechecks {
			t.Error("the mesh still knows the pod, or its connections were not looked at")
		}
		w.stray(web.Netns)
		w.want(web.UID, StateOpen, "")
	})
}
