// SPDX-License-Identifier: Apache-2.0

package front

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/nri/gate"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

// node is a folder with all that the program reads.
type node struct {
	t     testing.TB
	dir   string
	cfg   Config
	alone Judge
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir()}
	n.cfg = Config{
		Runtime: "/usr/bin/runc", Gate: n.path("run", gate.SocketName), Operators: n.path("operators.json"),
		Manifest: n.path("installed.json"), StateDir: n.path("state"), Containerd: n.path("containerd.sock"),
	}
	n.write("b/config.json", `{"root":{"path":"rootfs"},"marker":"config"}`)
	n.write("b/rootfs/etc/passwd", "root:x:0:0::/:\n")
	n.write("state/log.note", "")
	n.write("p.json", `{"marker":"process"}`)
	n.write("k8s.io/c1/state.json", `{"id":"c1","config":{"labels":["x=y","bundle=`+n.path("b")+`"]}}`)
	n.configure()
	return n
}

func (n *node) path(parts ...string) string {
	return filepath.Join(append([]string{n.dir}, parts...)...)
}

func (n *node) write(name, text string) {
	n.t.Helper()
	path := n.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) configure() {
	b, err := json.Marshal(n.cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write("runtime.json", string(b))
}

// daemon answers at the gate until the test ends.
func (n *node) daemon(j gate.Judge) {
	n.t.Helper()
	ln, err := gate.Listen(n.path("run"))
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s := &gate.Server{Judge: j, UID: uint32(os.Geteuid()), Log: slog.New(slog.DiscardHandler)}
	go func() { defer close(done); _ = s.Serve(ctx, ln) }()
	n.t.Cleanup(func() { cancel(); <-done; ln.Close() })
}

// run starts the program; it returns what the real runtime was started with,
// nil when it was not.
func (n *node) run(args ...string) ([]string, error) {
	var started []string
	p := Program{
		Now:   func() time.Time { return time.Unix(1e9, 0).UTC() },
		Alone: func(ctx context.Context, _ Config, q Question) error { return q(ctx, n.alone) },
		Exec: func(path string, args []string) error {
			started = append([]string{path}, args...)
			return errors.New("became it")
		},
	}
	err := p.Run(n.t.Context(), n.path("runtime.json"), args)
	if started != nil {
		return started, nil
	}
	return nil, err
}

func (n *node) create(more ...string) []string {
	return append([]string{"--root", n.path("k8s.io"), "--log", n.path("log.json"), "--log-format", "json"}, append(more, "create", "--bundle", n.path("b"), "c1")...)
}

func (n *node) exec() []string {
	return []string{"--root", n.path("k8s.io"), "--log", n.path("log.json"), "--log-format", "json", "exec", "--process", n.path("p.json"), "--detach", "c1"}
}

// answers is a judge that says the same to everything and keeps the questions.
type answers struct {
	err    error
	create gate.CreateRequest
	exec   gate.ExecRequest
}

func (a *answers) Create(_ context.Context, r gate.CreateRequest) error { a.create = r; return a.err }
func (a *answers) Exec(_ context.Context, r gate.ExecRequest) error     { a.exec = r; return a.err }
func (a *answers) Lock(context.Context, gate.LockRequest) error         { return errors.New("not asked for") }

func TestTheRuntimeStartsWhenTheDaemonAllows(t *testing.T) {
	n := newNode(t)
	daemon := &answers{}
	n.daemon(daemon)
	for _, args := range [][]string{n.create(), n.exec()} {
		if got, err := n.run(args...); !slices.Equal(got, slices.Concat([]string{"/usr/bin/runc", "/usr/bin/runc"}, args)) {
			t.Errorf("%q started %q, %v", args, got, err)
		}
	}
	config := []byte(`{"root":{"path":"rootfs"},"marker":"config"}`)
	if want := (gate.CreateRequest{ID: "c1", Namespace: "k8s.io", Config: config, Passwd: []byte("root:x:0:0::/:\n")}); !reflect.DeepEqual(daemon.create, want) {
		t.Errorf("asked %+v, want %+v", daemon.create, want)
	}
	if want := (gate.ExecRequest{ID: "c1", Namespace: "k8s.io", Config: config, Process: []byte(`{"marker":"process"}`)}); !reflect.DeepEqual(daemon.exec, want) {
		t.Errorf("asked %+v, want %+v", daemon.exec, want)
	}
}

func TestRefusalsStandWhereContainerdLooks(t *testing.T) {
	n := newNode(t)
	n.daemon(&answers{err: policy.Decision{Code: "image-unlisted", Rule: "workloads", Expected: "a listed image", Actual: "another", Remedy: "list it"}})
	for _, args := range [][]string{n.create(), n.exec()} {
		os.Remove(n.path("log.json"))
		if got, err := n.run(args...); got != nil || policy.CodeOf(err) != "image-unlisted" {
			t.Fatalf("%q started %q, %v", args, got, err)
		}
		b, err := os.ReadFile(n.path("log.json"))
		if err != nil {
			t.Fatal(err)
		}
		var line struct {
			Level, Msg string
			Time       time.Time
		}
		if err := json.Unmarshal(b, &line); err != nil || line.Level != "error" || !strings.Contains(line.Msg, "refused (image-unlisted) by workloads: expected a listed image") || line.Time.Unix() != 1e9 {
			t.Errorf("the log says %s, %v", b, err)
		}
	}
}

func TestWithoutJSONTheLogIsText(t *testing.T) {
	n := newNode(t)
	if got, err := n.run("--log", n.path("log.txt"), "run", "c"); got != nil || err == nil {
		t.Fatalf("started %q, %v", got, err)
	}
	b, err := os.ReadFile(n.path("log.txt"))
	if err != nil || !strings.HasPrefix(string(b), `time="2001-09-09T01:46:40Z" level=error msg="c8s-runtime: run: refused: it makes`) {
		t.Errorf("the log says %s, %v", b, err)
	}
}

func TestWhatStartsNothingIsNotAskedAbout(t *testing.T) {
	n := newNode(t) // without a daemon
	for _, command := range []string{"state", "start", "kill", "delete", "ps", "pause", "resume", "update", "events", "features", "list", "spec"} {
		args := []string{"--root", n.path("k8s.io"), command, "--anything", "c1", "9"}
		if got, err := n.run(args...); len(got) < 2 || !slices.Equal(got[2:], args) {
			t.Errorf("%s started %q, %v", command, got, err)
		}
	}
}

// TestOnlyWithoutADaemonItJudgesAlone: a daemon that was reached and fails is
// not a reason to look elsewhere.
func TestOnlyWithoutADaemonItJudgesAlone(t *testing.T) {
	serve := func(n *node, f func(net.Conn)) {
		ln, err := gate.Listen(n.path("run"))
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				f(conn)
				conn.Close()
			}
		}()
	}
	for name, tc := range map[string]struct {
		set   func(n *node)
		alone bool
	}{
		"no socket":       {func(*node) {}, true},
		"no run folder":   {func(n *node) { n.cfg.Gate = n.path("none", "x"); n.configure() }, true},
		"a dead daemon":   {func(n *node) { serve(n, func(net.Conn) {}); n.closeGate() }, true},
		"dies unasked":    {func(n *node) { serve(n, func(net.Conn) {}) }, false},
		"dies when asked": {func(n *node) { serve(n, func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<16)) }) }, false},
		"says something else": {func(n *node) {
			serve(n, func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<16)); _, _ = c.Write([]byte("yes")) })
		}, false},
		"is a file": {func(n *node) { n.cfg.Gate = n.path("runtime.json", "x"); n.configure() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			tc.set(n)
			yes := &answers{}
			n.alone = yes
			got, err := n.run(n.create()...)
			if asked := yes.create.ID == "c1"; asked != tc.alone || (got != nil) != tc.alone {
				t.Errorf("judged alone: %t; started %q, %v", asked, got, err)
			}
		})
	}
}

