// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/policy"
)

// enrolWhile is enrol, which an open pod gives up when the documents it was
// judged by are no longer in force.
func (p *pod) enrolWhile(ctx context.Context, inForce func() bool, entry *policy.Workload, digest policy.Digest) error {
	if p.opened {
		var giveUp context.CancelFunc
		ctx, giveUp = context.WithCancel(ctx)
		defer giveUp()
		p.renewal.Store(&giveUp)
		defer p.renewal.Store(nil)
		if !inForce() { // it changed before there was anything to give up
			return context.Canceled
		}
	}
	return p.enrol(ctx, entry, digest)
}

// enrol obtains a certificate for the pod, and puts it to use.
func (p *pod) enrol(ctx context.Context, entry *policy.Workload, digest policy.Digest) error {
	node := p.a.node.Load()
	if node == nil {
		return errNodeNotEnrolled
	}
	began := p.a.cfg.Now()
	of := p.of.Load()
	pod := client.Pod{
		Namespace: p.info.Namespace, Name: p.info.Name, UID: p.info.UID,
		Images: of.images, Signed: of.signed, Entry: entry.Name, Addrs: p.info.Addrs,
	}
	if p.a.cfg.PodEvidence {
		pod.Attester = p.a.cfg.Attester
	}
	cred, err := p.a.enroller.EnrolPod(ctx, node, pod)
	if err != nil {
		return err
	}
	if err := p.a.denyList().Denies(cred.Peer.Holder()).Err(); err != nil {
		return fmt.Errorf("using the certificate that was just issued: %w", err)
	}
	p.fails = 0
	p.entry, p.digest, p.cred = entry, digest, cred
	p.renew = p.a.pace.Renewal(began, cred.TLS.Leaf.NotAfter, cred.RenewAfter)
	p.cert.Store(datapath.NewCredential(&cred.TLS, cred.Peer))
	if !p.opened {
		p.set(StateEnrolled, "", "")
	}
	p.log.Info("pod enrolled", "id", cred.Peer.ID.String(), "notAfter", cred.TLS.Leaf.NotAfter, "simulated", cred.Peer.Claims.Simulated)
	return nil
}

// enrolFailed keeps a still valid credential in use, and locks the pod when
// there is none.
func (p *pod) enrolFailed(ctx context.Context, err error) time.Duration {
	if ctx.Err() != nil {
		return 0 // the pod or the daemon ends; nobody failed
	}
	if nodeSuspect(err) {
		p.a.suspectNode()
	}
	if p.cred != nil {
		if left := p.cred.TLS.Leaf.NotAfter.Sub(p.a.cfg.Now()); left > 0 {
			wait := p.a.pace.RetryRenewal(left, err)
			if p.reenrol.Load() { // it is not due, but peers may not know the old CA
				wait = min(left, p.a.pace.Retry(p.fails+1, err))
			}
			return p.heldBack(ctx, p.statusNow().State, "renewal-failed", err, wait)
		}
	}
	p.drop()
	if errors.Is(err, errNodeNotEnrolled) {
		p.set(StateAdmitted, "node-not-enrolled", err.Error())
		return client.RetryMax // woken when the node is
	}
	return p.failed(ctx, StateAdmitted, "enrolment-failed", err)
}

// nodeSuspect reports whether err may be cured by the node enrolling again: it
// is not when the CDS understood the node and refused the pod, and not while
// nobody answers.
func nodeSuspect(err error) bool {
	var refused *client.RefusedError
	var denied policy.Decision
	var network *net.OpError
	switch {
	case errors.As(err, &refused):
		return slices.Contains([]string{
			"node-certificate-required", "evidence-unknown", string(policy.CodeDeniedSerial), string(policy.CodeDeniedKey),
		}, refused.Code)
	case errors.As(err, &denied):
		return false
	case errors.As(err, &network):
		return network.Op != "dial"
	}
	return !errors.Is(err, errNodeNotEnrolled)
}
