// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// deny puts a deny list in force as the watch does.
func (w *world) deny(entries ...policy.Denial) {
	w.t.Helper()
	w.adoptDenyList(w.fixture.DenyList(w.t, w.denied.Load(), entries...))
}

func (w *world) credential(uid string) *client.Credential {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pods[uid].pod.cred // its goroutine sleeps
}

func lastingDenials() map[string]policy.Denial {
	return map[string]policy.Denial{
		"denied-workload":    policytest.Deny(policy.DenyWorkload, "web"),
		"denied-machine":     policytest.Deny(policy.DenyMachine, policytest.Facts().Machine),
		"denied-measurement": policytest.Deny(policy.DenyMeasurement, policytest.Facts().Measurement),
	}
}

func TestDeniedPodIsLockedUntilTheDenialIsLifted(t *testing.T) {
	for code, entry := range lastingDenials() {
		t.Run(code, func(t *testing.T) {
			inWorld(t, func(w *world) {
				web := w.web()
				w.add(web)
				w.want(web.UID, StateOpen, "")
				w.deny(entry)
				w.want(web.UID, StateLocked, code)
				time.Sleep(10 * time.Hour)
				w.want(web.UID, StateLocked, code)
				if n := len(w.cds.enrolments()); n != 1 {
					t.Errorf("a denied pod asked the CDS again: %d enrolments", n)
				}
				w.adoptNode(credential("", life, w.cds.root)) // the old one has expired by now
				w.deny()
				w.want(web.UID, StateOpen, "")
			})
		})
	}
}

func TestPodThatIsDeniedFromTheStartNeverAsks(t *testing.T) {
	for code, entry := range lastingDenials() {
		t.Run(code, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.deny(entry)
				web := w.web()
				w.add(web)
				w.want(web.UID, StateLocked, code)
				if n := len(w.cds.enrolments()); n != 0 {
					t.Errorf("%d enrolments", n)
				}
			})
		})
	}
}

// A denial of a certificate is of this one: the pod enrols with a new key.
func TestDeniedCertificateIsReplaced(t *testing.T) {
	for name, entry := range map[string]func(h policy.Holder) policy.Denial{
		"serial": func(h policy.Holder) policy.Denial { return policytest.Deny(policy.DenySerial, h.Serial) },
		"key":    func(h policy.Holder) policy.Denial { return policytest.Deny(policy.DenyKey, string(h.Key)) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				web := w.web()
				w.add(web)
				old := w.credential(web.UID)
				hold := make(chan struct{})
				w.cds.set(func() { w.cds.hook = func(context.Context) { <-hold } })
				w.deny(entry(old.Peer.Holder()))
				w.want(web.UID, StateAdmitted, "") // locked while it has none
				close(hold)
				w.want(web.UID, StateOpen, "")
				if now := w.credential(web.UID); now == old || now.Peer.Serial == old.Peer.Serial {
					t.Error("the denied certificate is still in use")
				}
				if n := len(w.cds.enrolments()); n != 2 {
					t.Errorf("%d enrolments, want 2", n)
				}
			})
		})
	}
}

func TestDenialDuringEnrolmentIsObeyed(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.cds.hook = func(context.Context) { w.deny(policytest.Deny(policy.DenyWorkload, "web")) }
		w.add(web)
		w.want(web.UID, StateLocked, "denied-workload")
		for _, p := range w.kernel.pods {
			if p.Open {
				t.Error("it was opened")
			}
		}
	})
}

func TestDenialOfOthersTouchesNobody(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		old, sets := w.credential(web.UID), w.kernel.sets
		w.deny(policytest.Deny(policy.DenyWorkload, "db"), policytest.Deny(policy.DenySerial, "ffffffff"))
		w.want(web.UID, StateOpen, "")
		if w.credential(web.UID) != old || w.kernel.sets != sets || len(w.nodeKick) != 0 {
			t.Error("a pod or the node was disturbed")
		}
	})
}

