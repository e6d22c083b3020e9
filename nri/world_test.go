// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

const (
	pauseImage = "pause"
	side       = "side" // a sidecar of web
	hostAgent  = "agent"
)

// world is an enforcer on a node whose containerd is fake.
type world struct {
	t       testing.TB
	e       *Enforcer
	runtime *fakeRuntime
	opener  *fakeOpener
	fixture *policytest.Fixture
}

// testManifest: web with a sidecar, db, and an entry in the node's network.
func testManifest(m *policy.Manifest) {
	m.Sandboxes = []policy.Image{{Name: pauseImage, Digest: policytest.Digest(pauseImage)}}
	m.Workloads[0].Images = append(m.Workloads[0].Images, policy.Image{Name: side, Digest: policytest.Digest(side)})
	m.Workloads[0].Exec = []policy.Exec{{Args: []string{"/bin/check"}}}
	m.Workloads = append(m.Workloads, policy.Workload{
		Name: hostAgent, Images: []policy.Image{{Name: hostAgent, Digest: policytest.Digest(hostAgent)}}, HostNetwork: true,
	})
}

func newWorld(t testing.TB, edits ...func(*policy.Manifest)) *world {
	t.Helper()
	options := []policytest.Option{policytest.With(testManifest)}
	for _, edit := range edits {
		options = append(options, policytest.With(edit))
	}
	w := &world{t: t, runtime: newFakeRuntime(), opener: &fakeOpener{}, fixture: policytest.New(t, options...)}
	e, err := New(Config{
		Node:    &facts.Node{Kubelet: facts.DefaultKubelet, Containerd: facts.DefaultContainerd(), CgroupNamespaces: true},
		Runtime: w.runtime, Signatures: w.runtime, Opener: w.opener, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.e = e
	w.e.Manifest(w.fixture.Signed)
	return w
}

// next puts a changed manifest in force.
func (w *world) next(edit func(*policy.Manifest)) {
	w.t.Helper()
	w.fixture = w.fixture.Next(w.t, edit)
	w.e.Manifest(w.fixture.Signed)
}

// testPod is a pod as the control plane wants it.
type testPod struct {
	id, name, uid, wants string
	host                 bool // in the node's network
}

func podOf(name string) testPod {
	return testPod{id: "sandbox-" + name, name: name, uid: "uid-" + name}
}

func (p testPod) annotations(kind, container string) map[string]string {
	return map[string]string{
		facts.AnnotationType: kind, facts.AnnotationName: container, facts.AnnotationSandboxID: p.id,
		facts.AnnotationSandboxName: p.name, facts.AnnotationSandboxNamespace: "prod", facts.AnnotationSandboxUID: p.uid,
	}
}

// sandboxSpec is the configuration of the pod's sandbox.
func (p testPod) sandboxSpec() *specs.Spec {
	s := &specs.Spec{
		Root: &specs.Root{Path: "rootfs"}, Annotations: p.annotations(facts.TypeSandbox, ""),
		Process: &specs.Process{Args: []string{"/pause"}, Env: []string{"PATH=/bin"}, Cwd: "/"},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "ipc"}, {Type: "mount"}, {Type: "cgroup"}},
			Sysctl:     map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"},
		},
	}
	if !p.host {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: "/var/run/netns/" + p.id}, specs.LinuxNamespace{Type: "uts"})
	}
	return s
}

const sandboxPID = 4242

// spec is the configuration of a container, as its image says.
func (p testPod) spec(name string) *specs.Spec {
	c := policytest.Container(name)
	ns := func(kind specs.LinuxNamespaceType, file string) specs.LinuxNamespace {
		return specs.LinuxNamespace{Type: kind, Path: "/proc/4242/ns/" + file}
	}
	return &specs.Spec{
		Root: &specs.Root{Path: "rootfs"}, Annotations: p.annotations(facts.TypeContainer, name),
		Process: &specs.Process{Args: c.Args, Env: c.Env, Cwd: c.Cwd, User: specs.User{UID: 1000, GID: 1000}, Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}}},
		Linux: &specs.Linux{
			Namespaces:  []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "cgroup"}, ns("network", "net"), ns("ipc", "ipc"), ns("uts", "uts")},
			MaskedPaths: c.Privileges.MaskedPaths, ReadonlyPaths: c.Privileges.ReadonlyPaths, Seccomp: facts.Restrict(nil, nil),
		},
	}
}

