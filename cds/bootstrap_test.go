// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
)

// Every replica starts at once, with the others named and an empty store: one
// makes the CA, the others join it, and nothing of theirs is left in the way.
func TestReplicasThatStartTogetherMakeOneCA(t *testing.T) {
	g := newGroup(t, 3)
	for _, r := range g.replicas {
		r.launch()
	}
	for _, r := range g.replicas {
		r.ready()
	}
	a := g.replicas[0]
	if n := count(a.entries(), func(e *translog.Entry) bool { return e.Type == translog.TypeBundle }); n != 1 {
		t.Errorf("%d CAs were made", n)
	}
	if n := count(a.entries(), func(e *translog.Entry) bool { return e.Type == translog.TypeJoin }); n != 2 {
		t.Errorf("%d replicas joined, want 2", n)
	}
	for _, r := range g.replicas[1:] {
		if string(r.document("/v1/manifest")) != string(g.f.Envelope) {
			t.Errorf("%s has another manifest", r.name)
		}
	}
	// All of them come back, one from the store alone.
	for _, r := range g.replicas {
		r.kill()
	}
	for _, r := range g.replicas {
		r.launch()
		r.ready()
	}
}

// late holds back a replica's first write until another replica has made the CA.
type late struct {
	store.Store
	first func()
}

func (l *late) Commit(ctx context.Context, txn store.Txn) (store.Version, error) {
	if first := l.first; first != nil {
		l.first = nil
		first()
	}
	return l.Store.Commit(ctx, txn)
}

// The loser of the race writes its manifest, sealed with a key that it then
// forgets. That must not be in the winner's way, now or after a restart.
func TestLoserOfTheBootstrapRaceLeavesTheWinnerWhole(t *testing.T) {
	g := newGroup(t, 2)
	loser, winner := g.replicas[0], g.replicas[1]
	loser.store = storetest.NewFaulty(&late{Store: g.store, first: func() {
		winner.launch()
		winner.ready()
	}})
	loser.launch()
	loser.ready()
	winner.ready()
	for _, r := range g.replicas {
		r.kill()
	}
	for _, r := range g.replicas {
		r.launch()
		r.ready()
		g.poke(r)
	}
	if n := count(winner.entries(), func(e *translog.Entry) bool { return e.Type == translog.TypeBundle }); n != 1 {
		t.Errorf("%d CAs were made", n)
	}
}

// Who makes a CA anew forgets everything of the old one, whose values nobody
// can open any more.
func TestReBootstrapForgetsEverything(t *testing.T) {
	g := newGroup(t, 1)
	a := g.replicas[0]
	a.launch()
	a.ready()
	g.poke(a)
	a.kill()
	before := map[string]bool{}
	scan := func(fn func(key string)) {
		if err := g.store.Scan(t.Context(), "", func(key string, _ store.Value) error { fn(key); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.store.Commit(t.Context(), store.Txn{Put: []store.Item{{Key: "cosigned", Data: []byte("sealed with the old key")}}}); err != nil {
		t.Fatal(err)
	}
	scan(func(key string) {
		if v, err := g.store.Get(t.Context(), key); err == nil {
			before[fmt.Sprint(key, v.Version)] = true
		}
	})
	a.edit = func(c *cds.Config) { c.ReBootstrap = true }
	a.launch()
	a.ready()
	scan(func(key string) {
		if v, err := g.store.Get(t.Context(), key); err == nil && before[fmt.Sprint(key, v.Version)] {
			t.Errorf("%s of the old CA is left", key)
		}
	})
	g.poke(a)
}
