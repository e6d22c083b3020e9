// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
)

// held holds up commits once told to.
type held struct {
	store.Store
	hold    chan struct{} // closed when commits are to wait
	arrived chan struct{}
	free    chan struct{}
}

func (h *held) Commit(ctx context.Context, t store.Txn) (store.Version, error) {
	select {
	case <-h.hold:
		select {
		case h.arrived <- struct{}{}:
		default:
		}
		<-h.free
	default:
	}
	return h.Store.Commit(ctx, t)
}

// What is under way when the service is told to end is finished, watches end at
// once, and nothing is left running.
func TestShutdownFinishesRunningCalls(t *testing.T) {
	before := runtime.NumGoroutine()
	g := newGroup(t, 1)
	r := g.replicas[0]
	h := &held{Store: g.store, hold: make(chan struct{}), arrived: make(chan struct{}, 1), free: make(chan struct{})}
	r.store = storetest.NewFaulty(h)
	g.startAll()
	c := r.http(nil)
	stream, err := api.NewPolicyClient(c, "https://cds").Watch(t.Context(), &api.WatchRequest{})
	if err != nil || !stream.Receive() {
		t.Fatal(err, stream.Err())
	}
	close(h.hold)
	enrolled := make(chan error, 1)
	go func() {
		_, err := g.client(nil).EnrolNode(t.Context(), g.machine("node"))
		enrolled <- err
	}()
	<-h.arrived
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	if stream.Receive() || stream.Err() != nil {
		t.Errorf("the watch did not end well: %v", stream.Err())
	}
	stream.Close()
	await(t, "the service to accept no more", func() error {
		conn, err := net.Dial("tcp", r.addr)
		if err == nil {
			conn.Close()
			return errors.New("it does")
		}
		return nil
	}, r.log)
	close(h.free)
	if err := <-enrolled; err != nil {
		t.Errorf("the enrolment under way: %v", err)
	}
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("Serve: %v", err)
	}
	c.CloseIdleConnections()
	await(t, "all goroutines to end", func() error {
		if n := runtime.NumGoroutine(); n > before {
			stacks := make([]byte, 1<<16)
			stacks = stacks[:runtime.Stack(stacks, true)]
			return fmt.Errorf("%d goroutines, %d before: %s", n, before, strings.Join(strings.Split(string(stacks), "\n\n"), "\n"))
		}
		return nil
	}, r.log)
}
