// SPDX-License-Identifier: Apache-2.0

// Package nri_test runs the enforcer with real containerd: nothing starts on the
// node that the manifest does not list, whatever is asked of containerd.
package nri_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/nri"
	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/relay"
	"github.com/c8s-dev/c8s/test/stack"
	stackimage "github.com/c8s-dev/c8s/test/stack/image"
)

// node is one whose containerd starts everything through c8s-runtime.
type node struct {
	*stack.Node
	t      testing.TB
	cri    *stack.CRI
	app    *stackimage.Image
	images *image.Resolver
}

func newNode(t testing.TB, cfg stack.NodeConfig) *node {
	t.Helper()
	cfg.RuntimeBinary = builtRuntime(t)
	return onNode(t, stack.NewNode(t, cfg))
}

// builtRuntime is the path of c8s-runtime, which is the same on a node, and has
// c8s-runtime-alone beside it.
func builtRuntime(t testing.TB) string {
	t.Helper()
	privileged.Require(t)
	dir := t.TempDir()
	for _, name := range []string{"c8s-runtime", "c8s-runtime-alone"} {
		built, err := stackimage.Program(t.Context(), "github.com/c8s-dev/c8s/cmd/"+name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), built, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "c8s-runtime")
}

// onNode installs what a node that enforces has, but for the daemon.
func onNode(t testing.TB, on *stack.Node) *node {
	t.Helper()
	n := &node{Node: on, t: t, app: must(stackimage.App(t.Context()))}
	err := n.ConfigureRuntime()
	if err != nil {
		t.Fatal(err)
	}
	n.load(n.app)
	if n.cri, err = n.CRI(); err != nil {
		t.Fatal(err)
	}
	if n.images, err = image.Open(n.Path("/run/containerd/containerd.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.images.Close() })
	return n
}

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func (n *node) load(images ...*stackimage.Image) {
	n.t.Helper()
	if err := n.Import(n.t.Context(), images...); err != nil {
		n.t.Fatal(err)
	}
}

func digest(i *stackimage.Image) policy.Digest { return policy.Digest(i.Config) }

// manifest lists the app with what it may do; edits change that.
func (n *node) manifest(edits ...func(*policy.Manifest)) *policy.Signed {
	n.t.Helper()
	options := []policytest.Option{policytest.With(func(m *policy.Manifest) {
		m.Sandboxes = []policy.Image{{Name: "pause", Digest: digest(must(stackimage.Pause(n.t.Context())))}}
		rule := func(args ...string) policy.Image {
			return policy.Image{Name: "app", Digest: digest(n.app), Run: &policy.Run{Args: append([]string{"/app"}, args...)}}
		}
		m.Workloads = []policy.Workload{
			{Name: "web", Images: []policy.Image{rule("sleep"), rule("sockets"), rule("serve")}, Exec: []policy.Exec{{Args: []string{"/app", "env"}}}},
		}
	})}
	for _, edit := range edits {
		options = append(options, policytest.With(edit))
	}
	return policytest.New(n.t, options...).Signed
}

// daemon is what the node daemon has of the enforcer, without mesh.
type daemon struct {
	*nri.Enforcer
	plugin *nri.Plugin
	end    func()
	relay  *relay.Relay // a plugin can die in the middle of a request
}

// open is the mesh in which every pod has its place at once.
type open struct{}

func (open) WaitOpen(context.Context, string) error { return nil }

// slow holds back what the enforcer asks of containerd's content store, on
// behalf of a plugin that hangs.
type slow struct {
	*image.Resolver

	mu      sync.Mutex
	asked   chan struct{} // nil: answer
	release chan struct{}
}

func (s *slow) hold() (asked <-chan struct{}, release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.release = make(chan struct{}, 1), make(chan struct{})
	return s.asked, sync.OnceFunc(func() { close(s.release) })
}

// answer ends holding back.
func (s *slow) answer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = nil
}

func (s *slow) Config(ctx context.Context, d policy.Digest) (policy.ImageConfig, error) {
	s.mu.Lock()
	asked, release := s.asked, s.release
	s.mu.Unlock()
	if asked != nil {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-release
	}
	return s.Resolver.Config(ctx, d)
}

func (n *node) serve(m *policy.Signed) (*daemon, *slow) {
	n.t.Helper()
	log := slog.New(slog.NewTextHandler(testLog{n.t}, nil))
	runtime := &slow{Resolver: n.images}
	e, err := nri.New(nri.Config{
		Node:    facts.Local(fmt.Sprintf("/proc/%d", n.Pid()), facts.DefaultKubelet, facts.DefaultContainerd()),
		Runtime: runtime, Opener: open{}, Log: log, Now: time.Now,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	e.Manifest(m)
	ln, err := gate.Listen(n.Path("/run/c8s"))
	if err != nil {
		n.t.Fatal(err)
	}
	dir := must(os.MkdirTemp("", "nri"))
	n.t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	d := &daemon{Enforcer: e, relay: relay.Start(n.t, socket, n.Path("/run/nri/nri.sock"))}
	d.plugin = &nri.Plugin{Enforcer: e, Socket: socket, Jitter: func() float64 { return 0 }, Log: log}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	for _, run := range []func(context.Context) error{
		e.Run, d.plugin.Run, func(ctx context.Context) error { return (&gate.Server{Judge: judge{e}, Log: log}).Serve(ctx, ln) },
	} {
		parts.Go(func() { _ = run(ctx) })
	}
	d.end = sync.OnceFunc(func() { cancel(); parts.Wait(); ln.Close() })
	n.t.Cleanup(d.end)
	n.eventually("the plugin is connected", func() bool { return d.plugin.Connected() })
	return d, runtime
}

type judge struct{ e *nri.Enforcer }

func (j judge) Create(ctx context.Context, r gate.CreateRequest) error {
	return j.e.Create(ctx, nri.CreateRequest(r))
}

func (j judge) Exec(ctx context.Context, r gate.ExecRequest) error {
	return j.e.Exec(ctx, nri.ExecRequest(r))
}
func (judge) Lock(context.Context, gate.LockRequest) error { return nil }

// testLog ends with the test: what a daemon says after it is nobody's.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

func (n *node) eventually(what string, is func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("not in time: %s", what)
		}
	}
}

func (n *node) pod(spec stack.PodSpec) *stack.Pod {
	n.t.Helper()
	p, err := n.cri.RunPod(n.t.Context(), spec)
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

func (n *node) run(p *stack.Pod, name string, args ...string) *stack.Container {
	n.t.Helper()
	c, err := p.Run(n.t.Context(), stack.ContainerSpec{Name: name, Image: stackimage.AppRef, Args: args})
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// watch is what the agent hears.
func (n *node) watch(d *daemon) <-chan nri.PodEvent {
	ctx, cancel := context.WithCancel(context.Background())
	events, done := make(chan nri.PodEvent), make(chan struct{})
	go func() {
		defer close(done)
		_ = d.Watch(ctx, events)
	}()
	n.t.Cleanup(func() { cancel(); <-done })
	return events
}

// output waits for a container's end and reads what it said.
func (n *node) output(c *stack.Container) map[string]string {
	n.t.Helper()
	if code, err := c.Wait(n.t.Context()); err != nil || code != 0 {
		n.t.Fatalf("exit code %d, %v", code, err)
	}
	text, err := c.Log()
	if err != nil {
		n.t.Fatal(err)
	}
	var found map[string]string
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		n.t.Fatalf("%v in %q", err, text)
	}
	return found
}

// refused wants codes or words in containerd's error.
func refused(t testing.TB, err error, reasons ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("it was not refused (%v)", reasons)
	}
	for _, reason := range reasons {
		if !strings.Contains(err.Error(), reason) {
			t.Errorf("%q is not the reason: %v", reason, err)
		}
	}
}
