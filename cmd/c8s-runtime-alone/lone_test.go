// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/kept"
	"github.com/c8s-dev/c8s/cmd/internal/front"
	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// world is a node without a daemon: a bootstrap pod "daemon" in the node's
// network, made of a sandbox and one container.
type world struct {
	t          *testing.T
	cfg        front.Config
	containers map[string]image.Container
	specs      map[string]*specs.Spec
	now        time.Time
}

func newWorld(t *testing.T) *world {
	dir := t.TempDir()
	w := &world{t: t, now: policytest.Now(), cfg: front.Config{
		Operators: filepath.Join(dir, "operators.json"), Manifest: filepath.Join(dir, "installed.json"), StateDir: filepath.Join(dir, "state"),
	}}
	if err := os.Mkdir(w.cfg.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	sandbox := ociSpec("/pause")
	sandbox.Annotations = annotations(facts.TypeSandbox)
	container := ociSpec("/c8s", "node")
	container.Annotations = annotations(facts.TypeContainer)
	w.specs = map[string]*specs.Spec{"sb": sandbox, "c1": container}
	w.containers = map[string]image.Container{
		"sb": {Image: imageOf("pause", "/pause"), Pod: image.Record{Sandbox: true, SandboxID: "sb"}},
		"c1": {Image: imageOf("daemon", "/c8s", "node"), Pod: image.Record{SandboxID: "sb"}},
	}
	return w
}

func imageOf(name string, command ...string) policy.ImageFacts {
	return policy.ImageFacts{Digest: policytest.Digest(name), Config: &policy.ImageConfig{Entrypoint: command}}
}

func annotations(kind string) map[string]string {
	return map[string]string{
		facts.AnnotationType: kind, facts.AnnotationName: "daemon", facts.AnnotationSandboxID: "sb", facts.AnnotationSandboxName: "daemon-x",
		facts.AnnotationSandboxNamespace: "c8s-system", facts.AnnotationSandboxUID: "uid",
	}
}

// ociSpec is what containerd makes for a pod in the node's network.
func ociSpec(args ...string) *specs.Spec {
	policyOf := policytest.Container("x")
	return &specs.Spec{
		Version: "1.2.0",
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{},
		},
		Root: &specs.Root{Path: "rootfs"},
		Linux: &specs.Linux{
			Namespaces:  []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace, Path: ""}, {Type: specs.CgroupNamespace}},
			MaskedPaths: policyOf.Privileges.MaskedPaths, ReadonlyPaths: policyOf.Privileges.ReadonlyPaths,
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Seccomp:   facts.Restrict(nil, nil),
		},
	}
}

func (w *world) Container(_ context.Context, id string) (image.Container, error) {
	c, ok := w.containers[id]
	if !ok {
		return c, errors.New("no such container")
	}
	return c, nil
}

func (w *world) Spec(_ context.Context, id string) ([]byte, error) {
	s, ok := w.specs[id]
	if !ok {
		return nil, errors.New("no such container")
	}
	return json.Marshal(s)
}

func (w *world) Process(context.Context, string) (uint32, error) { return 77, nil }

func bootstrap(m *policy.Manifest) {
	m.Sandboxes = []policy.Image{{Name: "pause", Digest: policytest.Digest("pause")}}
	m.Workloads = append(m.Workloads, policy.Workload{
		Name: "c8s-node", HostNetwork: true, Bootstrap: true, Images: []policy.Image{{Name: "daemon", Digest: policytest.Digest("daemon")}},
	})
}

func (w *world) manifestPath(at int) string {
	return []string{filepath.Join(w.cfg.StateDir, kept.ManifestFile), w.cfg.Manifest}[at]
}

