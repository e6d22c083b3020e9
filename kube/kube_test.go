// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/kube/kubetest"
)

const (
	nodeA, nodeB = "10.80.0.1", "10.80.0.2"
	podB, podB6  = "10.81.2.2", "fd81:2::2"
	vip          = "10.96.0.10"
)

// site is a Watcher with its table and the API server it follows.
type site struct {
	t       *testing.T
	api     *kubetest.Server
	addr    string
	stop    func() // the API server
	table   *resolve.Table
	watcher *Watcher
	log     *lines
}

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newSite(t *testing.T, objects ...kubetest.Object) *site {
	t.Helper()
	s := &site{t: t, api: kubetest.New(), addr: "127.0.0.1:0", log: &lines{}}
	s.api.Set(objects...)
	s.start()
	t.Cleanup(func() { s.stop() })
	var err error
	s.table, err = resolve.New(resolve.Config{Node: netip.MustParseAddr(nodeA), NodeName: "a", Rand: rand.Uint64, Now: time.Now})
	must(t, err)
	s.watcher, err = New(Config{
		API: &rest.Config{Host: "http://" + s.addr, QPS: -1}, NodeAddr: netip.MustParseAddr(nodeA), Now: time.Now,
		Log: slog.New(slog.NewTextHandler(s.log, nil)),
	})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.watcher.Fill(ctx, s.table) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Fill: %v", err)
		}
		if t.Failed() {
			t.Log(s.log)
		}
	})
	return s
}

// start has the API server listen, where it did before if it did.
func (s *site) start() {
	s.t.Helper()
	ln, err := net.Listen("tcp", s.addr)
	must(s.t, err)
	s.addr = ln.Addr().String()
	srv := &http.Server{Handler: s.api, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	s.stop = func() { srv.Close(); <-done }
}

// want waits until dst resolves to want: a pod and port, or nothing.
func (s *site) want(dst, want string) {
	s.t.Helper()
	s.until(dst+" to be "+want, func() (string, bool) {
		target, v := s.table.Resolve(resolve.Query{Protocol: resolve.TCP, Src: netip.MustParseAddr("10.81.1.2"), Dst: netip.MustParseAddrPort(dst)})
		got := ""
		if v == resolve.Found {
			got = target.Pod.String() + " on " + target.Node.String()
		}
		return got, got == want
	})
}

func (s *site) until(what string, check func() (string, bool)) {
	s.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		got, ok := check()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waiting for %s: it is %q", what, got)
		}
	}
}

