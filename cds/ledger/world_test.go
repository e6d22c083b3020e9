// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/c8s-dev/c8s/cds/store"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
)

const origin = "c8s.test/c8s/log"

// world is a store that replicas share. The number of changes is in the head,
// as the version of a deny list, and every change logs an entry of its own.
type world struct {
	t      testing.TB
	store  *storetest.Memory
	signer note.Signer
	now    func() time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	signer, err := translog.NewSigner(origin, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: storetest.NewMemory(), signer: signer, now: time.Now}
	if _, err := Create(t.Context(), w.config(w.store), entry("first")); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) config(s store.Store) Config {
	return Config{Store: s, Origin: origin, Signer: w.signer, Now: w.now, Log: slog.New(slog.DiscardHandler)}
}

// evidence is what the entry of the change with this name is about.
func evidence(name string) policy.Digest { return policy.DigestOf([]byte(name)) }

// entry is a change: an entry, and one more in the head.
func entry(name string) func(*Draft) error {
	return func(d *Draft) error {
		d.Head.DenyList.Version++
		d.Head.DenyList.Digest = evidence(name)
		_, err := d.Append(translog.Entry{Type: translog.TypeJoin, Time: d.Now, Evidence: evidence(name)})
		return err
	}
}

// replica is one process with the store.
type replica struct {
	*Ledger
	faulty *storetest.Faulty
	stop   func()
}

// open starts a replica, through a store that can be made to fail.
func (w *world) open() *replica {
	w.t.Helper()
	faulty := storetest.NewFaulty(w.store)
	l, err := Open(w.t.Context(), w.config(faulty))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	r := &replica{Ledger: l, faulty: faulty, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			w.t.Errorf("Run: %v", err)
		}
	})}
	w.t.Cleanup(r.stop)
	return r
}

// crash ends the replica with no further effect on the store.
func (r *replica) crash() {
	r.faulty.Crash(1, storetest.Any, storetest.Before)
	r.stop()
}

func (r *replica) do(t testing.TB, name string) Receipt {
	t.Helper()
	receipt, err := r.Do(t.Context(), entry(name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return receipt
}

// logged reads the whole log as a newcomer does: how often each evidence is in
// it, and which record is where.
func (w *world) logged() (times map[policy.Digest]int, records [][]byte, view *View) {
	w.t.Helper()
	l, err := Open(w.t.Context(), w.config(w.store))
	if err != nil {
		w.t.Fatal(err)
	}
	view = l.View()
	times = map[policy.Digest]int{}
	for n := int64(0); n*256 < view.Head.Size; n++ {
		path := fmt.Sprintf("tile/entries/%03d", n)
		if rest := view.Head.Size - n*256; rest < 256 {
			path += fmt.Sprintf(".p/%d", rest)
		}
		raw, err := view.Tree.File(w.t.Context(), l.Storage(), path)
		if err != nil {
			w.t.Fatal(err)
		}
		bundle, err := translog.ParseBundle(raw)
		if err != nil {
			w.t.Fatal(err)
		}
		records = append(records, bundle...)
	}
	for _, raw := range records {
		e, err := translog.ParseEntry(raw)
		if err != nil {
			w.t.Fatal(err)
		}
		times[e.Evidence]++
	}
	return times, records, view
}

// proven checks a receipt as its holder does, and against a later view: the log
// only grew.
func (w *world) proven(r Receipt, l *Ledger, later *View) error {
	ctx, storage := w.t.Context(), files{w.store}
	verifier, err := translog.NewVerifier(translog.VerifierKey(origin, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)))
	if err != nil {
		return err
	}
	cp, err := translog.OpenCheckpoint(r.View.Checkpoint, origin, verifier)
	if err != nil {
		return err
	}
	proof, err := r.Proof(ctx, l)
	if err != nil {
		return err
	}
	if err := translog.VerifyInclusion(r.Entry, r.Index, *cp, proof); err != nil {
		return err
	}
	newer := translog.Checkpoint{Origin: origin, Size: later.Head.Size, Root: later.Head.Root}
	if proof, err = later.Tree.ProveTree(ctx, storage, cp.Size); err != nil {
		return err
	}
	if err := translog.VerifyConsistency(*cp, newer, proof); err != nil {
		return err
	}
	if proof, err = later.Tree.ProveRecord(ctx, storage, r.Index); err != nil {
		return err
	}
	return translog.VerifyInclusion(r.Entry, r.Index, newer, proof)
}

// onlyGrows follows a replica and reports a view that is not an extension of
// the one before.
func (w *world) onlyGrows(r *replica) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		prev, changed := r.Watch()
		for {
			select {
			case <-end:
				return
			case <-changed:
			}
			var now *View
			now, changed = r.Watch()
			if err := now.Head.follows(prev.Head); err != nil {
				w.t.Errorf("a view went back: %v", err)
			}
			if now.Head.Size > prev.Head.Size && bytes.Equal(now.Checkpoint, prev.Checkpoint) {
				w.t.Error("the log grew under the same checkpoint")
			}
			prev = now
		}
	}()
	return func() {
		close(end)
		<-done
	}
}