// install puts a manifest where the daemon keeps it (0) or where it was
// installed (1).
func (w *world) install(at int, f *policytest.Fixture) {
	w.t.Helper()
	operators, err := json.Marshal(f.Operators)
	if err != nil {
		w.t.Fatal(err)
	}
	for path, b := range map[string][]byte{w.cfg.Operators: operators, w.manifestPath(at): f.Envelope} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) create(id string) error {
	config, err := w.Spec(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	l := lone{
		cfg: w.cfg, containerd: w, now: func() time.Time { return w.now },
		node: &facts.Node{Kubelet: facts.DefaultKubelet, Containerd: facts.DefaultContainerd(), OnTmpfs: func(string) (bool, error) { return false, nil }, Mounts: func() ([]byte, error) { return nil, nil }},
	}
	return l.Create(w.t.Context(), gate.CreateRequest{ID: id, Namespace: image.Namespace, Config: config})
}

func TestAloneOnlyBootstrapPodsStart(t *testing.T) {
	ordinary := func(m *policy.Manifest) { bootstrap(m); m.Workloads[2].Bootstrap = false }
	for name, tc := range map[string]struct {
		manifest func(*policy.Manifest)
		set      func(w *world)
		sandbox  string // part of the refusal; empty: allowed
		then     string // of the container's
	}{
		"the daemon":            {},
		"an entry that is none": {manifest: ordinary, sandbox: "no bootstrap entry", then: "no bootstrap entry"},
		"no entry at all":       {manifest: func(m *policy.Manifest) { bootstrap(m); m.Workloads = m.Workloads[:2] }, sandbox: "no bootstrap entry", then: "no bootstrap entry"},
		"another pause image":   {set: func(w *world) { w.set("sb", func(c *image.Container) { c.Image.Digest = policytest.Digest("evil") }) }, sandbox: "sandbox-unlisted"},
		"another image":         {set: func(w *world) { w.set("c1", func(c *image.Container) { c.Image.Digest = policytest.Digest("evil") }) }, then: "image-unlisted"},
		"a listed ordinary image": {set: func(w *world) {
			w.set("c1", func(c *image.Container) { c.Image.Digest = policytest.Digest(policytest.Web) })
		}, then: "image-unlisted"},
		"another command": {set: func(w *world) {
			w.specs["c1"].Process.Args, w.specs["sb"].Process.Args = []string{"/bin/sh"}, []string{"/bin/sh"}
		}, sandbox: "the image's own command line", then: "refused"},
		"a variable more": {set: func(w *world) {
			for _, s := range w.specs {
				s.Process.Env = append(s.Process.Env, "LD_PRELOAD=/x")
			}
		}, sandbox: `a variable "LD_PRELOAD"`, then: "refused"},
		"a hook": {set: func(w *world) {
			for _, s := range w.specs {
				s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x"}}}
			}
		}, sandbox: "no OCI hook", then: "refused"},
		"a mount": {set: func(w *world) {
			for _, s := range w.specs {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/host", Source: "/", Type: "bind"})
			}
		}, sandbox: "the runtime's own mounts", then: "refused"},
		"a capability":  {set: func(w *world) { w.specs["c1"].Process.Capabilities.Bounding = []string{"CAP_SYS_ADMIN"} }, then: "refused"},
		"an open stdin": {set: func(w *world) { w.set("c1", func(c *image.Container) { c.Pod.Stdin = true }) }, then: "refused"},
		"a network of its own": {set: func(w *world) {
			w.specs["sb"].Linux.Namespaces = append(w.specs["sb"].Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/run/netns/x"})
			w.specs["c1"].Linux.Namespaces = append(w.specs["c1"].Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/77/ns/net"})
		}, sandbox: "a pod with a network of its own", then: "host-network"},
		"the node's processes": {set: func(w *world) {
			w.specs["sb"].Linux.Namespaces = w.specs["sb"].Linux.Namespaces[:1]
		}, sandbox: "namespace, which no bootstrap entry shares"},
		"a container that calls itself a sandbox": {set: func(w *world) { w.specs["c1"].Annotations[facts.AnnotationType] = facts.TypeSandbox }, then: "of the type"},
		"a sandbox that calls itself a container": {set: func(w *world) { w.specs["sb"].Annotations[facts.AnnotationType] = facts.TypeContainer }, sandbox: "of the type"},
		"a container of no pod":                   {set: func(w *world) { w.specs["c1"].Annotations = nil }, then: "record says"},
		"of another pod than it says":             {set: func(w *world) { w.specs["c1"].Annotations[facts.AnnotationSandboxID] = "sc" }, then: "record says"},
		"of a pod that is not there":              {set: func(w *world) { delete(w.specs, "sb") }, sandbox: "-", then: "no such container"},
		"an image that was not found":             {set: func(w *world) { w.containers = nil }, sandbox: "no such container", then: "no such container"},
		"a configuration of the future":           {set: func(w *world) { w.specs["c1"].Linux.Seccomp = nil }, then: "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if tc.manifest == nil {
				tc.manifest = bootstrap
			}
			w.install(1, policytest.New(t, policytest.With(tc.manifest)))
			if tc.set != nil {
				tc.set(w)
			}
			if tc.sandbox != "-" {
				w.check("sb", tc.sandbox)
			}
			w.check("c1", tc.then)
		})
	}
}

func (w *world) set(id string, change func(*image.Container)) {
	c := w.containers[id]
	change(&c)
	w.containers[id] = c
}

func (w *world) check(id, want string) {
	w.t.Helper()
	err := w.create(id)
	switch {
	case want == "" && err != nil:
		w.t.Errorf("%s: %v", id, err)
	case want != "" && (policy.CodeOf(err) != codeNoDaemon || !strings.Contains(err.Error(), want)):
		w.t.Errorf("%s: %v, want a refusal with %q", id, err, want)
	}
}

func TestAloneNoProcessIsAdded(t *testing.T) {
	if err := (lone{}).Exec(t.Context(), gate.ExecRequest{}); policy.CodeOf(err) != codeNoDaemon {
		t.Errorf("Exec = %v", err)
	}
}

func TestAloneTheNewestManifestCounts(t *testing.T) {
	older := policytest.New(t, policytest.With(bootstrap))
	newer := older.Next(t, func(m *policy.Manifest) { m.Workloads[2].Bootstrap = false })
	allows := older.Next(t, nil)
	later := policytest.New(t, policytest.With(bootstrap), policytest.With(func(m *policy.Manifest) {
		m.NotBefore = policytest.Now().Add(time.Hour).Format("2006-01-02T15:04:05Z")
	}))
	for name, tc := range map[string]struct {
		set  func(w *world)
		want string
	}{
		"the installed one alone":         {func(w *world) { w.install(1, older) }, ""},
		"the daemon's alone":              {func(w *world) { w.install(0, older) }, ""},
		"the daemon's is newer":           {func(w *world) { w.install(1, older); w.install(0, newer) }, "no bootstrap entry"},
		"the installed one is newer":      {func(w *world) { w.install(0, older); w.install(1, newer) }, "no bootstrap entry"},
		"a fork":                          {func(w *world) { w.install(0, allows); w.install(1, newer) }, "manifest-"},
		"none":                            {func(w *world) { w.install(1, older); os.Remove(w.manifestPath(1)) }, "reading the manifest"},
		"not yet":                         {func(w *world) { w.install(1, later) }, "comes into force at"},
		"by somebody else's operators":    {func(w *world) { w.install(1, older); w.install(0, policytest.New(t, policytest.With(bootstrap))) }, "opening the manifest"},
		"the daemon's is broken":          {func(w *world) { w.install(1, older); _ = os.WriteFile(w.manifestPath(0), []byte("{"), 0o600) }, "kept manifest"},
		"operators that others can write": {func(w *world) { w.install(1, older); _ = os.Chmod(w.cfg.Operators, 0o666) }, "nobody else may write"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tc.set(w)
			w.check("sb", tc.want)
			w.check("c1", tc.want)
		})
	}
}

// TestTheDaemonsManifestIsFoundWhereItKeepsIt pins a file name that two
// programs share.
func TestTheDaemonsManifestIsFoundWhereItKeepsIt(t *testing.T) {
	w := newWorld(t)
	f := policytest.New(t, policytest.With(bootstrap))
	w.install(1, policytest.New(t, policytest.With(bootstrap))) // others signed it: opening it would fail
	w.install(0, f)
	if err := os.Remove(w.manifestPath(0)); err != nil {
		t.Fatal(err)
	}
	os.Remove(w.manifestPath(1))
	if _, err := client.New(client.Config{
		Addrs: []string{"192.0.2.1:1"}, Operators: f.Operators, Manifest: f.Signed, StateDir: w.cfg.StateDir, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}); err != nil {
		t.Fatal(err)
	}
	w.check("c1", "")
}
