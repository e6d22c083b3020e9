// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/internal/pause"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/policy"
)

// kernel is the lock, as pods and their status need it.
type kernel interface {
	LockLink(ctx context.Context, ifindex int) error
	SetPod(p loader.Pod) error
	DeletePod(ifindex int) error
	Drops() (map[bpf.Reason]uint64, error)
	LSM() loader.LSMStatus
	Restored() loader.Restored
}

// enroller certifies the node and its pods.
type enroller interface {
	EnrolNode(ctx context.Context, att attest.Attester) (*client.Credential, error)
	EnrolPod(ctx context.Context, node *client.Credential, p client.Pod) (*client.Credential, error)
}

// errRemoved is why a pod's context ends when the pod is gone, as opposed to
// the daemon.
var errRemoved = errors.New("the pod is gone")

// pod drives one pod from seen to closed. One goroutine owns it; status reads
// go through mu.
type pod struct {
	info    PodInfo
	a       *Agent
	log     *slog.Logger
	kick    chan struct{} // manifest, deny list or node credential changed
	cert    atomic.Pointer[datapath.Credential]
	of      atomic.Pointer[contents]
	reenrol atomic.Bool                        // the mesh CA changed: the credential is of no use any more
	renewal atomic.Pointer[context.CancelFunc] // gives up the renewal under way; nil while there is none
	link    atomic.Int32                       // host side ifindex once locked, else 0

	watched bool             // its links are
	strays  strays           // links beside the locked one
	opened  bool             // the kernel may have it open
	access  access           // with this much of it for the node
	entry   *policy.Workload // as admitted
	digest  policy.Digest    // of entry
	cred    *client.Credential
	renew   time.Time // when cred is to be replaced
	fails   int

	mu     sync.Mutex
	status PodStatus
}

// contents are what a pod is made of.
type contents struct {
	images []policy.Digest
	signed []policy.SignedImage
}

// access is what of a pod the node itself may reach, and what its processes may
// open. The first is no part of an entry's digest: the manifest in force says it.
type access struct {
	host    bool
	probes  []uint16
	sockets []string
}

// accessOf is an entry's. The kernel tells pods and not containers apart, so
// sockets are what any of them may open; each one's seccomp filter is its own.
func accessOf(w *policy.Workload) access {
	a := access{host: w.HostAccess, probes: w.Probes}
	for _, image := range w.Images {
		if image.Run != nil {
			a.sockets = append(a.sockets, image.Run.Sockets...)
		}
	}
	slices.Sort(a.sockets)
	a.sockets = slices.Compact(a.sockets)
	return a
}

func (a access) equal(b access) bool {
	return a.host == b.host && slices.Equal(a.probes, b.probes) && slices.Equal(a.sockets, b.sockets)
}

func newPod(a *Agent, info PodInfo) *pod {
	p := &pod{
		info: info, a: a, kick: make(chan struct{}, 1),
		log:    a.cfg.Log.With("pod", info.Ref(), "uid", info.UID),
		status: PodStatus{Pod: info.Ref(), UID: info.UID, Addrs: info.Addrs, State: StateSeen},
	}
	p.of.Store(&contents{info.Images, info.Signed})
	return p
}

// described is the pod as its source described it last.
func (p *pod) described() PodInfo {
	info, of := p.info, p.of.Load()
	info.Images, info.Signed = of.images, of.signed
	return info
}

// consistsOf has the pod judged again if its images are others than before.
func (p *pod) consistsOf(info PodInfo) {
	was := p.of.Load()
	if slices.Equal(was.images, info.Images) && slices.Equal(was.signed, info.Signed) {
		return
	}
	p.of.Store(&contents{info.Images, info.Signed})
	p.wake()
}

// run keeps the pod where the manifest and the CDS allow it to be, until ctx
// ends. A pod that is gone leaves nothing in the kernel. When the whole daemon
// ends the kernel state stays: the pod is locked, because no listener answers.
func (p *pod) run(ctx context.Context) {
	for ctx.Err() == nil {
		pause.For(ctx, p.step(ctx), p.kick)
	}
	if errors.Is(context.Cause(ctx), errRemoved) {
		p.close()
	}
}

