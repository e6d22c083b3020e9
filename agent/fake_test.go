// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/ratls"
	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/datapath/external"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// fakeKernel remembers what it was told about every link.
type fakeKernel struct {
	mu      sync.Mutex
	pods    map[int]loader.Pod
	locks   int
	sets    int
	deleted []int
	lockErr error
	setErr  error
}

func (k *fakeKernel) LockLink(_ context.Context, ifindex int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.locks++
	if k.lockErr == nil {
		if _, known := k.pods[ifindex]; !known {
			k.pods[ifindex] = loader.Pod{Ifindex: ifindex}
		}
	}
	return k.lockErr
}

func (k *fakeKernel) SetPod(p loader.Pod) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sets++
	if k.setErr != nil {
		return k.setErr
	}
	k.pods[p.Ifindex] = p
	return nil
}

func (k *fakeKernel) DeletePod(ifindex int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pods, ifindex)
	k.deleted = append(k.deleted, ifindex)
	return nil
}

func (k *fakeKernel) LSM() loader.LSMStatus { return loader.LSMStatus{Active: true} }

func (k *fakeKernel) Drops() (map[bpf.Reason]uint64, error) {
	return map[bpf.Reason]uint64{bpf.ReasonPodLocked: 3}, nil
}

func (k *fakeKernel) Restored() loader.Restored { return loader.Restored{Pins: 5, Programs: 2} }

func (k *fakeKernel) do(fn func()) { k.mu.Lock(); defer k.mu.Unlock(); fn() }

func (k *fakeKernel) pod(ifindex int) (p loader.Pod, known bool) {
	k.do(func() { p, known = k.pods[ifindex] })
	return p, known
}

func (k *fakeKernel) setErrs(lock, set error) {
	k.do(func() { k.lockErr, k.setErr = lock, set })
}

// fakeCDS certifies every pod for life, unless it has an error.
type fakeCDS struct {
	mu    sync.Mutex
	err   error
	life  time.Duration
	asked []time.Time
	hook  func(ctx context.Context) // called before it answers
	root  *x509.Certificate
	fresh bool // the last pod brought evidence of its own

	nodeAsked int
}

func (c *fakeCDS) EnrolPod(ctx context.Context, _ *client.Credential, p client.Pod) (*client.Credential, error) {
	c.mu.Lock()
	c.asked = append(c.asked, time.Now())
	c.fresh = p.Attester != nil
	err, life, hook, root := c.err, c.life, c.hook, c.root
	c.mu.Unlock()
	if hook != nil {
		hook(ctx)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return credential(p.Entry, life, root), nil
}

func (c *fakeCDS) EnrolNode(context.Context, attest.Attester) (*client.Credential, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodeAsked++
	if c.err != nil {
		return nil, c.err
	}
	return credential("", c.life, c.root), nil
}

func (c *fakeCDS) set(fn func()) { c.mu.Lock(); defer c.mu.Unlock(); fn() }

func (c *fakeCDS) enrolments() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

// issued counts credentials: each has a serial and a key of its own.
var issued atomic.Int64

func credential(workload string, life time.Duration, root *x509.Certificate) *client.Credential {
	n := issued.Add(1)
	leaf := &x509.Certificate{NotAfter: time.Now().Add(life), RawSubjectPublicKeyInfo: fmt.Append(nil, "key ", n)}
	claims := ratls.Claims{Workload: workload, SubstrateFacts: policytest.Facts()}
	return &client.Credential{
		TLS:   tls.Certificate{Leaf: leaf},
		Peer:  &ratls.Peer{Claims: claims, Leaf: leaf, NotAfter: leaf.NotAfter, Serial: fmt.Sprintf("%x", n)},
		Roots: []*x509.Certificate{root},
	}
}

func newRoot(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// world is an agent on fakes, inside a synctest bubble.
type world struct {
	*Agent
	t        *testing.T
	fixture  *policytest.Fixture
	base     *policy.Manifest
	ctx      context.Context
	cancel   context.CancelFunc
	kernel   *fakeKernel
	cds      *fakeCDS
	links    map[string]int // by netns
	strays   map[string][]string
	cutOf    map[string]int
	watchers map[string]func()
	linksMu  sync.Mutex

	rechecks atomic.Int64
}

const life = time.Hour

func inWorld(t *testing.T, fn func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		root, fixture := newRoot(t), policytest.New(t)
		w := &world{
			t: t, fixture: fixture, base: fixture.Manifest, ctx: ctx, cancel: cancel, kernel: &fakeKernel{pods: map[int]loader.Pod{}},
			cds: &fakeCDS{life: life, root: root}, links: map[string]int{}, strays: map[string][]string{}, cutOf: map[string]int{}, watchers: map[string]func(){},
		}
		w.Agent = &Agent{
			bindings: external.New(external.Config{Now: time.Now}),
			cfg:      Config{Now: time.Now, Log: slog.New(slog.DiscardHandler), NodeAddr: netip.MustParseAddr("10.80.0.1")},
			pods:     map[string]*member{}, ending: map[*member]struct{}{},
			flows: flow.NewRing(8), nodeKick: make(chan struct{}, 1),
			kernel: w.kernel, enroller: w.cds, recheck: func() { w.rechecks.Add(1) }, pace: client.Pace{Rand: mathrand.Int64N},
			links: w,
			hostLink: func(netns, _ string) (int, error) {
				w.linksMu.Lock()
				defer w.linksMu.Unlock()
				if i := w.links[netns]; i != 0 {
					return i, nil
				}
				return 0, errors.New("no such namespace")
			},
		}
		w.mesh = emptyMesh(t, w.Agent)
		w.publish(listed("web"))
		w.adoptNode(credential("", life, root))
		fn(w)
		cancel()
		w.pending.Wait()
	})
}

