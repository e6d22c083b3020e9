// SPDX-License-Identifier: Apache-2.0

// Package agent is the node daemon: it keeps every pod of the node locked
// until the signed manifest admits it, the CDS has certified it and no deny list
// denies it, and locks it again the moment one of these stops being true.
//
// It joins the parts that know one thing each: a Source names pods, policy
// judges them, cds/client obtains their certificates, loader holds the lock
// in the kernel and datapath carries their traffic.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/dns"
	"github.com/c8s-dev/c8s/datapath/external"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/nri"
	"github.com/c8s-dev/c8s/policy"
)

var errNodeNotEnrolled = errors.New("the node itself is not enrolled yet")

// Config is everything the agent is given. All fields without a comment
// saying otherwise are required.
type Config struct {
	NodeName   string         // as in Kubernetes
	NodeAddr   netip.Addr     // where other nodes reach this one; the tunnel port listens here
	Version    string         // of this binary, for status
	RunDir     string         // folder of the admin socket
	RoutesFile string         // pod prefix to node address; re-read when it changes; empty for none
	Cluster    Cluster        // what else says where pods are; nil for nothing
	Metrics    string         // listen address of metrics and health; empty for none
	Marks      datapath.Marks // as the loader has them

	Manifest  *policy.Signed // accepted at start; newer ones come from the CDS
	Attester  attest.Attester
	Simulated bool
	// PodEvidence has the TEE make evidence for every certificate of a pod, over
	// the statement about it. Hardware makes a few reports a second at most.
	PodEvidence bool
	CDS         *client.Client
	Loader      *loader.Loader
	Source      Source
	Limits      datapath.Limits // zero value: the datapath's defaults
	DNS         *DNS            // how the names that pods ask for are answered; nil: they are not
	// Adopted is told of every manifest that comes into force, the first one
	// too, before pods are judged by it. It must not block. May be nil.
	Adopted func(*policy.Signed)
	// Refused lists containers that may not start on the node, for status. May be nil.
	Refused func() []nri.Refused
	// Lacking says what else keeps the node from taking pods, or nil. May be nil.
	Lacking    func() error
	Collectors []prometheus.Collector // of other parts, for the metrics

	Services []Service // run while this daemon owns the node
	Parts    []Part    // run while this daemon owns the node

	Predecessor *handover.Successor // the daemon to take over from; nil for none
	Terms       handover.Terms      // settings a successor must share
	Drain       time.Duration       // how long established connections may go on when the daemon ends or is succeeded
	Linger      bool                // once succeeded and drained, stay until told to end
	Instance    string              // names this process among those of the node; may be empty

	Now func() time.Time
	Log *slog.Logger
}

// Agent is one node daemon.
type Agent struct {
	cfg       Config
	manifest  atomic.Pointer[policy.Signed]
	denied    atomic.Pointer[policy.SignedDenyList] // nil while there never was one
	node      atomic.Pointer[client.Credential]
	mesh      *mesh
	proxy     *datapath.Proxy
	names     *dns.Server        // nil: port 53 is a port like any other
	bindings  *external.Bindings // what pods were answered with for names outside of the cluster
	flows     *flow.Ring
	metrics   *metrics
	pace      client.Pace
	looked    time.Time                 // when passTime looked last; only it uses this
	published atomic.Pointer[publisher] // for status; nil before Run

	// What pods need of the parts; tests put others in their place.
	kernel   kernel
	enroller enroller
	hostLink func(netns, name string) (int, error)
	links    podLinks
	recheck  func() // closes tunnels that are no longer allowed

	books     *tenure     // is kernel, except in tests
	succeeded atomic.Bool // another daemon owns the node; this one drains

	changed bell // rings when a pod comes or changes its state

	mu      sync.Mutex
	pods    map[string]*member // by UID
	ending  map[*member]struct{}
	nodeErr string

	pending sync.WaitGroup // of pod goroutines

	nodeKick chan struct{} // a pod could not be enrolled: perhaps the CDS is a new one
}

// member is a pod with the means to end it.
type member struct {
	pod    *pod
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when nothing is left of the pod
}

// flowHistory is how many flow records the daemon remembers.
const flowHistory = 8192