// nri is the pod as NRI tells of it.
func (p testPod) nri() *api.PodSandbox {
	a := &api.PodSandbox{
		Id: p.id, Name: p.name, Namespace: "prod", Uid: p.uid, Pid: sandboxPID, Annotations: map[string]string{},
		Linux: &api.LinuxPodSandbox{},
	}
	if p.wants != "" {
		a.Annotations[AnnotationEntry] = p.wants
	}
	for _, ns := range p.sandboxSpec().Linux.Namespaces {
		a.Linux.Namespaces = append(a.Linux.Namespaces, &api.LinuxNamespace{Type: string(ns.Type), Path: ns.Path})
	}
	if !p.host {
		a.Ips = []string{"10.1.0.7"}
	}
	return a
}

// container is one of the pod's as NRI tells of it: without what NRI leaves out.
func (p testPod) container(id, name string) *api.Container {
	s := p.spec(name)
	c := &api.Container{
		Id: id, PodSandboxId: p.id, Name: name, State: api.ContainerState_CONTAINER_CREATED, Annotations: s.Annotations,
		Args: s.Process.Args, Env: s.Process.Env, User: &api.User{Uid: s.Process.User.UID, Gid: s.Process.User.GID}, Pid: 5000,
		Image: &api.Image{Name: name, ConfigDigest: string(policytest.Digest(name))}, Linux: &api.LinuxContainer{},
	}
	for _, m := range s.Mounts {
		c.Mounts = append(c.Mounts, &api.Mount{Destination: m.Destination, Type: m.Type, Source: m.Source, Options: m.Options})
	}
	for _, ns := range s.Linux.Namespaces {
		c.Linux.Namespaces = append(c.Linux.Namespaces, &api.LinuxNamespace{Type: string(ns.Type), Path: ns.Path})
	}
	return c
}

// request is what c8s-runtime asks about a configuration.
func (w *world) request(id string, s *specs.Spec) CreateRequest {
	w.t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		w.t.Fatal(err)
	}
	return CreateRequest{ID: id, Namespace: image.Namespace, Config: b}
}

// announced makes a pod's sandbox and announces it.
func (w *world) announced(p testPod) testPod {
	w.t.Helper()
	w.runtime.sandbox(p)
	if err := w.e.Create(w.t.Context(), w.request(p.id, p.sandboxSpec())); err != nil {
		w.t.Fatalf("making a sandbox: %v", err)
	}
	if err := w.e.announce(w.t.Context(), p.nri()); err != nil {
		w.t.Fatalf("announcing a pod: %v", err)
	}
	return p
}

// create asks as c8s-runtime does, with a change to what the image says.
func (w *world) create(p testPod, id, name string, changes ...func(*specs.Spec)) error {
	w.t.Helper()
	s := p.spec(name)
	for _, change := range changes {
		change(s)
	}
	w.runtime.container(p, id, name, s)
	return w.e.Create(w.t.Context(), w.request(id, s))
}

// started brings a container of a pod from NRI's first word to running.
func (w *world) started(p testPod, id, name string) {
	w.t.Helper()
	c := p.container(id, name)
	if _, err := w.e.creating(w.t.Context(), p.nri(), c); err != nil {
		w.t.Fatalf("NRI about %s: %v", name, err)
	}
	if err := w.create(p, id, name); err != nil {
		w.t.Fatalf("creating %s: %v", name, err)
	}
	if err := w.e.starting(w.t.Context(), c); err != nil {
		w.t.Fatalf("starting %s: %v", name, err)
	}
}

func wantCode(t testing.TB, err error, code policy.Code) {
	t.Helper()
	if code == policy.CodeAllowed && err == nil {
		return
	}
	if got := policy.CodeOf(err); got != code {
		t.Errorf("got %q (%v), want %q", got, err, code)
	}
}