// wake makes the pod look at the manifest and its credential again.
func (p *pod) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// judgeAgain makes the pod look at the manifest and the deny list, and not wait
// for the CDS first: whoever can hold up its answers must not keep a pod open.
func (p *pod) judgeAgain() {
	p.wake()
	if giveUp := p.renewal.Load(); giveUp != nil {
		(*giveUp)()
	}
}

// step brings the pod as far as it may go now and says when to look again.
func (p *pod) step(ctx context.Context) time.Duration {
	if err := p.lock(ctx); err != nil {
		return p.failed(ctx, StateSeen, "lock-failed", err)
	}
	if d, err := p.onlyLink(); err != nil {
		return p.failed(ctx, StateSeen, "lock-failed", err)
	} else if d, wait := p.strays.pace(d, p.a.cfg.Now(), p.a.pace); !d.Allowed {
		return min(p.shut(d), wait)
	}
	signed, list := p.a.manifest.Load(), p.a.denyList()
	of := p.of.Load()
	entry, decision := signed.Manifest.Admit(policy.PodFacts{
		Namespace: p.info.Namespace, Name: p.info.Name, UID: p.info.UID, Images: of.images, Signed: of.signed, Entry: p.info.Entry,
	})
	if decision.Allowed {
		decision = p.denied(list, entry)
	}
	if !decision.Allowed {
		return p.shut(decision)
	}
	digest := entry.Digest()
	if p.cred != nil && digest != p.digest {
		p.drop()
	}
	p.dropDenied(list)
	if p.cred == nil {
		p.set(StateAdmitted, "", "")
	}
	if p.cred != nil && p.opened {
		// This must not wait for a renewal.
		if err := p.open(accessOf(entry)); err != nil {
			return p.failed(ctx, StateEnrolled, "open-failed", err)
		}
	}
	if p.a.succeeded.Load() {
		return time.Hour // the successor has certificates of its own
	}
	reenrol := p.reenrol.Swap(false)
	if reenrol || p.cred == nil || !p.a.cfg.Now().Before(p.renew) {
		inForce := func() bool { return p.a.manifest.Load() == signed && p.a.denyList() == list }
		err := p.enrolWhile(ctx, inForce, entry, digest)
		if err != nil && reenrol {
			p.reenrol.Store(true)
		}
		if !inForce() {
			return 0 // judge again: enrolling may have taken long, or was given up for this
		}
		if err != nil {
			return p.enrolFailed(ctx, err)
		}
	}
	if err := p.open(accessOf(entry)); err != nil {
		return p.failed(ctx, StateEnrolled, "open-failed", err)
	}
	return p.renew.Sub(p.a.cfg.Now())
}

// lock puts deny-all on the pod's link, unless this pod did so before. The
// link watcher has usually done so already, at the link's birth. A pod whose
// link is another one than before is locked on both.
func (p *pod) lock(ctx context.Context) error {
	ifindex, err := p.a.hostLink(p.info.Netns, p.info.Interface)
	was := p.hostIfindex()
	if was != 0 && (err != nil || ifindex == was) {
		return nil // an unreadable namespace is no reason to cut a pod off
	}
	if err != nil {
		return err
	}
	if was != 0 {
		p.unlink(was)
	}
	if err := p.a.kernel.LockLink(ctx, ifindex); err != nil {
		return err
	}
	if err := p.a.kernel.SetPod(p.kernelPod(ifindex, false, access{})); err != nil {
		return err
	}
	p.link.Store(int32(ifindex))
	p.set(StateLocked, "", "")
	if !p.watched {
		p.watched = true
		p.a.pending.Go(func() { p.a.links.watch(ctx, p.info.Netns, p.linksChanged) })
	}
	return nil
}

