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
	"slices"

	"github.com/fsnotify/fsnotify"
)

// Routes says which node carries a pod address. It is routing information
// only: a wrong route leads to a peer whose certificate does not name the
// destination, and the connection is refused there.
type Routes struct{ prefixes []route }

type route struct {
	prefix netip.Prefix
	node   netip.Addr
}

// ParseRoutes reads {"<prefix>": "<node address>", …}.
func ParseRoutes(raw []byte) (*Routes, error) {
	var table map[netip.Prefix]netip.Addr
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&table); err != nil {
		return nil, fmt.Errorf("parsing routes (want {\"10.81.1.0/24\": \"10.80.0.1\", …}): %w", err)
	}
	r := &Routes{}
	for prefix, node := range table {
		if prefix != prefix.Masked() {
			return nil, fmt.Errorf("parsing routes: %s has host bits set, did you mean %s?", prefix, prefix.Masked())
		}
		if !node.IsValid() || node.IsUnspecified() || node.IsMulticast() {
			return nil, fmt.Errorf("parsing routes: %s has no usable node address (%s)", prefix, node)
		}
		r.prefixes = append(r.prefixes, route{prefix, node})
	}
	slices.SortFunc(r.prefixes, func(a, b route) int { return b.prefix.Bits() - a.prefix.Bits() })
	return r, nil
}

// LoadRoutes reads the routes file at path.
func LoadRoutes(path string) (*Routes, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading routes: %w", err)
	}
	return ParseRoutes(raw)
}

// Lookup returns the node behind addr, by longest prefix.
func (r *Routes) Lookup(addr netip.Addr) (netip.Addr, bool) {
	for _, e := range r.prefixes {
		if e.prefix.Contains(addr) {
			return e.node, true
		}
	}
	return netip.Addr{}, false
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
	routes, err := LoadRoutes(a.cfg.RoutesFile)
	if err != nil {
		a.cfg.Log.Error("routes unchanged", "err", err)
		return
	}
	a.mesh.routes.Store(routes)
	a.cfg.Log.Info("routes in force", "prefixes", len(routes.prefixes))
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
