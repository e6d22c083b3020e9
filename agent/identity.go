// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/x509"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/internal/pause"
)

// keepNodeEnrolled obtains the node's own credential and renews it around half
// its life, or sooner when pods cannot be enrolled with it. Renewal is
// re-attestation. A node that the operators deny does not ask: it waits for the
// deny list that lifts the denial.
func (a *Agent) keepNodeEnrolled(ctx context.Context) error {
	fails := 0
	for ctx.Err() == nil {
		if d := a.nodeDenied(); !d.Allowed {
			a.setNodeErr(d.Error())
			pause.For(ctx, time.Hour, a.nodeKick)
			continue
		}
		began := a.cfg.Now()
		cred, err := a.enroller.EnrolNode(ctx, a.cfg.Attester)
		if err != nil {
			fails++
			a.nodeFailed(ctx, fails, err)
			continue
		}
		fails = 0
		a.adoptNode(cred)
		pause.For(ctx, nodeMinLife, nil)
		pause.For(ctx, a.pace.Renewal(began, cred.TLS.Leaf.NotAfter, cred.RenewAfter).Sub(a.cfg.Now()), a.nodeKick)
	}
	return ctx.Err()
}

// nodeFailed waits for the next attempt. A node whose certificate is still
// valid has time, unless one of its pods needs another.
func (a *Agent) nodeFailed(ctx context.Context, fails int, err error) {
	wait, more := a.pace.Retry(fails, err), time.Duration(0)
	if cred := a.node.Load(); cred != nil {
		if left := cred.TLS.Leaf.NotAfter.Sub(a.cfg.Now()); left > 0 {
			more = a.pace.RetryRenewal(left, err) - wait
		}
	}
	a.cfg.Log.Warn("node enrolment failed", "err", err, "retryIn", max(wait, wait+more))
	a.setNodeErr(err.Error())
	pause.For(ctx, wait, nil)
	if more > 0 {
		pause.For(ctx, more, a.nodeKick)
	}
}

// nodeMinLife is the least time between two enrolments of the node.
const nodeMinLife = 2 * time.Second

// suspectNode has the node enrol again: a CDS that was restarted is a new CA
// and does not know the old certificate.
func (a *Agent) suspectNode() {
	select {
	case a.nodeKick <- struct{}{}:
	default:
	}
}

// adoptNode takes a new node credential into use. When it is of another mesh
// CA than before, every pod enrols anew; peers that have not done so yet stay
// acceptable until the old CA's last certificate must have expired.
func (a *Agent) adoptNode(cred *client.Credential) {
	a.mesh.roots.Set(cred.Roots, a.cfg.Now()) // before any pod can have a leaf of theirs
	old := a.node.Swap(cred)
	newCA := old != nil && !slices.EqualFunc(old.Roots, cred.Roots, (*x509.Certificate).Equal)
	a.setNodeErr("")
	a.cfg.Log.Info("node enrolled", "id", cred.Peer.ID.String(), "notAfter", cred.TLS.Leaf.NotAfter,
		"simulated", cred.Peer.Claims.Simulated, "newCA", newCA)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.pods {
		if newCA {
			m.pod.reenrol.Store(true)
		}
		if newCA || m.pod.statusNow().ID == "" {
			m.pod.wake()
		}
	}
}

func (a *Agent) setNodeErr(s string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nodeErr = s
}
