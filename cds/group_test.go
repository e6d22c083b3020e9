// SPDX-License-Identifier: Apache-2.0

package cds_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/attest/sim"
	"github.com/c8s-dev/c8s/attest/sim/simtest"
	"github.com/c8s-dev/c8s/attest/tsm"
	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/cds/store/storetest"
	"github.com/c8s-dev/c8s/cds/translog"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
	"github.com/c8s-dev/c8s/test/freeport"
)

var errNotYet = errors.New("not yet")

// patience ends a test that waits for what does not come.
const patience = 30 * time.Second

// group is several replicas of one CDS, on machines of their own, over one
// store.
type group struct {
	t        testing.TB
	f        *policytest.Fixture
	store    *storetest.Memory
	replicas []*replica
	tees     map[string]attest.Attester // made once: it takes a while
	now      func() time.Time           // of clients; the first replica's where nil
}

// replica is one of them. What it sees of the store can be made to fail.
type replica struct {
	g     *group
	name  string
	addr  string
	store *storetest.Faulty
	clock *clock
	log   *lockedBuffer
	edit  func(*cds.Config)
	tune  func(*cds.Server)
	srv   *cds.Server
	reg   *prometheus.Registry
	stop  func() error
}

// newGroup makes n replicas and starts none. The edits change the manifest.
func newGroup(t testing.TB, n int, edits ...func(*policy.Manifest)) *group {
	g := &group{t: t, store: storetest.NewMemory(), tees: map[string]attest.Attester{}}
	opts := []policytest.Option{policytest.With(func(m *policy.Manifest) {
		names := []string{"node"}
		for i := range n {
			names = append(names, replicaName(i))
		}
		var tees []*sim.TEE
		for _, name := range names {
			tee := simtest.New(t, name, measuredFor(m.Operators))
			tees, g.tees[name] = append(tees, tee), tsm.New(tee)
		}
		simtest.Accept(tees...)(m)
	})}
	for _, edit := range edits {
		opts = append(opts, policytest.With(edit))
	}
	g.f = policytest.New(t, opts...)
	for i := range n {
		g.replicas = append(g.replicas, &replica{g: g, name: replicaName(i), addr: freeAddr(t), clock: &clock{born: time.Now()}, log: &lockedBuffer{}})
	}
	return g
}

func replicaName(i int) string { return fmt.Sprintf("cds-%d", i) }

func freeAddr(t testing.TB) string {
	p, err := freeport.Find()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", p)
}

func (g *group) addrs() (all []string) {
	for _, r := range g.replicas {
		all = append(all, r.addr)
	}
	return all
}

// startAll starts the replicas one after the other: the first makes the CA.
func (g *group) startAll() *group {
	g.t.Helper()
	for _, r := range g.replicas {
		r.launch()
		r.ready()
	}
	return g
}

// client talks to the replicas given, or to all.
func (g *group) client(edit func(*client.Config), replicas ...*replica) *client.Client {
	g.t.Helper()
	cfg := client.Config{Addrs: g.addrs(), Operators: g.f.Operators, Manifest: g.f.Signed, Now: g.replicas[0].clock.now, Log: slog.New(slog.DiscardHandler)}
	if g.now != nil {
		cfg.Now = g.now
	}
	if len(replicas) > 0 {
		cfg.Addrs = nil
		for _, r := range replicas {
			cfg.Addrs = append(cfg.Addrs, r.addr)
		}
	}
	if edit != nil {
		edit(&cfg)
	}
	c, err := client.New(cfg)
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}

// machine is one that the manifest accepts, unless it is edited.
func (g *group) machine(name string, edits ...func(*sim.Options)) attest.Attester {
	if att := g.tees[name]; att != nil && len(edits) == 0 {
		return att
	}
	return simtest.Attester(g.t, name, append([]func(*sim.Options){measuredFor(g.f.Operators)}, edits...)...)
}

