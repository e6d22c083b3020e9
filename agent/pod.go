// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/policy"
)

// How soon a failed step is tried again. Refusals by the manifest are not
// retried by time: only a new manifest can change them.
const (
	retryMin = 200 * time.Millisecond
	retryMax = 30 * time.Second
)

// pod drives one pod from seen to closed. One goroutine owns it; status reads
// go through mu.
type pod struct {
	info    PodInfo
	a       *Agent
	log     *slog.Logger
	kick    chan struct{} // manifest or node credential changed
	cert    atomic.Pointer[tls.Certificate]
	reenrol atomic.Bool  // the mesh CA changed: the credential is of no use any more
	link    atomic.Int32 // host side ifindex once locked, else 0

	entry  *policy.Workload // as admitted
	digest policy.Digest    // of entry
	cred   *client.Credential
	renew  time.Time // when cred is to be replaced
	fails  int

	mu     sync.Mutex
	status PodStatus
}

func newPod(a *Agent, info PodInfo) *pod {
	return &pod{
		info: info, a: a, kick: make(chan struct{}, 1),
		log:    a.cfg.Log.With("pod", info.Ref(), "uid", info.UID),
		status: PodStatus{Pod: info.Ref(), UID: info.UID, Addrs: info.Addrs, State: StateSeen},
	}
}

