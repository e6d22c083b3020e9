// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/x509"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
)

// keepNodeEnrolled obtains the node's own credential and renews it at half
// its life, or sooner when pods cannot be enrolled with it. Renewal is
// re-attestation.
func (a *Agent) keepNodeEnrolled(ctx context.Context) error {
	fails := 0
	for ctx.Err() == nil {
		began := a.cfg.Now()
		cred, err := a.cfg.CDS.EnrolNode(ctx, a.cfg.Attester)
		if err != nil {
			fails++
			wait := backoff(fails)
			a.cfg.Log.Warn("node enrolment failed", "err", err, "retryIn", wait)
			a.setNodeErr(err.Error())
			sleep(ctx, wait, nil)
			continue
		}
		fails = 0
		a.adoptNode(cred)
		sleep(ctx, nodeMinLife, nil)
		sleep(ctx, renewAt(began, cred.TLS.Leaf.NotAfter).Sub(a.cfg.Now()), a.nodeKick)
	}
	return ctx.Err()
}

// nodeMinLife is the least time between two enrolments of the node.
const nodeMinLife = 2 * time.Second

// sleep waits for d, a kick or the end of ctx.
func sleep(ctx context.Context, d time.Duration, kick <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-kick:
	case <-timer.C:
	}
}

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
	a.mesh.setRoots(cred.Roots, a.cfg.Now()) // before any pod can have a leaf of theirs
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