// What ends live tunnels within two seconds of a new list or manifest.
func TestTunnelsAreRecheckedBeforeAdoptionReturns(t *testing.T) {
	inWorld(t, func(w *world) {
		var list *policy.DenyList
		w.recheck = func() { list = w.mesh.DenyList() }
		w.deny(policytest.Deny(policy.DenyWorkload, "other"))
		if list == nil || list != w.denyList() || list.Version != 1 {
			t.Errorf("tunnels were rechecked under %v", list)
		}
	})
}

// A tunnel of a pod that has dropped its certificate can only say that the pod
// is gone, not why.
func TestTunnelsAreRecheckedBeforePodsAct(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		w.want(web.UID, StateOpen, "")
		var had []bool
		var asked atomic.Bool
		w.recheck = func() {
			if !asked.Swap(true) {
				synctest.Wait() // whoever was woken before has acted
			}
			_, ok := w.mesh.Pod(web.Addrs[0])
			had = append(had, ok)
		}
		w.deny(policytest.Deny(policy.DenyWorkload, "web"))
		w.want(web.UID, StateLocked, "denied-workload")
		if len(had) != 2 || !had[0] || had[1] {
			t.Errorf("the pod was in the mesh at the rechecks: %v, want first yes, then no", had)
		}
	})
}

func TestDeniedNodeStopsAskingAndStartsAgainWhenLifted(t *testing.T) {
	inWorld(t, func(w *world) {
		w.node.Store(nil)
		done := make(chan error)
		go func() { done <- w.keepNodeEnrolled(w.ctx) }()
		asked := func() (n int) {
			synctest.Wait()
			w.cds.set(func() { n = w.cds.nodeAsked })
			return n
		}
		if n := asked(); n != 1 || w.Ready() != nil {
			t.Fatalf("%d enrolments, ready: %v", n, w.Ready())
		}
		time.Sleep(nodeMinLife)
		w.deny(policytest.Deny(policy.DenyMachine, policytest.Facts().Machine))
		time.Sleep(10 * time.Hour)
		if n := asked(); n != 1 {
			t.Errorf("a denied node asked the CDS %d times more", n-1)
		}
		w.mu.Lock()
		why := w.nodeErr
		w.mu.Unlock()
		if w.Ready() == nil || why == "" {
			t.Errorf("ready: %v, status says %q", w.Ready(), why)
		}
		w.deny()
		if n := asked(); n != 2 || w.Ready() != nil {
			t.Errorf("after the denial was lifted: %d enrolments, ready: %v", n, w.Ready())
		}
		// A denial of its certificate has it take another.
		time.Sleep(nodeMinLife)
		w.deny(policytest.Deny(policy.DenySerial, w.node.Load().Peer.Serial))
		if n := asked(); n != 3 || w.Ready() != nil {
			t.Errorf("after its certificate was denied: %d enrolments, ready: %v", n, w.Ready())
		}
		w.cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestWhatExpiresIsJudgedAgainWhenItDoes(t *testing.T) {
	inWorld(t, func(w *world) {
		start := time.Now()
		expiry := start.Add(time.Hour).UTC().Truncate(time.Second)
		w.base.Substrates[0].Measurements = append(w.base.Substrates[0].Measurements, policytest.Hex(0xbb, 48))
		w.base.Substrates[0].Expires = map[string]string{policytest.Hex(0xbb, 48): expiry.Format(time.RFC3339)}
		w.publish(listed("web"))
		rechecked := func(at time.Time) bool {
			before := w.rechecks.Load()
			w.passTime(at)
			return w.rechecks.Load() > before
		}
		for _, step := range []struct {
			name string
			at   time.Time
			want bool
		}{
			{"start", start, false},
			{"a second before", expiry.Add(-time.Second), false},
			{"the moment", expiry, true},
			{"a second later", expiry.Add(time.Second), false},
			{"the clock jumps back", start, true},
			{"and stays there", start.Add(time.Second), false},
			{"it jumps far ahead", expiry.Add(1000 * time.Hour), true},
			{"and stays there", expiry.Add(1001 * time.Hour), false},
		} {
			if got := rechecked(step.at); got != step.want {
				t.Errorf("%s: rechecked %t, want %t", step.name, got, step.want)
			}
		}
	})
}