func (s *site) connected(want bool) {
	s.t.Helper()
	s.until("contact", func() (string, bool) { got, since := s.watcher.Contact(); return since.String(), got == want })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func usual() []kubetest.Object {
	return []kubetest.Object{
		kubetest.Node("a", nodeA, "10.81.1.0/24"), kubetest.Node("b", nodeB, "10.81.2.0/24"),
		kubetest.Pod("d/web-0", "b", podB, podB6), kubetest.Service("d/web", 80, vip, "fd96::10"),
		kubetest.Slice("d/web-4", "web", 8080, podB), kubetest.Slice("d/web-6", "web", 8080, podB6),
	}
}

func TestTableFollowsTheAPIServer(t *testing.T) {
	s := newSite(t, usual()...)
	s.want(vip+":80", podB+":8080 on "+nodeB)
	s.want("[fd96::10]:80", "["+podB6+"]:8080 on "+nodeB)
	s.want("["+podB6+"]:9", "["+podB6+"]:9 on "+nodeB)
	s.want("10.81.2.77:9", "10.81.2.77:9 on "+nodeB) // by its node's prefix

	s.api.Set(kubetest.Pod("d/web-1", "a", "10.81.1.9"), kubetest.Slice("d/web-4", "web", 9090, "10.81.1.9"))
	s.want(vip+":80", "10.81.1.9:9090 on "+nodeA)
	s.api.Set(kubetest.Node("b", "10.80.0.3"))
	s.want(podB+":9", podB+":9 on 10.80.0.3")
	s.api.Delete(kubetest.Service("d/web", 80))
	s.want(vip+":80", "")
	s.api.Delete(kubetest.Pod("d/web-0", "b"))
	s.want(podB+":9", "")
	s.connected(true)
}

// A daemon that takes a node over waits for contact, and must have the routes
// then.
func TestWithContactTheTableIsThere(t *testing.T) {
	for range 20 {
		s := newSite(t, usual()...)
		s.connected(true)
		q := resolve.Query{Protocol: resolve.TCP, Src: netip.MustParseAddr("10.81.1.2"), Dst: netip.MustParseAddrPort(vip + ":80")}
		if _, v := s.table.Resolve(q); v != resolve.Found {
			t.Fatalf("in contact, but the Service is %v", v)
		}
	}
}

func TestRoutesStayWhileTheAPIServerIsAway(t *testing.T) {
	s := newSite(t, usual()...)
	s.want(vip+":80", podB+":8080 on "+nodeB)
	s.connected(true)
	s.stop()
	s.connected(false)
	s.want(vip+":80", podB+":8080 on "+nodeB)
	s.api.Set(kubetest.Slice("d/web-4", "web", 9090, podB))
	s.start()
	s.want(vip+":80", podB+":9090 on "+nodeB)
	s.connected(true)
	if log := s.log.String(); strings.Count(log, "the API server is lost") != 1 || strings.Count(log, "following the API server") != 2 {
		t.Errorf("the log should say once that it was lost and came back:\n%s", log)
	}
}

func TestAnAPIServerThatNeverAnswersFillsNothing(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.connected(false)
	if _, since := s.watcher.Contact(); !since.IsZero() {
		t.Errorf("contact since %s", since)
	}
	s.api.Set(usual()...)
	s.start()
	s.want(vip+":80", podB+":8080 on "+nodeB)
}

func TestRefusedRequestsAreNamedAndTriedAgain(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.api.Set(usual()...)
	s.api.Refuse(http.StatusForbidden)
	s.start()
	s.until("the log to say so", func() (string, bool) {
		log := s.log.String()
		return log, strings.Contains(log, "cannot be followed") && strings.Contains(log, "refused (get ")
	})
	s.api.Refuse(0)
	s.want(vip+":80", podB+":8080 on "+nodeB)
	if log := s.log.String(); strings.Count(log, "refused (get ") != 1 || strings.Contains(log, "DEBUG") {
		t.Errorf("one line was enough:\n%s", log)
	}
}

func TestNonsenseIsSurvived(t *testing.T) {
	s := newSite(t, usual()...)
	s.want(vip+":80", podB+":8080 on "+nodeB)
	long := strings.Repeat("x", 2000)
	s.api.Emit("/api/v1/pods", "ADDED", kubetest.Pod("d/"+long, "b", "10.81.2.9"))
	s.api.Emit("/api/v1/pods", "MODIFIED", kubetest.Node("b", "10.80.0.9"))
	s.api.Emit("/api/v1/pods", "ADDED", kubetest.Object{"kind": "Pod", "apiVersion": "v1"})
	s.api.Emit("/api/v1/services", "DELETED", kubetest.Object{"kind": "Service", "apiVersion": "v1", "metadata": kubetest.Object{"name": "nobody"}})
	s.api.Emit("/api/v1/nodes", "NEVER HEARD OF", kubetest.Node("b", "10.80.0.9"))
	s.api.Emit("/api/v1/nodes", "ADDED", kubetest.Object{"kind": "Node", "apiVersion": "v1", "metadata": "no object"})
	s.api.Emit("/apis/discovery.k8s.io/v1/endpointslices", "ERROR", kubetest.Object{"kind": "Status", "apiVersion": "v1", "code": 410, "reason": "Expired"})
	s.api.Set(kubetest.Pod("d/liar", "b", "127.0.0.1", "169.254.169.254", nodeA, "no address"))
	s.api.Set(kubetest.Slice("d/web-4", "web", 9090, podB))
	s.want(vip+":80", podB+":9090 on "+nodeB)
	s.until("the lies to be counted", func() (string, bool) { return s.log.String(), s.table.Report().Ignored >= 3 })
	for _, dst := range []string{"127.0.0.1:1", "169.254.169.254:80", nodeA + ":10250"} {
		s.want(dst, "")
	}
}

func TestTheConfigurationMustBeWhole(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration was accepted")
	}
	if _, err := Connect(t.TempDir()+"/none", "test"); err == nil {
		t.Error("a kubeconfig that is not there was accepted")
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := Connect("", "test"); err == nil {
		t.Error("there is no API server outside of a pod")
	}
}

func TestClientGosOwnWordsAreDebugMessagesWithoutBodies(t *testing.T) {
	for level, want := range map[slog.Level]string{slog.LevelInfo: "", slog.LevelDebug: "level=DEBUG msg=a;level=DEBUG msg=b err=c;"} {
		var out strings.Builder
		h := slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
		log := klog.FromContext(quiet(t.Context(), slog.New(h)))
		log.V(4).Info("a")
		log.Error(errors.New("c"), "b")
		log.V(8).Info("Response Body", "body", "secret")
		if got := strings.ReplaceAll(out.String(), "\n", ";"); got != want {
			t.Errorf("%s: %q, want %q", level, got, want)
		}
	}
}