// run keeps the pod where the manifest and the CDS allow it to be, until ctx
// ends because the pod is gone. When the whole daemon ends it leaves the
// kernel state alone: the pod stays locked, because no listener answers.
func (p *pod) run(ctx context.Context) {
	for {
		wait := p.step(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-p.kick:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// wake makes the pod look at the manifest and its credential again.
func (p *pod) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// step brings the pod as far as it may go now and says when to look again.
func (p *pod) step(ctx context.Context) time.Duration {
	if p.link.Load() == 0 {
		if err := p.lock(ctx); err != nil {
			return p.failed(ctx, StateSeen, "lock-failed", err)
		}
		p.set(StateLocked, "", "")
	}
	signed := p.a.manifest.Load()
	entry, decision := signed.Manifest.Admit(policy.PodFacts{
		Namespace: p.info.Namespace, Name: p.info.Name, UID: p.info.UID, Images: p.info.Images, Entry: p.info.Entry,
	})
	if !decision.Allowed {
		p.shut(decision)
		return time.Hour
	}
	digest := entry.Digest()
	now := p.a.cfg.Now()
	if p.reenrol.Swap(false) {
		p.renew = now
	}
	if p.cred == nil || digest != p.digest || !now.Before(p.renew) {
		if p.cred == nil || digest != p.digest {
			p.drop()
			p.set(StateAdmitted, "", "")
		}
		if err := p.enrol(ctx, entry, digest); err != nil {
			return p.enrolFailed(ctx, err)
		}
	}
	if err := p.open(entry.HostAccess); err != nil {
		return p.failed(ctx, StateEnrolled, "open-failed", err)
	}
	p.fails = 0
	return p.renew.Sub(p.a.cfg.Now())
}

// lock puts deny-all on the pod's link. The link watcher has usually done so
// already, at the link's birth.
func (p *pod) lock(ctx context.Context) error {
	ifindex, err := hostLink(p.info.Netns, p.info.Interface)
	if err != nil {
		return err
	}
	if err := p.a.cfg.Loader.LockLink(ctx, ifindex); err != nil {
		return err
	}
	if err := p.a.cfg.Loader.SetPod(p.kernelPod(ifindex, false, false)); err != nil {
		return err
	}
	p.link.Store(int32(ifindex))
	return nil
}

func (p *pod) kernelPod(ifindex int, open, hostAccess bool) loader.Pod {
	return loader.Pod{
		Ifindex: ifindex, NetnsPath: p.info.Netns, GuestInterface: p.info.Interface,
		Addrs: p.info.Addrs, Open: open, HostAccess: hostAccess,
	}
}

// shut locks a pod that the manifest does not list (any more).
func (p *pod) shut(d policy.Decision) {
	p.drop()
	if p.statusNow().Reason != string(d.Code) {
		p.log.Warn("pod refused", "code", d.Code, "rule", d.Rule, "expected", d.Expected, "actual", d.Actual, "remedy", d.Remedy)
	}
	p.set(StateLocked, string(d.Code), d.Error())
}

// drop takes the identity away and locks the link: first the kernel, then the
// mesh, then the tunnels that used it.
func (p *pod) drop() {
	if p.cred == nil {
		return
	}
	if err := p.a.cfg.Loader.SetPod(p.kernelPod(p.hostIfindex(), false, false)); err != nil {
		p.log.Error("locking the pod", "err", err)
	}
	p.cred = nil
	p.cert.Store(nil)
	p.a.mesh.remove(p)
	p.a.proxy.Recheck()
}

func (p *pod) enrol(ctx context.Context, entry *policy.Workload, digest policy.Digest) error {
	node := p.a.node.Load()
	if node == nil {
		return errNodeNotEnrolled
	}
	began := p.a.cfg.Now()
	cred, err := p.a.cfg.CDS.EnrolPod(ctx, node, client.Pod{
		Namespace: p.info.Namespace, Name: p.info.Name, UID: p.info.UID,
		Images: p.info.Images, Entry: entry.Name, Addrs: p.info.Addrs,
	})
	if err != nil {
		return err
	}
	p.entry, p.digest, p.cred = entry, digest, cred
	p.renew = renewAt(began, cred.TLS.Leaf.NotAfter)
	p.cert.Store(&cred.TLS)
	p.set(StateEnrolled, "", "")
	p.log.Info("pod enrolled", "id", cred.Peer.ID.String(), "notAfter", cred.TLS.Leaf.NotAfter, "simulated", cred.Peer.Claims.Simulated)
	return nil
}

// enrolFailed keeps a still valid credential in use, and locks the pod when
// there is none.
func (p *pod) enrolFailed(ctx context.Context, err error) time.Duration {
	if !errors.Is(err, errNodeNotEnrolled) {
		p.a.suspectNode()
	}
	if p.cred != nil && p.a.cfg.Now().Before(p.cred.TLS.Leaf.NotAfter) {
		return p.failed(ctx, StateOpen, "renewal-failed", err)
	}
	p.drop()
	if errors.Is(err, errNodeNotEnrolled) {
		p.set(StateAdmitted, "node-not-enrolled", err.Error())
		return retryMax // woken when the node is
	}
	return p.failed(ctx, StateAdmitted, "enrolment-failed", err)
}

func (p *pod) open(hostAccess bool) error {
	if err := p.a.mesh.add(p); err != nil {
		return err
	}
	if err := p.a.cfg.Loader.SetPod(p.kernelPod(p.hostIfindex(), true, hostAccess)); err != nil {
		return err
	}
	p.set(StateOpen, "", "")
	return nil
}

// failed records why a step did not work and backs off with jitter.
func (p *pod) failed(ctx context.Context, at State, code string, err error) time.Duration {
	p.fails++
	wait := min(retryMax, retryMin<<min(p.fails, 10))
	wait = wait/2 + rand.N(wait)
	p.set(at, code, err.Error())
	if ctx.Err() == nil {
		p.log.Warn("pod held back", "state", at, "code", code, "err", err, "retryIn", wait)
	}
	return wait
}

// close forgets a removed pod: no packet may use its address afterwards.
func (p *pod) close() {
	p.drop()
	if ifindex := p.hostIfindex(); ifindex != 0 {
		if err := p.a.cfg.Loader.DeletePod(ifindex); err != nil {
			p.log.Error("removing the pod from the kernel", "err", err)
		}
	}
	p.set(StateClosed, "", "")
}

func (p *pod) hostIfindex() int { return int(p.link.Load()) }

func (p *pod) set(s State, reason, detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.State != s {
		p.log.Debug("pod state", "from", p.status.State, "to", s)
	}
	p.status.State, p.status.Reason, p.status.Detail = s, reason, detail
	p.status.Workload, p.status.ID, p.status.NotAfter = "", "", time.Time{}
	if p.entry != nil && p.cred != nil {
		p.status.Workload = p.entry.Name
		p.status.ID = p.cred.Peer.ID.String()
		p.status.NotAfter = p.cred.TLS.Leaf.NotAfter
	}
}

func (p *pod) statusNow() PodStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// local is the pod as the datapath sees it.
func (p *pod) local() *datapath.LocalPod {
	return &datapath.LocalPod{
		Addrs: p.info.Addrs, Workload: p.entry.Name, Name: p.info.Ref(), UID: p.info.UID, Cert: p.cert.Load,
	}
}

// renewAt is half the remaining life, give or take a tenth, so that leaves
// issued together do not come due together.
func renewAt(now, notAfter time.Time) time.Time {
	half := notAfter.Sub(now) / 2
	if half <= 0 {
		return now
	}
	return now.Add(half - half/10 + rand.N(half/5+1))
}
