// SPDX-License-Identifier: Apache-2.0

// Package runtime_test runs c8s-runtime under real containerd: what it stops is
// stopped whatever the caller does, and the reason reaches the caller.
package runtime_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/stack"
	stackimage "github.com/c8s-dev/c8s/test/stack/image"
)

const programs = "github.com/c8s-dev/c8s/cmd/"

// node is one whose containerd starts everything through c8s-runtime.
type node struct {
	*stack.Node
	t          testing.TB
	cri        *stack.CRI
	app, pause *stackimage.Image
	images     *image.Resolver
}

func newNode(t testing.TB) *node {
	t.Helper()
	return newNodeWith(t, builtRuntime(t))
}

// builtRuntime is the path of the program, which is the same on the node, and
// has c8s-runtime-alone beside it.
func builtRuntime(t testing.TB) string {
	t.Helper()
	privileged.Require(t)
	dir := t.TempDir()
	for _, name := range []string{"c8s-runtime", "c8s-runtime-alone"} {
		built, err := stackimage.Program(t.Context(), programs+name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), built, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "c8s-runtime")
}

// newNodeWith has another runtime; none is runc itself.
func newNodeWith(t testing.TB, runtime string) *node {
	t.Helper()
	n := &node{Node: stack.NewNode(t, stack.NodeConfig{RuntimeBinary: runtime}), t: t}
	err := n.ConfigureRuntime()
	if err != nil {
		t.Fatal(err)
	}
	n.app, n.pause = must(stackimage.App(t.Context())), must(stackimage.Pause(t.Context()))
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

func (n *node) write(file string, b []byte) {
	n.t.Helper()
	if err := n.WriteFile(file, b, 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) load(images ...*stackimage.Image) {
	n.t.Helper()
	if err := n.Import(n.t.Context(), images...); err != nil {
		n.t.Fatal(err)
	}
}

// daemon is a judge that admits images by their digest and one added process.
type daemon struct {
	images *image.Resolver

	mu    sync.Mutex
	admit map[policy.Digest]bool
	exec  []string
	seen  map[string]image.Container // by container id
	stop  func()
}

// serve has a daemon answer at the node's gate.
func (n *node) serve(admit ...*stackimage.Image) *daemon {
	n.t.Helper()
	d := &daemon{images: n.images, admit: map[policy.Digest]bool{}, seen: map[string]image.Container{}}
	for _, i := range admit {
		d.admit[policy.Digest(i.Config)] = true
	}
	ln, err := gate.Listen(n.Path("/run/c8s"))
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s := &gate.Server{Judge: d, Log: slog.New(slog.DiscardHandler)}
	go func() { defer close(done); _ = s.Serve(ctx, ln) }()
	d.stop = sync.OnceFunc(func() { cancel(); <-done; ln.Close() })
	n.t.Cleanup(d.stop)
	return d
}

func (d *daemon) Create(ctx context.Context, r gate.CreateRequest) error {
	c, err := d.images.Container(ctx, r.ID)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen[r.ID] = c
	if !d.admit[c.Image.Digest] {
		return policy.Decision{Code: policy.CodeImageUnlisted, Rule: "workloads", Expected: "a listed image", Actual: string(c.Image.Digest), Remedy: "list it"}
	}
	return nil
}

func (d *daemon) Exec(_ context.Context, r gate.ExecRequest) error {
	var p specs.Process
	var container specs.Spec
	if err := json.Unmarshal(r.Process, &p); err != nil {
		return err
	}
	if err := json.Unmarshal(r.Config, &container); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exec == nil || !slices.Equal(p.Args, d.exec) || len(container.Process.Args) == 0 {
		return policy.Decision{Code: policy.CodeExecNotAllowed, Rule: "exec", Expected: "no added process", Actual: strings.Join(p.Args, " ")}
	}
	return nil
}

func (d *daemon) Lock(context.Context, gate.LockRequest) error { return nil }

func (d *daemon) of(id string) image.Container {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[id]
}

func (n *node) pod(spec stack.PodSpec) *stack.Pod {
	n.t.Helper()
	p, err := n.cri.RunPod(n.t.Context(), spec)
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

// bootstrap installs a manifest whose one bootstrap entry is the app that sleeps.
func (n *node) bootstrap() {
	n.t.Helper()
	f := policytest.New(n.t, policytest.With(func(m *policy.Manifest) {
		m.Sandboxes = []policy.Image{{Name: "pause", Digest: policy.Digest(n.pause.Config)}}
		m.Workloads = append(m.Workloads, policy.Workload{
			Name: "c8s-node", HostNetwork: true, Bootstrap: true,
			Images: []policy.Image{{Name: "app", Digest: policy.Digest(n.app.Config), Run: &policy.Run{Args: []string{"/app", "sleep"}, Sockets: policy.SocketKinds()}}},
		})
	}))
	n.write("/etc/c8s/operators.json", must(json.Marshal(f.Operators)))
	n.write("/etc/c8s/manifest.json", f.Envelope)
}

// refused wants the reason in an error of containerd's.
func refused(t *testing.T, what string, err error, reasons ...string) {
	t.Helper()
	for _, reason := range reasons {
		if err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want a refusal with %q", what, err, reason)
		}
	}
}

func TestOnlyAdmittedContainersStart(t *testing.T) {
	n := newNode(t)
	other := must(n.app.Reconfigure("local.test/other:1", func(c *v1.Config) { c.Cmd = []string{"sleep"} }))
	n.load(other)
	d := n.serve(n.pause, n.app)
	pod := n.pod(stack.PodSpec{Name: "a"})

	c := must(pod.Run(t.Context(), stack.ContainerSpec{Image: n.app.Ref}))
	if got := d.of(c.ID); got.Image.Digest != policy.Digest(n.app.Config) || got.Pod.SandboxID != pod.ID || got.Pod.Stdin {
		t.Errorf("the container is %+v", got)
	}
	if got := d.of(pod.ID); got.Image.Digest != policy.Digest(n.pause.Config) || !got.Pod.Sandbox {
		t.Errorf("the sandbox is %+v", got)
	}
	// The same layers under another config: another image.
	_, err := pod.Run(t.Context(), stack.ContainerSpec{Name: "b", Image: other.Ref})
	refused(t, "an image that is not listed", err, "refused (image-unlisted) by workloads: expected a listed image, got "+other.Config, "list it")

	in := must(pod.Run(t.Context(), stack.ContainerSpec{Name: "in", Image: n.app.Ref, Edit: func(c *cri.ContainerConfig) { c.Stdin, c.Tty = true, true }}))
	if got := d.of(in.ID); !got.Pod.Stdin || !got.Pod.TTY {
		t.Errorf("a container with an open stdin is %+v", got)
	}
}

func TestOnlyAdmittedSandboxesStart(t *testing.T) {
	n := newNode(t)
	n.serve(n.app)
	_, err := n.cri.RunPod(t.Context(), stack.PodSpec{Name: "a"})
	refused(t, "a sandbox that is not listed", err, "image-unlisted", n.pause.Config)
	if pods := must(n.cri.ListPods(t.Context())); len(pods) > 0 {
		t.Errorf("left behind: %v", pods)
	}
}

func TestAddedProcessesAreJudged(t *testing.T) {
	n := newNode(t)
	d := n.serve(n.pause, n.app)
	pod := n.pod(stack.PodSpec{Name: "a"})
	c := must(pod.Run(t.Context(), stack.ContainerSpec{Image: n.app.Ref}))
	_, err := c.Exec(t.Context(), "/app", "env")
	refused(t, "an exec that is not listed", err, "exec-not-allowed", "got /app env")
	d.mu.Lock()
	d.exec = []string{"/app", "env"}
	d.mu.Unlock()
	if got, err := c.Exec(t.Context(), "/app", "env"); err != nil || got.Code != 0 || !strings.Contains(got.Stdout, "{") {
		t.Errorf("a listed exec: %+v, %v", got, err)
	}
	_, err = c.Exec(t.Context(), "/app", "env", "-x")
	refused(t, "an exec with an argument more", err, "exec-not-allowed")
	d.stop()
	_, err = c.Exec(t.Context(), "/app", "env")
	refused(t, "an exec without the daemon", err, "daemon-not-running")
}

// TestATagThatMovesChangesNothing: the container was made from the image that
// the tag named before; what starts is that, and is judged as that.
func TestATagThatMovesChangesNothing(t *testing.T) {
	n := newNode(t)
	d := n.serve(n.pause, n.app)
	evil := must(stackimage.New(n.app.Ref, n.pause.Image())) // other layers, under the app's name
	pod := n.pod(stack.PodSpec{Name: "a"})
	before := must(pod.Create(t.Context(), stack.ContainerSpec{Name: "before", Image: n.app.Ref}))
	n.load(evil)
	if err := before.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := d.of(before.ID); got.Image.Digest != policy.Digest(n.app.Config) || got.Name != n.app.Ref {
		t.Errorf("after its tag moved, the container is %s, want %s", got.Image.Digest, n.app.Config)
	}
	d.mu.Lock()
	delete(d.admit, policy.Digest(n.pause.Config))
	d.mu.Unlock()
	after, err := pod.Create(t.Context(), stack.ContainerSpec{Name: "after", Image: n.app.Ref, Command: []string{"/pause"}})
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "the image under the moved tag", after.Start(t.Context()), "image-unlisted", evil.Config)
}

// TestOtherWaysToStartSomething are those of whoever is on the node without
// being able to change its software.
func TestOtherWaysToStartSomething(t *testing.T) {
	n := newNode(t)
	d := n.serve(n.pause, n.app)
	pod := n.pod(stack.PodSpec{Name: "a"})
	c := must(pod.Run(t.Context(), stack.ContainerSpec{Image: n.app.Ref}))
	binary := strings.TrimSpace(must(n.Run(t.Context(), "grep", "-ho", "/.*c8s-runtime", "/etc/containerd/conf.d/00-runtime.toml")))
	if _, err := n.Run(t.Context(), "sh", "-c", "ctr -n k8s.io images export /run/app.tar "+n.app.Ref+" && ctr images import /run/app.tar"); err != nil {
		t.Fatal(err)
	}
	for what, tc := range map[string]struct {
		argv   []string
		reason string
	}{
		"ctr run":             {[]string{"ctr", "run", "--runc-binary", binary, n.app.Ref, "x"}, `namespace "default" is refused`},
		"ctr run beside pods": {[]string{"ctr", "-n", "k8s.io", "run", "--runc-binary", binary, "--rootfs", "/usr", "x", "/bin/true"}, "it has no snapshot"},
		"ctr task exec":       {[]string{"ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", "x", c.ID, "/app", "env"}, "exec-not-allowed"},
		"ctr task checkpoint": {[]string{"ctr", "-n", "k8s.io", "tasks", "checkpoint", c.ID}, "checkpoint"},
		"run":                 {[]string{binary, "--root", "/run/containerd/runc/k8s.io", "run", "--bundle", "/run", "x"}, "run: refused"},
		"checkpoint":          {[]string{binary, "--root", "/run/containerd/runc/k8s.io", "checkpoint", c.ID}, "the memory of a confidential container"},
		"restore":             {[]string{binary, "--root", "/run/containerd/runc/k8s.io", "restore", "--bundle", "/run", "x"}, "restore: refused"},
		"exec by flags":       {[]string{binary, "--root", "/run/containerd/runc/k8s.io", "exec", c.ID, "/app", "env"}, "after the flags there must be the container's id alone"},
	} {
		_, err := n.Run(t.Context(), tc.argv...)
		refused(t, what, err, tc.reason)
	}
	if d.of("x").Name != "" {
		t.Error("the daemon was asked about a container of nobody")
	}
}

// TestWithoutTheDaemonOnlyBootstrapEntriesStart is the daemon's own start.
func TestWithoutTheDaemonOnlyBootstrapEntriesStart(t *testing.T) {
	n := newNode(t)
	n.bootstrap()
	_, err := n.cri.RunPod(t.Context(), stack.PodSpec{Name: "ordinary"})
	refused(t, "a pod with a network", err, "daemon-not-running", "a pod with a network of its own")
	pod := n.pod(stack.PodSpec{Name: "daemon", HostNetwork: true})
	_, err = pod.Run(t.Context(), stack.ContainerSpec{Name: "other", Image: n.app.Ref, Args: []string{"serve"}})
	refused(t, "another command", err, "daemon-not-running", "args")
	c, err := pod.Run(t.Context(), stack.ContainerSpec{Image: n.app.Ref, Args: []string{"sleep"}})
	if err != nil {
		t.Fatal(err)
	}
	if s := must(c.Status(t.Context())); s.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("the daemon's container is %s", s.State)
	}
	if err := pod.Remove(t.Context()); err != nil { // stopping needs nobody's leave
		t.Error(err)
	}
}

// TestADaemonThatDiesWithinTheQuestionRefuses: it was reached, so nobody else
// is asked, although the manifest has the pod among its bootstrap entries.
func TestADaemonThatDiesWithinTheQuestionRefuses(t *testing.T) {
	n := newNode(t)
	n.bootstrap()
	ln, err := gate.Listen(n.Path("/run/c8s"))
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1<<10))
			conn.Close()
		}
	}()
	_, err = n.cri.RunPod(t.Context(), stack.PodSpec{Name: "daemon", HostNetwork: true})
	refused(t, "a pod within whose question the daemon dies", err, "asking the node daemon")
	ln.Close()
	<-gone
	n.pod(stack.PodSpec{Name: "daemon", HostNetwork: true})
}