// New checks cfg and prepares an agent. Nothing runs until Run.
func New(cfg Config) (*Agent, error) {
	if cfg.Manifest == nil || cfg.Attester == nil || cfg.CDS == nil || cfg.Loader == nil || cfg.Source == nil || cfg.Log == nil || cfg.Now == nil {
		return nil, errors.New("starting the agent: the configuration lacks a part")
	}
	a := &Agent{
		cfg: cfg, pods: map[string]*member{}, ending: map[*member]struct{}{}, flows: flow.NewRing(flowHistory), nodeKick: make(chan struct{}, 1),
		pace: client.Pace{Rand: rand.Int64N}, books: newTenure(cfg.Loader), enroller: cfg.CDS, hostLink: hostLink, links: kernelLinks{},
	}
	a.kernel = a.books
	a.recheck = func() { a.proxy.Recheck() }
	a.putInForce(cfg.Manifest)
	a.denied.Store(cfg.CDS.DenyList()) // kept from an earlier run
	var err error
	a.mesh, err = newMesh(resolve.Config{Node: cfg.NodeAddr, NodeName: cfg.NodeName, Rand: rand.Uint64, Now: cfg.Now}, &a.manifest, a.denyList)
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.RoutesFile != "":
		if err := a.loadRoutes(); err != nil {
			return nil, err
		}
	case cfg.Cluster == nil:
		return nil, errors.New("starting the agent: neither a routes file nor a cluster says where pods are")
	}
	a.bindings = external.New(external.Config{Now: cfg.Now})
	if a.names, err = a.newNames(); err != nil {
		return nil, err
	}
	a.metrics = newMetrics(a)
	return a, nil
}

// linkEvent hears of links. A pod whose link lost its lock is closed, and
// begins anew: it waits for the lock like any other.
func (r *run) linkEvent(e loader.LinkEvent) {
	a := r.Agent
	if e.Kind == loader.LinkFailed {
		a.cfg.Log.Error("a pod link could not be locked", "link", e.Name, "ifindex", e.Ifindex, "err", e.Err)
		for _, m := range a.sortedPods() {
			if m.pod.hostIfindex() == e.Ifindex {
				a.podEvent(r.life, PodEvent{Pod: m.pod.info})
			}
		}
		return
	}
	a.cfg.Log.Debug("pod link", "event", e.Kind, "link", e.Name, "ifindex", e.Ifindex, "err", e.Err)
}

// kernelEvents turns the kernel's refusals into flow records.
func (a *Agent) kernelEvents(ctx context.Context) error {
	for e := range a.cfg.Loader.Events(ctx) {
		name, workload := a.podByLink(e.Ifindex)
		a.flows.Add(flow.Record{
			Time: e.Time, Verdict: flow.Refused, Direction: flow.Kernel, Protocol: protocolOf(e.Proto), Reason: e.Reason.String(),
			Src: e.Src, Dst: e.Dst, Pod: name, SrcWorkload: workload, Suppressed: e.Suppressed,
		})
	}
	return ctx.Err()
}

// protocolOf is a protocol's name in flow records; empty for others than TCP
// and UDP.
func protocolOf(number uint8) string {
	switch p := resolve.Protocol(number); p {
	case resolve.TCP, resolve.UDP:
		return p.String()
	default:
		return ""
	}
}

func (a *Agent) podByLink(ifindex int) (name, workload string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.pods {
		if m.pod.hostIfindex() == ifindex {
			s := m.pod.statusNow()
			return s.Pod, s.Workload
		}
	}
	return "", ""
}

// watchOperators follows the manifest and the deny list. Both are judged by the
// client (operator signatures, hash chain, never backwards) before they arrive
// here.
func (a *Agent) watchOperators(ctx context.Context) error {
	return a.cfg.CDS.Watch(ctx, func(n client.News) {
		if n.DenyList != nil { // first: the manifest may admit what it denies
			a.adoptDenyList(n.DenyList)
		}
		if n.Manifest != nil && n.Manifest.Manifest.Version > a.manifest.Load().Manifest.Version {
			a.adoptManifest(n.Manifest)
		}
	})
}

func (a *Agent) putInForce(s *policy.Signed) {
	if a.cfg.Adopted != nil {
		a.cfg.Adopted(s)
	}
	a.manifest.Store(s)
}

// adoptManifest has every pod and every tunnel judged again.
func (a *Agent) adoptManifest(next *policy.Signed) {
	a.putInForce(next)
	a.cfg.Log.Info("manifest in force", "version", next.Manifest.Version, "digest", next.Digest)
	a.judgeAgain()
}