// cut implements podLinks.
func (w *world) cut(netns, _ string) ([]string, error) {
	w.linksMu.Lock()
	defer w.linksMu.Unlock()
	if len(w.strays[netns]) > 0 {
		w.cutOf[netns]++
	}
	return w.strays[netns], nil
}

// cuts counts how often other links of a pod were taken down.
func (w *world) cuts(netns string) int {
	w.linksMu.Lock()
	defer w.linksMu.Unlock()
	return w.cutOf[netns]
}

// watch implements podLinks; w.stray calls changed.
func (w *world) watch(ctx context.Context, netns string, changed func()) {
	w.linksMu.Lock()
	w.watchers[netns] = changed
	w.linksMu.Unlock()
	<-ctx.Done()
}

// stray gives the pod other links.
func (w *world) stray(netns string, links ...string) {
	w.linksMu.Lock()
	w.strays[netns] = links
	changed := w.watchers[netns]
	w.linksMu.Unlock()
	changed()
	synctest.Wait()
}

// emptyMesh is a mesh that knows nothing yet.
func emptyMesh(t *testing.T, a *Agent) *mesh {
	t.Helper()
	m, err := newMesh(resolve.Config{Node: a.cfg.NodeAddr, Rand: mathrand.Uint64, Now: time.Now}, &a.manifest, a.denyList)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// listed is a workload entry with one image of the same name.
func listed(name string) policy.Workload {
	return policy.Workload{Name: name, Images: []policy.Image{{Name: name, Digest: policy.DigestOf([]byte(name))}}}
}

// publish puts a manifest in force as the watch does.
func (w *world) publish(workloads ...policy.Workload) {
	w.t.Helper()
	m := *w.base
	m.Workloads = workloads
	payload, err := policy.Encode(&m)
	if err != nil {
		w.t.Fatal(err)
	}
	parsed, err := policy.Parse(payload)
	if err != nil {
		w.t.Fatal(err)
	}
	w.adoptManifest(&policy.Signed{Manifest: parsed, Digest: policy.DigestOf(payload)})
}

func (w *world) link(netns string, ifindex int) {
	w.linksMu.Lock()
	defer w.linksMu.Unlock()
	w.links[netns] = ifindex
}

func (w *world) add(info PodInfo) {
	w.podEvent(w.ctx, PodEvent{Pod: info})
	synctest.Wait()
}

func (w *world) remove(info PodInfo) {
	w.podEvent(w.ctx, PodEvent{Removed: true, Pod: info})
	synctest.Wait()
}

// web is a pod that the first manifest lists, on link 7.
func (w *world) web() PodInfo {
	w.link("/ns/web", 7)
	return PodInfo{
		Namespace: "default", Name: "web-0", UID: "web-uid", Netns: "/ns/web", Interface: "eth0",
		Addrs: []netip.Addr{netip.MustParseAddr("10.81.1.2")}, Images: []policy.Digest{policy.DigestOf([]byte("web"))},
	}
}

func (w *world) status(uid string) PodStatus {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.pods[uid]
	if m == nil {
		return PodStatus{State: StateClosed}
	}
	return m.pod.statusNow()
}

// want checks a pod's state and reason, and that the kernel and the mesh agree
// with them.
func (w *world) want(uid string, state State, reason string) {
	w.t.Helper()
	synctest.Wait()
	s := w.status(uid)
	if s.State != state || s.Reason != reason {
		w.t.Errorf("%s is %s %q (%s), want %s %q", uid, s.State, s.Reason, s.Detail, state, reason)
	}
	open := false
	w.kernel.do(func() {
		for _, p := range w.kernel.pods {
			open = open || p.Open && slices.Equal(p.Addrs, s.Addrs)
		}
	})
	if open != (state == StateOpen) {
		w.t.Errorf("%s is %s, but open in the kernel: %t", uid, s.State, open)
	}
	for _, addr := range s.Addrs {
		if p, known := w.mesh.Pod(addr); (known && p.UID == uid) != (state == StateOpen) {
			w.t.Errorf("%s is %s, but in the mesh: %t", uid, s.State, known)
		}
	}
}