// launch starts the replica without waiting for it. Its store fails nothing
// until told to.
func (r *replica) launch() {
	r.g.t.Helper()
	if r.store == nil {
		r.store = storetest.NewFaulty(r.g.store)
	}
	r.reg = prometheus.NewRegistry()
	cfg := cds.Config{
		Attester: r.g.machine(r.name), Manifest: r.g.f.Signed, Operators: r.g.f.Operators, Store: r.store, Name: r.name, Registry: r.reg,
		Wall: r.clock.now, Mono: r.clock.mono, Log: slog.New(slog.NewJSONHandler(r.log, nil)),
	}
	for _, other := range r.g.replicas {
		if other != r {
			cfg.Join = append(cfg.Join, other.addr)
		}
	}
	if r.edit != nil {
		r.edit(&cfg)
	}
	var err error
	if r.srv, err = cds.New(cfg); err != nil {
		r.g.t.Fatal(err)
	}
	if r.tune != nil {
		r.tune(r.srv)
	}
	ln, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.g.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, srv := make(chan error, 1), r.srv
	go func() { done <- srv.Serve(ctx, ln) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	stop := r.stop
	r.g.t.Cleanup(func() { _ = stop() })
}

// ready waits until the replica can issue.
func (r *replica) ready() {
	r.g.t.Helper()
	await(r.g.t, r.name+" to be ready", func() error { return r.srv.Ready() }, r.log)
}

// kill ends the replica as if its machine were gone: its store does nothing
// more, whatever it still tries.
func (r *replica) kill() {
	r.store.Crash(1, storetest.Any, storetest.Before)
	_ = r.stop()
	r.store = nil
}

// await waits until try does not fail.
func await(t testing.TB, what string, try func() error, log fmt.Stringer) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s: %v\n%s", what, err, log)
		}
		time.Sleep(time.Millisecond)
	}
}

// inForce waits until the replica judges by the manifest.
func (r *replica) inForce(want policy.Digest) {
	r.g.t.Helper()
	await(r.g.t, fmt.Sprintf("%s to have manifest %s", r.name, want), func() error {
		if got := r.srv.Manifest(); got.Digest != want {
			return fmt.Errorf("version %d is in force", got.Manifest.Version)
		}
		return nil
	}, r.log)
}

// metric reads a gauge or counter without labels.
func (r *replica) metric(name string) float64 {
	r.g.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.g.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	r.g.t.Fatalf("there is no metric %s", name)
	return 0
}

// document reads what anybody may read, of this replica.
func (r *replica) document(path string) []byte {
	r.g.t.Helper()
	d, err := r.g.client(nil, r).Documents(r.g.t.Context())
	if err != nil {
		r.g.t.Fatal(err)
	}
	defer d.Close()
	raw, err := d.Get(r.g.t.Context(), path)
	if err != nil {
		r.g.t.Fatal(err)
	}
	return raw
}

// entries reads the whole log as this replica serves it.
func (r *replica) entries() (all []*translog.Entry) {
	r.g.t.Helper()
	d, err := r.g.client(nil, r).Documents(r.g.t.Context())
	if err != nil {
		r.g.t.Fatal(err)
	}
	defer d.Close()
	get := func(path string) []byte {
		raw, err := d.Get(r.g.t.Context(), path)
		if err != nil {
			r.g.t.Fatalf("%s: %v", path, err)
		}
		return raw
	}
	var size int
	if _, err := fmt.Sscanf(strings.Split(string(get("/log/checkpoint")), "\n")[1], "%d", &size); err != nil {
		r.g.t.Fatal(err)
	}
	for n := 0; n*256 < size; n++ {
		path := fmt.Sprintf("/log/tile/entries/%03d", n)
		if rest := size - n*256; rest < 256 {
			path += fmt.Sprintf(".p/%d", rest)
		}
		records, err := translog.ParseBundle(get(path))
		if err != nil {
			r.g.t.Fatal(err)
		}
		for _, record := range records {
			e, err := translog.ParseEntry(record)
			if err != nil {
				r.g.t.Fatal(err)
			}
			all = append(all, e)
		}
	}
	return all
}

// poke has every replica look at the shared state again: something was logged.
func (g *group) poke(r *replica) {
	g.t.Helper()
	if _, err := g.client(nil, r).EnrolNode(g.t.Context(), g.machine("node")); err != nil {
		g.t.Fatal(err)
	}
}

func contains(log fmt.Stringer, text string) bool { return strings.Contains(log.String(), text) }