// linksChanged cuts other links at once, whatever the pod waits for, and has it
// judged for them.
func (p *pod) linksChanged() {
	if _, err := p.a.links.cut(p.info.Netns, p.info.Interface); err != nil {
		p.log.Debug("looking at the pod's links", "err", err)
	}
	p.wake()
}

// unlink forgets a link that is the pod's no more.
func (p *pod) unlink(ifindex int) {
	if err := p.a.kernel.DeletePod(ifindex); err != nil {
		p.log.Error("removing the pod from the kernel", "err", err)
	}
	p.link.Store(0)
	p.opened = false
	p.drop()
}

func (p *pod) kernelPod(ifindex int, open bool, a access) loader.Pod {
	return loader.Pod{
		Ifindex: ifindex, NetnsPath: p.info.Netns, GuestInterface: p.info.Interface,
		Addrs: p.info.Addrs, Open: open, HostAccess: a.host, Probes: a.probes, Cgroup: p.info.Cgroup, Sockets: a.sockets,
	}
}

// shut locks a pod that the manifest does not list or the deny list denies.
// Only a new document can change that, but a kernel that would not lock it is
// asked again.
func (p *pod) shut(d policy.Decision) time.Duration {
	p.drop()
	if p.statusNow().Reason != string(d.Code) {
		p.log.Warn("pod refused", "code", d.Code, "rule", d.Rule, "expected", d.Expected, "actual", d.Actual, "remedy", d.Remedy)
	}
	p.set(StateLocked, string(d.Code), d.Error())
	p.fails = 0
	if p.opened {
		return client.RetryMin
	}
	return time.Hour
}

// drop locks the link and takes the identity away: first the kernel, then the
// mesh, then the tunnels that used it.
func (p *pod) drop() {
	if p.opened {
		if err := p.a.kernel.SetPod(p.kernelPod(p.hostIfindex(), false, access{})); err != nil {
			p.log.Error("locking the pod", "err", err)
		} else {
			p.opened = false
		}
	}
	if p.cred == nil {
		return
	}
	p.cred = nil
	p.cert.Store(nil)
	p.a.mesh.remove(p)
	p.a.forget(p.info.UID)
	p.a.recheck()
}

// open publishes the pod and steers its traffic into the mesh. A renewed
// certificate alone changes neither.
func (p *pod) open(a access) error {
	if !p.opened || !p.access.equal(a) || p.statusNow().State != StateOpen {
		if err := p.a.mesh.add(p); err != nil {
			return err
		}
		p.opened, p.access = true, a
		if err := p.a.kernel.SetPod(p.kernelPod(p.hostIfindex(), true, a)); err != nil {
			return err
		}
	}
	p.set(StateOpen, "", "")
	return nil
}

// failed records why a step did not work and backs off with jitter.
func (p *pod) failed(ctx context.Context, at State, code string, err error) time.Duration {
	return p.heldBack(ctx, at, code, err, p.a.pace.Retry(p.fails+1, err))
}

// heldBack records a failure, and returns how long to wait because of it.
func (p *pod) heldBack(ctx context.Context, at State, code string, err error, wait time.Duration) time.Duration {
	p.fails++
	p.set(at, code, err.Error())
	if ctx.Err() == nil {
		p.log.Warn("pod held back", "state", at, "code", code, "err", err, "retryIn", wait)
	}
	return wait
}

// close forgets a removed pod: no packet may use its address afterwards.
func (p *pod) close() {
	if ifindex := p.hostIfindex(); ifindex != 0 {
		p.unlink(ifindex)
	}
	p.set(StateClosed, "", "")
}

func (p *pod) hostIfindex() int { return int(p.link.Load()) }

func (p *pod) set(s State, reason, detail string) {
	defer p.a.changed.ring() // after the lock is released
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
		Addrs: p.info.Addrs, Workload: p.entry.Name, Name: p.info.Ref(), UID: p.info.UID, Credential: p.cert.Load,
	}
}