func TestTheNamespaceIsThatOfKubernetes(t *testing.T) {
	if namespace != image.Namespace {
		t.Errorf("%q is not %q", namespace, image.Namespace)
	}
}

// closeGate leaves a socket at which nobody listens.
func (n *node) closeGate() {
	n.t.Helper()
	os.Remove(n.cfg.Gate)
	ln, err := gate.Listen(n.path("run"))
	if err != nil {
		n.t.Fatal(err)
	}
	ln.Close()
}

func TestAFailureBeforeTheQuestionRefuses(t *testing.T) {
	for name, set := range map[string]func(n *node) []string{
		"no settings":         func(n *node) []string { os.Remove(n.path("runtime.json")); return n.create() },
		"settings for others": func(n *node) []string { _ = os.Chmod(n.path("runtime.json"), 0o666); return n.create() },
		"settings not understood": func(n *node) []string {
			n.write("runtime.json", `{"runtime":"/usr/bin/runc","trust":true}`)
			return n.create()
		},
		"settings half":        func(n *node) []string { n.write("runtime.json", `{"runtime":"/usr/bin/runc"}`); return n.create() },
		"a relative runtime":   func(n *node) []string { n.cfg.Runtime = "runc"; n.configure(); return n.create() },
		"no configuration":     func(n *node) []string { os.Remove(n.path("b", "config.json")); return n.create() },
		"a huge configuration": func(n *node) []string { n.write("b/config.json", strings.Repeat(" ", maxSpec+1)); return n.create() },
		"no root":              func(n *node) []string { n.write("b/config.json", `{}`); return n.create() },
		"no root folder":       func(n *node) []string { n.write("b/config.json", `{"root":{"path":"x"}}`); return n.create() },
		"another namespace": func(n *node) []string {
			return []string{"--root", n.path("default"), "create", "--bundle", n.path("b"), "c1"}
		},
		"no process": func(n *node) []string { os.Remove(n.path("p.json")); return n.exec() },
		"no state":   func(n *node) []string { os.Remove(n.path("k8s.io", "c1", "state.json")); return n.exec() },
		"a state of two": func(n *node) []string {
			n.write("k8s.io/c1/state.json", `{"config":{"labels":["bundle=/a","bundle=/b"]}}`)
			return n.exec()
		},
		"a state of none":   func(n *node) []string { n.write("k8s.io/c1/state.json", `{}`); return n.exec() },
		"an unknown flag":   func(n *node) []string { return n.create("--systemd-slice") },
		"an unknown passwd": func(n *node) []string { n.replaceWithFIFO("b/rootfs/etc/passwd"); return n.create() },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.daemon(&answers{})
			if got, err := n.run(set(n)...); got != nil || err == nil {
				t.Errorf("started %q, %v", got, err)
			}
		})
	}
}
