// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"context"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/api"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/policy"
)

// A replica that no longer believes its store has no news. Whoever watches it
// must look for another.
func TestWatchEndsWhenTheReplicaIsOutOfTouch(t *testing.T) {
	w := newWorld(t)
	old := w.store.Snapshot()
	second := w.f.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = true })
	if err := publish(t, w.client(), second.Envelope); err != nil {
		t.Fatal(err)
	}
	stream, err := w.call(nil).pol.Watch(t.Context(), &api.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	w.store.Restore(old)
	if stream.Receive() {
		t.Errorf("the watch brought %v", stream.Msg())
	}
	if err := stream.Err(); err == nil || !strings.Contains(err.Error(), "store-rolled-back") {
		t.Errorf("the watch ended with %v, want store-rolled-back", err)
	}
	// What it knew it still says: a node that was away may need it.
	again, err := w.call(nil).pol.Watch(t.Context(), &api.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !again.Receive() || len(again.Msg().GetManifest()) == 0 {
		t.Errorf("a new watch brought no manifest: %v", again.Err())
	}
	if again.Receive() {
		t.Error("a new watch lasts")
	}
}

// deaf is a store that tells nobody of changes.
type deaf struct{ store.Store }

func (deaf) Watch(context.Context, string) <-chan struct{} { return nil }

// What one replica acknowledged the next one asked builds on, though it has not
// heard of it yet.
func TestReplicasPublishInTurn(t *testing.T) {
	w := newWorld(t)
	shared := w.store
	clients := []*client.Client{w.client()}
	w.edit = func(c *cds.Config) { c.Store, c.Name = deaf{shared}, "two" }
	w.start(simtest.Attester(t, "cds", measuredFor(w.f.Operators)))
	clients = append(clients, w.client())
	next := w.f
	for i := range 6 {
		next = next.Next(t, func(m *policy.Manifest) { m.Workloads[0].HostAccess = i%2 == 0 })
		if err := publish(t, clients[i%2], next.Envelope); err != nil {
			t.Fatalf("manifest %d: %v", next.Manifest.Version, err)
		}
	}
}