// podEvent starts, replaces or ends a pod, and never waits for one: enrolment
// may take long. A changed description ends the pod and begins it anew; nothing
// is carried over from the old one.
func (a *Agent) podEvent(ctx context.Context, e PodEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.pods[e.Pod.UID]; old != nil {
		old.cancel(errRemoved)
		delete(a.pods, e.Pod.UID)
		a.ending[old] = struct{}{}
	}
	if e.Removed {
		return
	}
	podCtx, cancel := context.WithCancelCause(ctx)
	m := &member{pod: newPod(a, e.Pod), cancel: cancel, done: make(chan struct{})}
	a.pods[e.Pod.UID] = m
	before := a.before(e.Pod)
	a.pending.Go(func() {
		defer cancel(nil)
		for _, old := range before {
			<-old.done
		}
		m.pod.run(podCtx)
		a.mu.Lock()
		delete(a.ending, m)
		a.mu.Unlock()
		close(m.done)
	})
}

// before returns the pods that must be gone before info may be touched: what
// they still do to the kernel and the mesh would hit the new pod. Callers hold
// mu.
func (a *Agent) before(info PodInfo) (old []*member) {
	for m := range a.ending {
		was := m.pod.info
		if was.UID == info.UID || was.Netns == info.Netns || slices.ContainsFunc(was.Addrs, func(addr netip.Addr) bool { return slices.Contains(info.Addrs, addr) }) {
			old = append(old, m)
		}
	}
	return old
}

// Status is a snapshot of the whole daemon.
func (a *Agent) Status() Status {
	signed := a.manifest.Load()
	s := Status{
		Node:      NodeStatus{Name: a.cfg.NodeName, Address: a.cfg.NodeAddr.String(), Version: a.cfg.Version, Instance: a.cfg.Instance, LSM: a.kernel.LSM().String()},
		Manifest:  ManifestStatus{TrustDomain: signed.Manifest.TrustDomain, Version: signed.Manifest.Version, Digest: signed.Digest},
		Simulated: a.cfg.Simulated,
		Drops:     map[string]uint64{}, Pods: []PodStatus{}, Routes: a.routesStatus(), DNS: a.dnsStatus(),
	}
	if list := a.denied.Load(); list != nil {
		s.DenyList = &DenyListStatus{Version: list.List.Version, Digest: list.Digest, Entries: len(list.List.Entries)}
	}
	if cred := a.node.Load(); cred != nil {
		s.Node.ID, s.Node.NotAfter = cred.Peer.ID.String(), cred.TLS.Leaf.NotAfter
	}
	if drops, err := a.kernel.Drops(); err == nil {
		for reason, n := range drops {
			s.Drops[reason.String()] = n
		}
	}
	restored := a.kernel.Restored()
	s.Restored = RestoredStatus{Pins: restored.Pins, Programs: restored.Programs}
	if err := a.Ready(); err != nil {
		s.Node.NotReady = err.Error()
	}
	if a.cfg.Refused != nil {
		s.Refused = a.cfg.Refused()
	}
	if p := a.published.Load(); p != nil {
		s.Published = p.status()
	}
	stats := a.proxy.Stats()
	s.Avoided = stats.Avoided
	s.UDP = UDPStatus{
		Out: stats.FlowsOut, In: stats.FlowsIn, Sent: stats.DatagramsSent, Received: stats.DatagramsReceived,
		Dropped: stats.DatagramsDropped, Refused: stats.DatagramsRefused,
	}
	s.Tunnels = TunnelStatus{Idle: stats.Idle, Busy: stats.Busy, Inbound: stats.Inbound, Handshakes: stats.Handshakes, Streams: stats.Streams}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Node.Error = a.nodeErr
	for _, m := range a.pods {
		s.Pods = append(s.Pods, m.pod.statusNow())
	}
	slices.SortFunc(s.Pods, func(x, y PodStatus) int { return strings.Compare(x.Pod, y.Pod) })
	return s
}

// Ready reports why the node cannot take pods yet, or nil.
func (a *Agent) Ready() error {
	if err := a.enrolled(); err != nil || a.cfg.Lacking == nil {
		return err
	}
	return a.cfg.Lacking()
}

// enrolled reports why the node's own certificate is of no use, or nil.
func (a *Agent) enrolled() error {
	cred := a.node.Load()
	switch {
	case cred == nil:
		return errNodeNotEnrolled
	case !a.cfg.Now().Before(cred.TLS.Leaf.NotAfter):
		return errors.New("the node's certificate has expired")
	}
	if d := a.denyList().Denies(cred.Peer.Holder()); !d.Allowed {
		return fmt.Errorf("the operators deny this node: %s", d.Code) // anybody may ask
	}
	return nil
}
