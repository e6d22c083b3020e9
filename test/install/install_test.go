// SPDX-License-Identifier: Apache-2.0

// Package install_test puts C8s onto a node with a real containerd and takes it
// off again. The daemon is a stand-in: what it decides is not the subject, that
// nothing starts without its yes is.
package install_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/stack"
	"github.com/c8s-dev/c8s/test/stack/image"
)

// The findings of c8s node check --try.
const (
	triedUnlisted = "tried: an image that no manifest lists"
	triedWaived   = "tried: the same in a pod that waives NRI's validator"
	triedCommand  = "tried: a listed image with another command"
)

// folders are those that C8s changes.
var folders = []string{"/etc/containerd", "/etc/cni", "/etc/c8s", "/opt"}

// snapshot is every file of the node in them.
func snapshot(t *testing.T, n *stack.Node) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range folders {
		err := filepath.WalkDir(n.Path(dir), func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			text := ""
			switch {
			case info.Mode().IsRegular():
				if text, err = contents(path, info.Size()); err != nil {
					return err
				}
			case info.Mode()&fs.ModeSymlink != 0:
				if text, err = os.Readlink(path); err != nil {
					return err
				}
			}
			all[strings.TrimPrefix(path, n.Path("/"))] = info.Mode().String() + " " + text
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// contents are a file's text, for people to read, or the digest of a program:
// the machine's own /opt may hold many.
func contents(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if size > 64<<10 {
		sum := sha256.New()
		_, err = io.Copy(sum, f)
		return fmt.Sprintf("sha256:%x", sum.Sum(nil)), err
	}
	data, err := io.ReadAll(f)
	return string(data), err
}

// daemon is a stand-in that locks nothing and lets start what it is told to.
type daemon struct {
	containers atomic.Bool // sandboxes always
	locked     atomic.Int32
}

func (d *daemon) Create(_ context.Context, r gate.CreateRequest) error {
	var spec struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(r.Config, &spec); err != nil {
		return err
	}
	if spec.Annotations["io.kubernetes.cri.container-type"] == "sandbox" || d.containers.Load() {
		return nil
	}
	return policy.Decision{Code: policy.CodeImageUnlisted, Rule: "the stand-in", Expected: "nothing", Actual: r.ID}
}

func (d *daemon) Exec(context.Context, gate.ExecRequest) error { return nil }

func (d *daemon) Lock(context.Context, gate.LockRequest) error {
	d.locked.Add(1)
	return nil
}

// serve answers at the node's gate until the returned function is called.
func (d *daemon) serve(t *testing.T, n *stack.Node) (stop func()) {
	t.Helper()
	ln, err := gate.Listen(n.Path("/run/c8s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- (&gate.Server{Judge: d, Log: slog.New(slog.DiscardHandler)}).Serve(ctx, ln) }()
	var once atomic.Bool
	stop = func() {
		if once.Swap(true) {
			return
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the gate ended with %v", err)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// node is a machine with the programs to install on it.
type node struct {
	*stack.Node
	tools string
}

func newNode(t *testing.T, containerd string) *node {
	t.Helper()
	privileged.Require(t)
	n := &node{stack.NewNode(t, stack.NodeConfig{Containerd: containerd}), t.TempDir()}
	for _, name := range []string{"c8s", "c8s-cni", "c8s-runtime", "c8s-runtime-alone"} {
		data, err := image.Program(t.Context(), "github.com/c8s-dev/c8s/cmd/"+name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(n.tools, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	app, err := image.App(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Import(t.Context(), app); err != nil {
		t.Fatal(err)
	}
	m := policytest.New(t, policytest.With(func(m *policy.Manifest) {
		m.Workloads[0].Images[0].Digest = policy.Digest(app.Config)
	}))
	operators, err := json.Marshal(m.Operators)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"operators.json": operators, "manifest.json": m.Envelope} {
		if err := os.WriteFile(filepath.Join(n.tools, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// c8s runs a command of c8s on the node.
func (n *node) c8s(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := n.Command(t.Context(), append([]string{filepath.Join(n.tools, "c8s"), "node"}, args...)...)
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	return string(out), err
}

func (n *node) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := n.c8s(t, args...)
	if err != nil {
		t.Fatalf("c8s node %v: %v\n%s", args, err, out)
	}
	return out
}

func (n *node) install(t *testing.T, more ...string) string {
	t.Helper()
	return n.must(t, append([]string{"install", "--operators", filepath.Join(n.tools, "operators.json"), "--manifest", filepath.Join(n.tools, "manifest.json")}, more...)...)
}

// check returns the findings by name, and the command's error.
func (n *node) check(t *testing.T, args ...string) (map[string]host.Finding, error) {
	t.Helper()
	out, runErr := n.c8s(t, append([]string{"check", "-o", "json"}, args...)...)
	var all []host.Finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("reading the findings: %v (%v)\n%s", err, runErr, out)
	}
	found := map[string]host.Finding{}
	for _, f := range all {
		found[f.Name] = f
	}
	return found, runErr
}

func (n *node) restart(t *testing.T) {
	t.Helper()
	if err := n.RestartContainerd(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// pod runs one with one container; it tolerates the NRI plugin's absence, which
// opens nothing.
func (n *node) pod(t *testing.T, name string) (*stack.Container, error) {
	t.Helper()
	cri, err := n.CRI()
	if err != nil {
		t.Fatal(err)
	}
	p, err := cri.RunPod(t.Context(), stack.PodSpec{Name: name, Annotations: map[string]string{host.TolerateAnnotation: "true"}})
	if err != nil {
		return nil, err
	}
	c, err := p.Run(t.Context(), stack.ContainerSpec{Image: image.AppRef, Args: []string{"serve"}})
	if err != nil {
		return nil, errors.Join(err, p.Remove(t.Context()))
	}
	return c, nil
}

func TestInstalledOnARealNodeAndTakenOff(t *testing.T) {
	for _, containerd := range []string{stack.ContainerdStock, stack.ContainerdNRI5} {
		t.Run(containerd, func(t *testing.T) { installAndTakeOff(t, containerd) })
	}
}

func installAndTakeOff(t *testing.T, containerd string) {
	n := newNode(t, containerd)
	before := snapshot(t, n.Node)
	old, err := n.pod(t, "old")
	if err != nil {
		t.Fatal(err)
	}

	if out := n.install(t, "--dry-run"); !strings.Contains(out, "+++ /etc/containerd/conf.d/zz-c8s.toml") {
		t.Errorf("the dry run shows\n%s", out)
	}
	if d := cmp.Diff(before, snapshot(t, n.Node)); d != "" {
		t.Errorf("the dry run changed files:\n%s", d)
	}
	n.install(t)
	found, err := n.check(t)
	if f := found["containerd as it runs"]; err == nil || f.Result != host.Fail || !strings.Contains(f.Remedy, "restart") {
		t.Errorf("before the restart: %v, %+v", err, f)
	}
	// The network is locked already, containerd is not: the check must not be
	// content with a container that fails by itself.
	d := new(daemon)
	stop := d.serve(t, n.Node)
	found, _ = n.check(t, "--try")
	if f := found[triedUnlisted]; f.Result != host.Fail {
		t.Errorf("tried before the restart: %+v", f)
	}
	stop()
	n.restart(t)

	// Without the daemon nothing starts, and the check says so.
	if _, err := n.pod(t, "early"); err == nil || !strings.Contains(err.Error(), "no node daemon of C8s listens") {
		t.Errorf("a pod without the daemon: %v", err)
	}
	found, err = n.check(t, "--try")
	if err == nil || found["node daemon"].Result != host.Fail {
		t.Errorf("without the daemon: %v, %+v", err, found["node daemon"])
	}
	for _, name := range []string{"containerd as it runs", "containerd's configuration", "installed files", "network configuration", "the pods' network as it runs", "cgroup2", "tried: a pod's sandbox"} {
		if found[name].Result != host.Pass {
			t.Errorf("%+v (%v)", found[name], found["tried: to the end"])
		}
	}

	// With it, a container starts by its yes alone.
	stop = d.serve(t, n.Node)
	if _, err := n.pod(t, "refused"); err == nil || !strings.Contains(err.Error(), string(policy.CodeImageUnlisted)) {
		t.Errorf("a container that the daemon refuses: %v", err)
	}
	had := n.inventory(t)
	found, err = n.check(t, "--try")
	for name, by := range map[string]string{triedUnlisted: "validator", triedCommand: "validator", triedWaived: "c8s-runtime"} {
		if f := found[name]; f.Result != host.Pass || !strings.Contains(f.Actual, by+" refused") {
			t.Errorf("%v, %+v", err, f)
		}
	}
	if d := cmp.Diff(had, n.inventory(t)); d != "" {
		t.Errorf("the check left something behind (-before +after):\n%s", d)
	}
	d.containers.Store(true)
	during, err := n.pod(t, "during")
	if err != nil {
		t.Fatal(err)
	}
	if d.locked.Load() == 0 {
		t.Error("no link was locked")
	}
	stop()

	// Off again: what runs goes on, what is new is as before.
	out := n.must(t, "uninstall", "--yes")
	if !strings.Contains(out, "has to stay for a while") {
		t.Errorf("with a container of ours running, uninstalling said\n%s", out)
	}
	n.restart(t)
	for name, c := range map[string]*stack.Container{"old": old, "during": during} {
		if _, err := c.Exec(t.Context(), "/app", "env"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := n.pod(t, "new"); err != nil {
		t.Errorf("a pod after uninstalling: %v", err)
	}
	if err := during.Pod.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	n.must(t, "uninstall", "--yes")
	if d := cmp.Diff(before, snapshot(t, n.Node)); d != "" {
		t.Errorf("after uninstalling (-before +after):\n%s", d)
	}
}

// inventory is what containerd has: pods, images, leases, content, snapshots.
func (n *node) inventory(t *testing.T) map[string]string {
	t.Helper()
	have := map[string]string{}
	for _, args := range []string{"images ls -q", "leases ls -q", "containers ls -q", "content ls -q", "snapshots ls"} {
		out, err := n.Command(t.Context(), append([]string{"ctr", "--namespace", "k8s.io"}, strings.Fields(args)...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		slices.Sort(lines)
		have[args] = strings.Join(lines, "\n")
	}
	return have
}
