// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

// Cluster says where pods are and which of them are behind a Service. It is
// believed as little as a routes file.
type Cluster interface {
	// Fill keeps the table up to date until ctx ends. What it last said stays in
	// force while it has nothing to say.
	Fill(ctx context.Context, t *resolve.Table) error
	// Contact reports whether the table follows the cluster now, and since when
	// this is so; the time is zero while it never did.
	Contact() (connected bool, since time.Time)
}

func (a *Agent) routesStatus() RoutesStatus {
	r := a.mesh.table.Report()
	s := RoutesStatus{Static: a.mesh.table.Static(), Nodes: r.Nodes, Pods: r.Pods, Services: r.Services, Endpoints: r.Endpoints, Ignored: r.Ignored}
	if a.cfg.Cluster != nil {
		c := &ClusterStatus{}
		c.Connected, c.Since = a.cfg.Cluster.Contact()
		s.Cluster = c
	}
	return s
}

// ParseRoutes reads {"<prefix>": "<node address>", …}. They are routing
// information only: a wrong route leads to a peer whose certificate does not
// name the destination, and the connection is refused there.
func ParseRoutes(raw []byte) ([]resolve.Route, error) {
	var table map[netip.Prefix]netip.Addr
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&table); err != nil {
		return nil, fmt.Errorf("parsing routes (want {\"10.81.1.0/24\": \"10.80.0.1\", …}): %w", err)
	}
	var routes []resolve.Route
	for prefix, node := range table {
		if prefix != prefix.Masked() {
			return nil, fmt.Errorf("parsing routes: %s has host bits set, did you mean %s?", prefix, prefix.Masked())
		}
		if !node.IsValid() || node.IsUnspecified() || node.IsMulticast() {
			return nil, fmt.Errorf("parsing routes: %s has no usable node address (%s)", prefix, node)
		}
		routes = append(routes, resolve.Route{Prefix: prefix, Node: node})
	}
	return routes, nil
}

// loadRoutes takes the routes file into force.
func (a *Agent) loadRoutes() error {
	raw, err := os.ReadFile(a.cfg.RoutesFile)
	if err != nil {
		return fmt.Errorf("reading routes: %w", err)
	}
	routes, err := ParseRoutes(raw)
	if err != nil {
		return err
	}
	a.mesh.table.SetStatic(routes)
	return nil
}

// watchRoutes re-reads the routes file whenever its folder changes. A file
// that cannot be understood changes nothing: the last good routes stay.
func (a *Agent) watchRoutes(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the routes file: %w", err)
	}
	defer w.Close()
	if err := w.Add(filepath.Dir(a.cfg.RoutesFile)); err != nil {
		return fmt.Errorf("watching the routes file: %w", err)
	}
	for {
		// Once before the first event: the file may have changed since New.
		a.reloadRoutes()
		if !a.routesChanged(ctx, w) {
			return ctx.Err()
		}
	}
}

func (a *Agent) reloadRoutes() {
	if err := a.loadRoutes(); err != nil {
		a.cfg.Log.Error("routes unchanged", "err", err)
		return
	}
	a.cfg.Log.Info("routes in force", "prefixes", a.mesh.table.Static())
}

// routesChanged waits for a change of the routes file; false at the end of ctx.
func (a *Agent) routesChanged(ctx context.Context, w *fsnotify.Watcher) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case err := <-w.Errors:
			a.cfg.Log.Warn("routes file watcher", "err", err)
			return true // events may be lost
		case e := <-w.Events:
			if filepath.Base(e.Name) == filepath.Base(a.cfg.RoutesFile) {
				return true
			}
		}
	}
}
