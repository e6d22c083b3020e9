// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// waitOpen asks in the background, as the runtime does for a container.
func (w *world) waitOpen(uid string) <-chan error {
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	go func() {
		defer cancel()
		done <- w.WaitOpen(ctx, uid)
	}()
	synctest.Wait()
	return done
}

func stillWaiting(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	default:
	}
}

func TestWaitOpenEndsWhenThePodIsOpen(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.cds.set(func() { w.cds.err = errors.New("away") })
		done := w.waitOpen(web.UID) // nobody has named the pod yet
		stillWaiting(t, done)
		w.add(web)
		stillWaiting(t, done)
		w.cds.set(func() { w.cds.err = nil })
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := w.WaitOpen(w.ctx, web.UID); err != nil {
			t.Errorf("a pod that is open: %v", err)
		}
	})
}

func TestWaitOpenSaysWhyAPodIsNotOpen(t *testing.T) {
	inWorld(t, func(w *world) {
		web := w.web()
		w.cds.set(func() { w.cds.err = errors.New("the CDS says no") })
		w.add(web)
		var held *HeldBackError
		err := <-w.waitOpen(web.UID)
		if !errors.As(err, &held) || held.Reason != "enrolment-failed" || held.Pod != "default/web-0" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a CDS that stays away: %v", err)
		}

		w.publish(listed("other"))
		began := time.Now()
		err = <-w.waitOpen(web.UID)
		if !errors.As(err, &held) || held.Reason != "image-unlisted" || time.Since(began) != 0 {
			t.Errorf("a pod that the manifest refuses: %v after %v, want it at once", err, time.Since(began))
		}
	})
}
