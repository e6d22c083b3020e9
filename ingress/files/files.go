// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/resolve"
)

// Places are the files that say where pods are.
type Places struct {
	Routes   string // {pod prefix: node address}; empty: none
	Services string // of ParseServices; empty: none, and the table's Services come from elsewhere
	Table    *resolve.Table
	Log      *slog.Logger
}

// Load takes the files into force, or neither.
func (p *Places) Load() error {
	var routes []resolve.Route
	if p.Routes != "" {
		raw, err := read(p.Routes, MaxServices)
		if err == nil {
			routes, err = agent.ParseRoutes(raw)
		}
		if err != nil {
			return fmt.Errorf("reading where pods are from %s: %w", p.Routes, err)
		}
	}
	if p.Services == "" {
		p.Table.SetStatic(routes)
		return nil
	}
	raw, err := read(p.Services, MaxServices)
	if err != nil {
		return fmt.Errorf("reading the Services: %w", err)
	}
	services, err := ParseServices(raw)
	if err != nil {
		return fmt.Errorf("reading the Services from %s: %w", p.Services, err)
	}
	p.Table.SetStatic(routes)
	if report := p.Table.SetCluster(clusterOf(routes, services)); report.Ignored > 0 {
		p.Log.Warn("some of what the files say makes no sense", "ignored", report.Ignored, "examples", report.Examples)
	}
	return nil
}

// Run loads the files again whenever one changes, until ctx ends.
func (p *Places) Run(ctx context.Context) error {
	var paths []string
	for _, path := range []string{p.Routes, p.Services} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return Watch(ctx, p.Log, func() error {
		err := p.Load()
		if err == nil {
			r := p.Table.Report()
			p.Log.Info("places of pods in force", "prefixes", p.Table.Static(), "services", r.Services, "endpoints", r.Endpoints)
		}
		return err
	}, paths...)
}

// Watch calls load once, and again whenever one of the files changes, until ctx
// ends. What load refuses is logged. Files are followed by their folders: they
// may be replaced, also as Kubernetes replaces those of a ConfigMap.
func Watch(ctx context.Context, log *slog.Logger, load func() error, paths ...string) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %v: %w", paths, err)
	}
	defer w.Close()
	for _, path := range paths {
		if err := w.Add(filepath.Dir(path)); err != nil {
			return fmt.Errorf("watching %s: %w", path, err)
		}
	}
	for {
		// Before the first event too: the file may have changed since it was read.
		if err := load(); err != nil {
			log.Error("a changed file is not in force: what it said before still holds", "err", err)
		}
		if !changed(ctx, w, log, paths) {
			return ctx.Err()
		}
	}
}

// configMapLink is what the kubelet replaces when a ConfigMap changes.
const configMapLink = "..data"

// changed waits for a change of a file; false at the end of ctx.
func changed(ctx context.Context, w *fsnotify.Watcher, log *slog.Logger, paths []string) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case err := <-w.Errors:
			log.Warn("watching files", "err", err)
			return true // events may be lost
		case e := <-w.Events:
			for _, path := range paths {
				if name := filepath.Base(e.Name); name == filepath.Base(path) || name == configMapLink {
					return true
				}
			}
		}
	}
}

// read returns a file that is not larger than most.
func read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(raw)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return raw, err
}
