// SPDX-License-Identifier: Apache-2.0

// Package kuberoute makes routes of what the API server says, Ingress and
// Gateway API, and keeps this invariant: what comes from there can only choose
// among what the signed manifest allows. A host that the manifest does not have
// gets into no table; which workload answers for a host is judged by the
// certificate of the pod that does, each time, whatever an object says. Objects
// bring no keys: the TLS key is born in the TEE, and Secrets are not read.
//
// Build is pure; a Watcher feeds it, hands on the tables, and writes what is
// wrong where the objects' owners look for it. What was last heard stays in
// force while the API server is away.
package kuberoute

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/kube"
	"github.com/c8s-dev/c8s/policy"
)

const (
	settle    = 100 * time.Millisecond // the least time between two tables; building one may take no more than a tenth of the time either
	lookAgain = 2 * time.Second        // for Services and the manifest, which say nothing when they change
)

// Config is what a Watcher is given. API, Services, Manifest, Set, Now and Log
// are required.
type Config struct {
	API          *rest.Config // from kube.Connect
	Name         string       // of this ingress, in events; the pod's
	IngressClass string       // the only class that is served; empty: all of the controller
	GatewayClass string       // the same for Gateways
	HTTPS, HTTP  uint16       // ports for clients; HTTP 0: none
	Addresses    []string     // where clients go: addresses and names, for the objects' statuses
	Services     Services
	Ready        func() bool // whether Services knows them all; before, nothing is said about routes. nil: always
	Manifest     func() *policy.Manifest
	Set          func(*route.Table) // takes each new table
	ReadOnly     bool               // write nothing to the API server
	Now          func() time.Time
	Log          *slog.Logger
}

// Services is what is known of Services: *resolve.Table.
type Services interface {
	Service(namespace, name string) (resolve.ServiceView, bool)
}

// Watcher follows the objects.
type Watcher struct {
	cfg      Config
	follower *kube.Follower
	writer   *writer
	tried    *tried

	mu    sync.Mutex
	state State
}

// State is how things stand.
type State struct {
	Routes   int       // in the table
	Problems int       // objects of which something cannot be used
	Crowded  int       // objects that found no place, ever
	Since    time.Time // when the table was made; zero: there is none yet
}

// New prepares a Watcher. Nothing is asked until Run.
func New(cfg Config) (*Watcher, error) {
	if cfg.API == nil || cfg.Services == nil || cfg.Manifest == nil || cfg.Set == nil || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing to follow routes in Kubernetes: the configuration lacks a part")
	}
	if cfg.Ready == nil {
		cfg.Ready = func() bool { return true }
	}
	f, err := kube.NewFollower(kube.FollowerConfig{API: cfg.API, Kinds: kinds(), Now: cfg.Now, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	w := &Watcher{cfg: cfg, follower: f, tried: newTried(cfg.Now)}
	if !cfg.ReadOnly {
		if w.writer, err = newWriter(&cfg); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// State reports how things stand.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Run follows until ctx ends. Once.
func (w *Watcher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.follower.Run(ctx) })
	g.Go(func() error { return w.publish(ctx) })
	if w.writer != nil {
		g.Go(func() error { return w.writer.run(ctx) })
	}
	return g.Wait()
}

// facts is what a table rested on besides the objects, and its signature.
type facts struct {
	manifest *policy.Manifest
	tried    int
	services map[string]serviceFact
	table    [32]byte
}

type serviceFact struct {
	known bool
	alias string
	ports []resolve.PortView
}

// publish makes a table whenever something changed, but not all the time.
func (w *Watcher) publish(ctx context.Context) error {
	again, pause := time.NewTicker(lookAgain), time.NewTimer(0)
	defer again.Stop()
	defer pause.Stop()
	var last *facts
	changed := false
	for {
		select {
		case <-w.follower.Changed():
			changed = true
		case <-w.tried.news:
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		began := w.cfg.Now()
		if all, ok := w.follower.Objects(); ok && w.cfg.Ready() && (changed || last == nil || w.moved(last)) {
			last, changed = w.make(all, last), false
		}
		pause.Reset(max(settle, 9*w.cfg.Now().Sub(began)))
	}
}

// make builds a table, hands it on if it is another one, and has statuses
// written.
func (w *Watcher) make(all [][]any, had *facts) *facts {
	rests := &facts{services: map[string]serviceFact{}}
	world := World{
		Controller: Controller, IngressClass: w.cfg.IngressClass, GatewayClass: w.cfg.GatewayClass, HTTPS: w.cfg.HTTPS, HTTP: w.cfg.HTTP,
		Addresses: w.cfg.Addresses, Manifest: w.cfg.Manifest(),
		Service: func(namespace, name string) (resolve.ServiceView, bool) {
			v, ok := w.cfg.Services.Service(namespace, name)
			rests.services[namespace+"/"+name] = factOf(v, ok)
			return v, ok
		},
	}
	world.Refused, world.Cleared, rests.tried = w.tried.refused()
	rests.manifest = world.Manifest
	r := Build(objectsOf(all), world)
	if w.writer != nil {
		w.writer.offer(r.Updates(&world, w.cfg.Now()))
	}
	state := State{Routes: len(r.Routes.Routes), Problems: r.Problems, Crowded: w.follower.Crowded(), Since: w.cfg.Now()}
	if rests.table = signature(&r.Routes); had == nil || had.table != rests.table {
		t, err := route.New(r.Routes)
		if err != nil { // though each route was checked by itself
			w.cfg.Log.Error("the routes from Kubernetes make no table; the last one stays", "err", err)
			return rests
		}
		w.cfg.Set(t)
		w.cfg.Log.Info("routes from Kubernetes are in force", "routes", state.Routes, "hosts", len(t.Hosts()), "objects_with_problems", state.Problems)
	}
	w.mu.Lock()
	w.state = state
	w.mu.Unlock()
	return rests
}

func factOf(v resolve.ServiceView, ok bool) serviceFact {
	return serviceFact{ok, v.External, v.Ports}
}

// moved reports whether a table would rest on something else now.
func (w *Watcher) moved(last *facts) bool {
	if last.manifest != w.cfg.Manifest() || last.tried != w.tried.changed() {
		return true
	}
	for name, had := range last.services {
		namespace, short, _ := strings.Cut(name, "/")
		now := factOf(w.cfg.Services.Service(namespace, short))
		if now.known != had.known || now.alias != had.alias || !slices.Equal(now.ports, had.ports) {
			return true
		}
	}
	return false
}

// signature tells tables apart.
func signature(c *route.Config) [32]byte {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for i := range c.Routes {
		r := &c.Routes[i]
		_ = enc.Encode(r) // plain values
		fmt.Fprintln(h, r.Since.UnixNano())
		for j := range r.Rules {
			for k := range r.Rules[j].Backends {
				fmt.Fprintf(h, "%q\n", r.Rules[j].Backends[k].Refuse)
			}
		}
	}
	return [32]byte(h.Sum(nil))
}
