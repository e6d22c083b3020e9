// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"

	"github.com/c8s-dev/c8s/policy/policytest"
	"github.com/c8s-dev/c8s/test/relay"
)

// runtimeSide is the half of NRI that runs inside containerd.
type runtimeSide struct {
	*adaptation.Adaptation
	synced chan struct{}
}

func listenNRI(t *testing.T, socket string, pods []*api.PodSandbox, containers []*api.Container) *runtimeSide {
	t.Helper()
	r := &runtimeSide{synced: make(chan struct{}, 16)}
	sync := func(ctx context.Context, cb adaptation.SyncCB) error {
		_, err := cb(ctx, pods, containers)
		r.synced <- struct{}{}
		return err
	}
	update := func(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) { return nil, nil }
	a, err := adaptation.New("test", "v2.4.2", sync, update, adaptation.WithSocketPath(socket), adaptation.WithPluginPath(filepath.Join(filepath.Dir(socket), "none")))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	<-r.synced // of the plugins that are installed: none
	r.Adaptation = a
	return r
}

// wait waits until the runtime asks the next plugin, which it does only some
// time after the plugin has answered its synchronization. It holds plugins'
// synchronizations back until then, and so shows when.
func (r *runtimeSide) wait(t *testing.T) {
	t.Helper()
	select {
	case <-r.synced:
		r.BlockPluginSync().Unblock()
	case <-time.After(20 * time.Second):
		t.Fatal("the plugin did not come")
	}
}

func (w *world) plugin(socket string) (*Plugin, context.CancelFunc) {
	p := &Plugin{Enforcer: w.e, Socket: socket, Jitter: func() float64 { return 0 }, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
			w.t.Errorf("Run: %v", err)
		}
	}()
	var once sync.Once
	end := func() { once.Do(func() { cancel(); <-done }) }
	w.t.Cleanup(end)
	return p, end
}

// eventually waits for what another process' goroutine does next.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nri") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestThePluginAnswersARuntime(t *testing.T) {
	w := newWorld(t)
	socket := filepath.Join(shortDir(t), "nri.sock")
	r := listenNRI(t, socket, nil, nil)
	defer r.Stop()
	plugin, leave := w.plugin(socket)
	r.wait(t)
	eventually(t, "connected", plugin.Connected)

	p := podOf("shop")
	w.runtime.sandbox(p)
	if err := r.RunPodSandbox(t.Context(), &api.RunPodSandboxRequest{Pod: p.nri()}); err != nil {
		t.Fatal(err)
	}
	c := p.container("c1", policytest.Web)
	got, err := r.CreateContainer(t.Context(), &api.CreateContainerRequest{Pod: p.nri(), Container: c})
	if err != nil || got.GetAdjust().GetLinux().GetSeccompPolicy() == nil {
		t.Fatalf("%v, %v", got, err)
	}
	c = p.container("c2", policytest.DB)
	_, err = r.CreateContainer(t.Context(), &api.CreateContainerRequest{Pod: p.nri(), Container: c})
	if err == nil || !strings.Contains(err.Error(), "image-unlisted") {
		t.Errorf("%v", err)
	}
	leave()
	if plugin.Connected() {
		t.Error("still connected")
	}
}

// During a hand-over two daemons are connected. NRI takes a profile from one.
func TestTwoDaemonsDoNotCollide(t *testing.T) {
	old, next := newWorld(t), newWorld(t)
	socket := filepath.Join(shortDir(t), "nri.sock")
	r := listenNRI(t, socket, nil, nil)
	defer r.Stop()
	p := podOf("shop")
	for _, w := range []*world{old, next} {
		w.runtime.sandbox(p)
		plugin, _ := w.plugin(socket)
		r.wait(t)
		eventually(t, "connected", plugin.Connected)
	}
	if err := r.RunPodSandbox(t.Context(), &api.RunPodSandboxRequest{Pod: p.nri()}); err != nil {
		t.Fatal(err)
	}
	got, err := r.CreateContainer(t.Context(), &api.CreateContainerRequest{Pod: p.nri(), Container: p.container("c1", policytest.Web)})
	if err != nil || got.GetAdjust().GetLinux().GetSeccompPolicy() == nil {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestThePluginComesBack(t *testing.T) {
	w := newWorld(t)
	dir := shortDir(t)
	socket, runtime := filepath.Join(dir, "p.sock"), filepath.Join(dir, "r.sock")
	between := relay.Start(t, socket, runtime)
	plugin, _ := w.plugin(socket) // nobody listens behind it yet
	first := listenNRI(t, runtime, nil, nil)
	first.wait(t)
	eventually(t, "connected", plugin.Connected)
	first.Stop()
	p := podOf("shop")
	w.runtime.sandbox(p)
	again := listenNRI(t, runtime, []*api.PodSandbox{p.nri()}, nil)
	defer again.Stop()
	between.Drop()
	again.wait(t)
	eventually(t, "connected again", plugin.Connected)
	w.e.mu.Lock()
	defer w.e.mu.Unlock()
	if _, ok := w.e.pods[p.id]; !ok {
		t.Error("it was not told what runs")
	}
}

// A runtime that dies between registration and configuration must not hold the
// plugin for ever.
func TestThePluginLeavesARuntimeThatDies(t *testing.T) {
	w := newWorld(t)
	socket := filepath.Join(shortDir(t), "nri.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	w.plugin(socket)
	for range 2 { // it tries again
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAtLeast(conn, make([]byte, 1), 1); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	ln.Close()
}
