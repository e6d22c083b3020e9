// SPDX-License-Identifier: Apache-2.0

// Package kube says where pods are, as the API server tells it, and keeps this
// invariant: what comes from there is routing information and nothing else. No
// workload is admitted, no identity given and no peer allowed because of it;
// package resolve bounds what a lie can do.
//
// What was last heard stays in force while the API server is away.
package kube

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

// settle is the least time between two tables. Building one may take no more
// than a tenth of the time either.
const settle = 100 * time.Millisecond

// Config is what a Watcher is given. All fields are required.
type Config struct {
	API      *rest.Config // from Connect
	NodeAddr netip.Addr   // of this node: others are reached in its address family
	Now      func() time.Time
	Log      *slog.Logger
}

// Watcher follows the API server.
type Watcher struct {
	cfg Config
	line

	nodes    store[resolve.Node]
	pods     store[resolve.Pod]
	services store[serviceInfo]
	slices   store[sliceInfo]
	filled   bool // the table has all that was heard at first
	cut      int  // endpoints that the fullest table had no room for
}

// New prepares a watcher. Nothing is asked until Fill.
func New(cfg Config) (*Watcher, error) {
	if cfg.API == nil || !cfg.NodeAddr.IsValid() || cfg.Now == nil || cfg.Log == nil {
		return nil, errors.New("preparing to follow Kubernetes: the configuration lacks a part")
	}
	w := &Watcher{cfg: cfg, line: newLine(cfg.Now, cfg.Log)}
	w.nodes = newStore(w, resolve.MaxNodes, func(resolve.Node) int { return 1 }, func(n *node) (resolve.Node, bool) { return nodeOf(n, cfg.NodeAddr.Is4()) })
	w.pods = newStore(w, resolve.MaxPods, func(resolve.Pod) int { return 1 }, podOf)
	w.services = newStore(w, 2*resolve.MaxServices, func(s serviceInfo) int { return 1 + len(s.ports)/8 }, serviceOf)
	w.slices = newStore(w, resolve.MaxEndpoints, func(s sliceInfo) int { return 1 + len(s.endpoints) + len(s.ports)/8 + s.hints }, sliceOf)
	return w, nil
}

func newStore[O, V any](w *Watcher, most int, weight func(V) int, convert func(*O) (V, bool)) store[V] {
	return store[V]{
		mu: &w.mu, changed: w.changed, weight: weight, most: most, items: map[string]V{}, trim: trim,
		convert: func(obj any) (v V, keep bool) {
			o, ok := obj.(*O)
			if !ok {
				return v, false
			}
			return convert(o)
		},
	}
}

// Contact reports whether all of the API server that is asked for is being
// followed now, and since when this is so; the time is zero while it never was.
// Before the table has what was heard first, nothing is being followed: whoever
// waits for contact may use the table.
func (w *Watcher) Contact() (connected bool, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.filled {
		return false, time.Time{}
	}
	return w.contact.connected, w.contact.since
}

// Fill keeps t up to date until ctx ends. A Watcher fills one table, once.
func (w *Watcher) Fill(ctx context.Context, t *resolve.Table) error {
	clients, err := newClients(w.cfg.API)
	if err != nil {
		return err
	}
	ctx = quiet(ctx, w.cfg.Log)
	g, ctx := errgroup.WithContext(ctx)
	follow := func(c rest.Interface, resource string, one any, many func() runtime.Object, s cache.ReflectorStore, most int) {
		w.follow(ctx, g, source{client: c, resource: resource, many: many, most: most}, one, s)
	}
	w.mu.Lock()
	follow(clients.core, "nodes", &node{}, func() runtime.Object { return &list[node]{} }, &w.nodes, w.nodes.most)
	follow(clients.core, "pods", &pod{}, func() runtime.Object { return &list[pod]{} }, &w.pods, w.pods.most)
	follow(clients.core, "services", &service{}, func() runtime.Object { return &list[service]{} }, &w.services, w.services.most)
	follow(clients.discovery, "endpointslices", &endpointSlice{}, func() runtime.Object { return &list[endpointSlice]{} }, &w.slices, w.slices.most)
	w.mu.Unlock()
	g.Go(func() error { return w.publish(ctx, t) })
	return g.Wait()
}

// publish makes a table whenever something changed, but not all the time.
func (w *Watcher) publish(ctx context.Context, t *resolve.Table) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ignored, crowded, first := 0, 0, true
	for {
		if err := await(ctx, w.dirty); err != nil {
			return err
		}
		if err := await(ctx, timer.C); err != nil {
			return err
		}
		began := w.cfg.Now()
		c, ok := w.cluster()
		if now := w.crowded(); now > crowded {
			crowded = now
			w.cfg.Log.Warn("the API server says more than a routing table holds; the rest is left out", "count", crowded)
		}
		if ok {
			r := t.SetCluster(c)
			w.mu.Lock()
			w.filled = true
			w.mu.Unlock()
			if first {
				w.cfg.Log.Info("the cluster's routes are in force", "nodes", r.Nodes, "pods", r.Pods, "services", r.Services, "endpoints", r.Endpoints)
			}
			if r.Ignored > ignored {
				w.cfg.Log.Warn("the API server says things that cannot be; they are ignored", "count", r.Ignored, "examples", r.Examples)
			}
			ignored, first = r.Ignored, false
		}
		timer.Reset(max(settle, 9*w.cfg.Now().Sub(began)))
	}
}

func await[T any](ctx context.Context, c <-chan T) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cluster is everything known at this moment, once there is a whole.
func (w *Watcher) cluster() (c resolve.Cluster, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.nodes.synced || !w.pods.synced || !w.services.synced || !w.slices.synced {
		return c, false
	}
	behind := make(map[string][]sliceInfo, len(w.services.items))
	for _, s := range w.slices.items {
		behind[s.service] = append(behind[s.service], s)
	}
	c.Nodes, c.Pods = w.nodes.values(), w.pods.values()
	c.Services = make([]resolve.Service, 0, len(w.services.items))
	room, cut := resolve.MaxEndpoints, 0
	for _, s := range w.services.items {
		joined, left := join(s, behind[s.service.Name], room)
		for _, p := range joined.Ports {
			room -= len(p.Endpoints)
		}
		c.Services, cut = append(c.Services, joined), cut+left
	}
	w.cut = max(w.cut, cut)
	return c, true
}

// crowded is how much of what the API server said found no place, ever.
func (w *Watcher) crowded() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes.crowded + w.pods.crowded + w.services.crowded + w.slices.crowded + w.cut
}
