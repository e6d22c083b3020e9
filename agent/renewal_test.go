// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cds/client"
)

// renewedBy is the last moment of a certificate's life at which client.Pace
// renews it.
const renewedBy = life * 70 / 100

func TestCertificateIsRenewedWithoutTouchingTheKernel(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		local, _ := w.mesh.Pod(web.Addrs[0])
		first, sets, until := local.Credential(), w.kernel.sets, w.status(web.UID).NotAfter
		time.Sleep(renewedBy)
		w.want(web.UID, StateOpen, "")
		if now, _ := w.mesh.Pod(web.Addrs[0]); now != local || now.Credential() == first {
			t.Error("want the same pod in the mesh with a new certificate")
		}
		if !w.status(web.UID).NotAfter.After(until) {
			t.Error("status shows the old expiry")
		}
		if w.kernel.sets != sets {
			t.Error("the kernel was asked")
		}
	})
}

func TestFailedRenewalKeepsThePodUntilExpiryThenLocksIt(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		expiry := w.status(web.UID).NotAfter
		w.cds.set(func() { w.cds.err = errors.New("away") })
		time.Sleep(time.Until(expiry) - time.Millisecond)
		w.want(web.UID, StateOpen, "renewal-failed")
		if local, ok := w.mesh.Pod(web.Addrs[0]); !ok || local.Credential() == nil {
			t.Error("the certificate went before its time")
		}
		time.Sleep(time.Millisecond)
		w.want(web.UID, StateAdmitted, "enrolment-failed")
		w.cds.set(func() { w.cds.err = nil })
		time.Sleep(client.RetryMax)
		w.want(web.UID, StateOpen, "")
	})
}

func TestManifestIsObeyedWhileRenewalFails(t *testing.T) {
	inWorld(t, func(w *world) {
		web, entry := w.web(), listed("web")
		entry.HostAccess = true
		w.publish(entry)
		w.add(web)
		w.cds.set(func() { w.cds.err = errors.New("away") })
		time.Sleep(renewedBy)
		w.want(web.UID, StateOpen, "renewal-failed")
		w.publish(listed("web"))
		synctest.Wait()
		if p, _ := w.kernel.pod(7); p.HostAccess {
			t.Error("host access was withdrawn and is still given")
		}
		w.publish(listed("db"))
		w.want(web.UID, StateLocked, "image-unlisted")
	})
}

// Whoever is between the node and the CDS can hold up a renewal, but not what a
// new manifest says about the pod.
func TestManifestIsObeyedWhileTheCDSKeepsARenewalWaiting(t *testing.T) {
	inWorld(t, func(w *world) {
		web, entry := w.web(), listed("web")
		entry.HostAccess = true
		w.publish(entry)
		w.add(web)
		w.want(web.UID, StateOpen, "")
		waits := 0
		w.cds.set(func() { w.cds.hook = func(ctx context.Context) { waits++; <-ctx.Done() } })
		time.Sleep(renewedBy)
		w.want(web.UID, StateOpen, "")
		if waits != 1 {
			t.Fatalf("%d renewals wait", waits)
		}
		w.publish(listed("web"))
		synctest.Wait()
		if p, _ := w.kernel.pod(7); p.HostAccess {
			t.Error("host access was withdrawn and is still given")
		}
		w.stray("/ns/web", "net1 (macvlan)")
		if w.cuts("/ns/web") == 0 {
			t.Error("another link of the pod is left alone")
		}
		w.stray("/ns/web")
		w.publish(listed("db"))
		w.want(web.UID, StateLocked, "image-unlisted")
		if len(w.nodeKick) != 0 {
			t.Error("a renewal that was given up is held against the node")
		}
	})
}

func TestNewCAHasEveryPodEnrolAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.add(web)
		old := w.cds.root
		w.adoptNode(credential("", life, old))
		synctest.Wait()
		if n := len(w.cds.enrolments()); n != 1 {
			t.Errorf("the same CA: %d enrolments, want 1", n)
		}
		next := newRoot(t)
		w.cds.set(func() { w.cds.err = errors.New("not yet") })
		w.adoptNode(credential("", life, next))
		w.want(web.UID, StateOpen, "renewal-failed")
		w.cds.set(func() { w.cds.err = nil })
		time.Sleep(time.Second)
		w.want(web.UID, StateOpen, "")
		if n := len(w.cds.enrolments()); n < 3 {
			t.Errorf("a new CA: %d enrolments", n)
		}
		if w.mesh.roots.Expire(time.Now()) || !w.mesh.Roots().Equal(pool(old, next)) {
			t.Error("the old CA is not accepted any more, or the new one not yet")
		}
		time.Sleep(ca.MaxLife - time.Second)
		if !w.mesh.roots.Expire(time.Now()) || !w.mesh.Roots().Equal(pool(next)) {
			t.Error("the old CA outlives its last certificate")
		}
	})
}

func pool(roots ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, r := range roots {
		p.AddCert(r)
	}
	return p
}

func TestPodRemovedWhileItEnrolsHoldsNobodyUp(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		release := make(chan struct{})
		w.cds.hook = func(context.Context) { <-release } // deaf to the context
		w.add(web)
		w.want(web.UID, StateAdmitted, "")
		w.cds.set(func() { w.cds.hook = nil })
		w.remove(web) // returns at once, or the bubble deadlocks
		other := web
		other.UID, other.Netns, other.Addrs = "other", "/ns/other", nil
		w.link("/ns/other", 8)
		w.add(other)
		w.want(other.UID, StateOpen, "")
		successor := web
		successor.UID = "successor"
		w.add(successor)
		w.want(successor.UID, StateSeen, "") // waits for the first to be gone
		close(release)
		w.want(successor.UID, StateOpen, "")
		if len(w.nodeKick) != 0 {
			t.Error("an enrolment that was called off is held against the node")
		}
	})
}

func TestDaemonsEndLeavesTheKernelAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		web, ctx := w.web(), w.ctx
		var cancel context.CancelFunc
		w.ctx, cancel = context.WithCancel(ctx)
		w.add(web)
		cancel()
		w.pending.Wait()
		if p, _ := w.kernel.pod(7); !p.Open || len(w.kernel.deleted) != 0 {
			t.Errorf("the kernel was changed: %+v, deleted %v", p, w.kernel.deleted)
		}
	})
}
