// SPDX-License-Identifier: Apache-2.0

package fleet_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/c8s-dev/c8s/attest/sim/devtee"
	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/test/bench/fleet"
)

func newFleet(t *testing.T) *fleet.Fleet {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Options{Dir: t.TempDir(), Binary: binary, Machines: 2, Workloads: 3})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// background runs what serves on a listener until the test ends.
func background(t *testing.T, serve func(context.Context, net.Listener) error) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func startCDS(t *testing.T, f *fleet.Fleet) string {
	t.Helper()
	att, err := devtee.Open(devtee.Options{Dir: f.SimDir(), Machine: "cds", Operators: f.Operators})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := cds.New(cds.Config{
		Attester: att, Manifest: f.Signed, Operators: f.Operators, Store: storetest.NewMemory(), Name: "one",
		Registry: prometheus.NewRegistry(), Wall: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	addr := background(t, srv.Serve)
	for srv.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	return addr
}

func TestAFleetGetsCertificatesThatHold(t *testing.T) {
	f := newFleet(t)
	addr := startCDS(t, f)
	ctx := t.Context()
	judge, err := f.Meet(ctx, addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Warm(ctx, addr); err != nil {
		t.Fatal(err)
	}
	s, err := f.Dial(ctx, addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	node, err := s.EnrolNode(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	own, err := f.Dial(ctx, addr, node)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	pod, err := own.EnrolPod(ctx, 7)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := own.Renew(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []fleet.Issued{node.Issued, pod, renewed.Issued} {
		if err := judge.Check(i); err != nil {
			t.Error(err)
		}
	}
	for name, spoil := range map[string]func(*fleet.Issued){
		"another chain": func(i *fleet.Issued) { i.Response.Chain = node.Response.Chain },
		"another entry": func(i *fleet.Issued) { i.Response.Receipt.Entry = node.Response.Receipt.Entry },
		"another place": func(i *fleet.Issued) { i.Response.Receipt.Index-- },
		"no checkpoint": func(i *fleet.Issued) { i.Response.Receipt.Checkpoint = nil },
	} {
		bad := pod
		bad.Response = proto.CloneOf(pod.Response)
		if spoil(&bad); judge.Check(bad) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestWatchersHearOfEveryDocument(t *testing.T) {
	f := newFleet(t)
	addr := startCDS(t, f)
	ctx := t.Context()
	w, err := f.Watch(ctx, addr, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	operator, err := f.Dial(ctx, addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	next, err := f.NextManifest(f.Signed)
	if err != nil {
		t.Fatal(err)
	}
	first, err := f.NextDenyList(nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := f.NextDenyList(first)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []struct {
		envelope []byte
		publish  func(context.Context, []byte) error
	}{{next.Envelope, operator.PublishManifest}, {first.Envelope, operator.PublishDenyList}, {second.Envelope, operator.PublishDenyList}} {
		all := w.Expect(d.envelope)
		if err := d.publish(ctx, d.envelope); err != nil {
			t.Fatal(err)
		}
		if _, err := all(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheEchoAnswersWhatItWasTold(t *testing.T) {
	f := newFleet(t)
	ctx := t.Context()
	s, err := f.Dial(ctx, startCDS(t, f), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	node, err := s.EnrolNode(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := proto.Marshal(node.Response)
	if err != nil {
		t.Fatal(err)
	}
	e := fleet.Echo{SimDir: f.SimDir(), Operators: f.Operators, Node: answer, Pod: answer}
	own, err := f.Dial(ctx, background(t, e.Serve), node)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	pod, err := own.EnrolPod(ctx, 0)
	if err != nil || !proto.Equal(pod.Response, node.Response) {
		t.Errorf("a pod's: %v", err)
	}
	if renewed, err := own.Renew(ctx); err != nil || !proto.Equal(renewed.Response, node.Response) {
		t.Errorf("a renewal's: %v", err)
	}
}