// fakeRuntime is what containerd knows.
type fakeRuntime struct {
	mu         sync.Mutex
	containers map[string]image.Container
	specs      map[string]*specs.Spec
	signatures map[policy.Digest][]policy.SignatureFacts
	stopped    map[string]int
	dead       map[string]bool // nothing of it runs, and NRI said nothing
	away       bool
	stdin      bool // somebody may type into what is asked about
	nameless   bool // images have no digest
	slow       bool // signatures take for ever
	offline    bool // signatures cannot be looked for
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{containers: map[string]image.Container{}, specs: map[string]*specs.Spec{}, signatures: map[policy.Digest][]policy.SignatureFacts{}, stopped: map[string]int{}}
}

var errAway = errors.New("containerd is away")

func (f *fakeRuntime) sandbox(p testPod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[p.id] = image.Container{
		Image: policy.ImageFacts{Digest: policytest.Digest(pauseImage), Config: &policy.ImageConfig{Entrypoint: []string{"/pause"}}},
		Pod:   image.Record{Sandbox: true, SandboxID: p.id},
	}
	f.specs[p.id] = p.sandboxSpec()
}

func (f *fakeRuntime) container(p testPod, id, name string, s *specs.Spec) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[id] = image.Container{Image: policytest.Container(name).Image, Pod: image.Record{SandboxID: p.id}}
	f.specs[id] = s
}

func (f *fakeRuntime) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeRuntime) Container(_ context.Context, id string) (image.Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.containers[id]
	switch {
	case f.away:
		return image.Container{}, errAway
	case !ok:
		return image.Container{}, image.ErrNotFound
	}
	c.Pod.Stdin = f.stdin
	if f.nameless {
		c.Image.Digest = ""
	}
	return c, nil
}

func (f *fakeRuntime) Config(_ context.Context, digest policy.Digest) (policy.ImageConfig, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return policy.ImageConfig{}, errAway
	}
	for _, name := range []string{policytest.Web, policytest.DB, side, hostAgent, "unlisted"} {
		if policytest.Digest(name) == digest {
			return *policytest.Container(name).Image.Config, nil
		}
	}
	return policy.ImageConfig{}, image.ErrNotFound
}

func (f *fakeRuntime) Spec(_ context.Context, id string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return nil, errAway
	}
	return json.Marshal(f.specs[id])
}

func (f *fakeRuntime) Stop(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return errAway
	}
	if f.dead[id] {
		return image.ErrNotFound
	}
	f.stopped[id]++
	return nil
}

func (f *fakeRuntime) Of(ctx context.Context, i policy.ImageFacts) ([]policy.SignatureFacts, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if f.offline {
		return nil, errAway
	}
	return f.signatures[i.Digest], nil
}

func (f *fakeRuntime) stops() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.stopped))
}

// fakeOpener says what holds pods back.
type fakeOpener struct {
	mu      sync.Mutex
	held    error
	waiting func() // called while a container waits
	asked   []string
}

func (f *fakeOpener) WaitOpen(ctx context.Context, uid string) error {
	f.mu.Lock()
	f.asked = append(f.asked, uid)
	held, waiting := f.held, f.waiting
	f.mu.Unlock()
	if waiting != nil {
		waiting()
	}
	if held == nil {
		return nil
	}
	<-ctx.Done()
	return errors.Join(held, context.Cause(ctx))
}

// events reads what Watch has to say until nothing more comes.
type watcher struct {
	t   testing.TB
	out chan PodEvent
}

func (w *world) watch() *watcher {
	ctx, cancel := context.WithCancel(context.Background())
	out, done := make(chan PodEvent), make(chan struct{})
	go func() {
		defer close(done)
		_ = w.e.Watch(ctx, out)
	}()
	w.t.Cleanup(func() { cancel(); <-done })
	return &watcher{t: w.t, out: out}
}

func (w *watcher) next() PodEvent {
	w.t.Helper()
	select {
	case e := <-w.out:
		return e
	case <-time.After(10 * time.Second):
		w.t.Fatal("no event came")
		return PodEvent{}
	}
}

func (w *watcher) want(removed bool, name, reason string) PodEvent {
	w.t.Helper()
	e := w.next()
	if e.Removed != removed || e.Pod.Name != name || !strings.Contains(e.Reason, reason) || reason == "" && e.Reason != "" {
		w.t.Fatalf("got %+v, want removed %t, pod %s, reason %q", e, removed, name, reason)
	}
	return e
}
