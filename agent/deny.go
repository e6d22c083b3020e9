// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/policy"
)

// adoptDenyList puts a deny list in force, has every pod and every tunnel
// judged by it, and wakes the node where it is concerned itself. The list was
// judged by the client (operator signatures, never backwards).
func (a *Agent) adoptDenyList(next *policy.SignedDenyList) {
	before := a.denyList()
	a.denied.Store(next)
	a.cfg.Log.Info("deny list in force", "version", next.List.Version, "digest", next.Digest, "entries", len(next.List.Entries))
	a.judgeAgain()
	if node := a.node.Load(); node != nil {
		h := node.Peer.Holder()
		was, is := before.Denies(h), next.List.Denies(h)
		if !is.Allowed {
			a.cfg.Log.Warn("the operators deny this node", "code", is.Code, "rule", is.Rule, "actual", is.Actual, "remedy", is.Remedy)
		}
		if was.Allowed != is.Allowed || was.Code != is.Code {
			a.suspectNode()
		}
	}
}

// denyList is the list in force; nil, which denies nobody, where there is none.
func (a *Agent) denyList() *policy.DenyList {
	if signed := a.denied.Load(); signed != nil {
		return signed.List
	}
	return nil
}

// judgeAgain has every tunnel and every pod judged by what holds now: first the
// tunnels, whose records then say what ended them. Once a pod has dropped its
// certificate they can only say that it is gone.
func (a *Agent) judgeAgain() {
	a.recheck()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.pods {
		m.pod.judgeAgain()
	}
}

// nodeDenied asks about what no new certificate changes: the machine and what
// it measured. Before its first enrolment a node does not know either, and the
// CDS answers instead.
func (a *Agent) nodeDenied() policy.Decision {
	return a.denyList().Denies(lasting(a.node.Load(), ""))
}

// lasting is what stays of a holder when it enrols again.
func lasting(cred *client.Credential, workload string) policy.Holder {
	h := policy.Holder{Workload: workload}
	if cred != nil {
		h.Machine, h.Measurement = cred.Peer.Claims.Machine, cred.Peer.Claims.Measurement
	}
	return h
}

// denied asks whether the pod may not be at all, with whatever certificate.
func (p *pod) denied(list *policy.DenyList, entry *policy.Workload) policy.Decision {
	if d := list.Denies(lasting(p.a.node.Load(), entry.Name)); !d.Allowed || p.cred == nil {
		return d
	}
	return list.Denies(lasting(p.cred, entry.Name))
}

// dropDenied drops a certificate that is denied itself. The pod may have
// another.
func (p *pod) dropDenied(list *policy.DenyList) {
	if p.cred == nil {
		return
	}
	h := p.cred.Peer.Holder()
	d := list.Denies(policy.Holder{Serial: h.Serial, Key: h.Key, IssuerKey: h.IssuerKey})
	if d.Allowed {
		return
	}
	p.log.Warn("the pod's certificate is denied, enrolling again", "code", d.Code, "rule", d.Rule, "actual", d.Actual)
	p.drop()
}
