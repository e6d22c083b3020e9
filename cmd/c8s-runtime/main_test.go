// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/internal/front"
	"github.com/c8s-dev/c8s/nri/gate"
)

// node is a folder with the program and all that it reads.
type node struct {
	t      testing.TB
	dir    string
	binary string
}

// newNode builds the program; runtime is what it becomes.
func newNode(t testing.TB, runtime string) *node {
	t.Helper()
	n := &node{t, t.TempDir(), ""}
	cfg, err := json.Marshal(front.Config{
		Runtime: runtime, Gate: n.path("run", gate.SocketName), Operators: n.path("o"), Manifest: n.path("m"), StateDir: n.path("s"), Containerd: n.path("c"),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.write("runtime.json", string(cfg), 0o644)
	n.write("b/config.json", `{"root":{"path":"rootfs"}}`, 0o644)
	n.write("b/rootfs/etc/passwd", "root:x:0:0::/:\n", 0o644)
	n.write("p.json", `{}`, 0o644)
	n.write("k8s.io/c1/state.json", `{"config":{"labels":["bundle=`+n.path("b")+`"]}}`, 0o644)
	n.binary = n.path("bin", "c8s-runtime")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.configPath="+n.path("runtime.json"), "-o", n.binary, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return n
}

func (n *node) path(parts ...string) string {
	return filepath.Join(append([]string{n.dir}, parts...)...)
}

func (n *node) write(name, text string, mode os.FileMode) {
	n.t.Helper()
	path := n.path(name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		n.t.Fatal(err)
	}
}

// daemon answers at the gate until the test ends; nil allows.
func (n *node) daemon(says error) {
	n.t.Helper()
	ln, err := gate.Listen(n.path("run"))
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s := &gate.Server{Judge: answer{says}, UID: uint32(os.Geteuid()), Log: slog.New(slog.DiscardHandler)}
	go func() { defer close(done); _ = s.Serve(ctx, ln) }()
	n.t.Cleanup(func() { cancel(); <-done; ln.Close() })
}

type answer struct{ err error }

func (a answer) Create(context.Context, gate.CreateRequest) error { return a.err }
func (a answer) Exec(context.Context, gate.ExecRequest) error     { return a.err }
func (a answer) Lock(context.Context, gate.LockRequest) error     { return errors.New("not asked for") }

func (n *node) create() []string {
	return []string{"--root", n.path("k8s.io"), "create", "--bundle", n.path("b"), "c1"}
}

func (n *node) exec() []string {
	return []string{"--root", n.path("k8s.io"), "exec", "--process", n.path("p.json"), "c1"}
}

func (n *node) state() []string { return []string{"--root", n.path("k8s.io"), "state", "c1"} }

// run returns what the program printed, and so what it became.
func (n *node) run(args []string) (string, error) {
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(n.t.Context(), n.binary, args...)
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		return stdout.String(), errors.Join(err, errors.New(stderr.String()))
	}
	return stdout.String(), nil
}

// TestOnlyWithoutADaemonItBecomesTheOther lets scripts stand in for runc and
// for c8s-runtime-alone.
func TestOnlyWithoutADaemonItBecomesTheOther(t *testing.T) {
	says := func(who string) string { return "#!/bin/sh\necho " + who + " \"$@\"\n" }
	for name, c := range map[string]struct {
		daemon func(*node)
		alone  bool // the program is there
		who    string
		why    string // instead
	}{
		"no daemon":                      {func(*node) {}, true, "alone", ""},
		"no daemon and no other program": {func(*node) {}, false, "", "c8s-runtime-alone: no such file"},
		"a daemon that allows":           {func(n *node) { n.daemon(nil) }, true, "runc", ""},
		"a daemon that refuses":          {func(n *node) { n.daemon(errors.New("it is Sunday")) }, true, "", "it is Sunday"},
	} {
		t.Run(name, func(t *testing.T) {
			runc := filepath.Join(t.TempDir(), "runc")
			if err := os.WriteFile(runc, []byte(says("runc")), 0o755); err != nil {
				t.Fatal(err)
			}
			n := newNode(t, runc)
			if c.alone {
				n.write("bin/c8s-runtime-alone", says("alone"), 0o755)
			}
			c.daemon(n)
			for _, args := range [][]string{n.create(), n.exec()} {
				out, err := n.run(args)
				want := ""
				if c.who != "" {
					want = c.who + " " + strings.Join(args, " ") + "\n"
				}
				if out != want || (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
					t.Errorf("%q: it became %q, %v", args, out, err)
				}
			}
			if out, err := n.run(n.state()); err != nil || !strings.HasPrefix(out, "runc ") {
				t.Errorf("state: it became %q, %v", out, err)
			}
		})
	}
}

// TestItStaysSmall: what is linked is initialised at every start.
func TestItStaysSmall(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		if strings.HasPrefix(pkg, "google.golang.org/") || strings.HasPrefix(pkg, "github.com/containerd/") || pkg == "net/http" {
			t.Errorf("it links %s", pkg)
		}
	}
}
