// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/teeflag"
	"github.com/c8s-dev/c8s/policy"
)

// cdsFlags are the flags of `c8s cds`.
type cdsFlags struct {
	log      logFlags
	tee      teeflag.Flags
	trust    trustFlags
	listen   string
	stateDir string
	metrics  string
	life     time.Duration
}

// minCertificateLife leaves time to renew before a certificate expires.
const minCertificateLife = 10 * time.Second

func newCDS() *cobra.Command {
	var f cdsFlags
	c := &cobra.Command{
		Use:   "cds",
		Short: "Turn hardware evidence into short-lived certificates",
		Long: `Run the certificate distribution service.

It proves itself by evidence in its own TLS certificate, appraises the
evidence of nodes under the operator-signed manifest, and issues certificates
of at most an hour. A new manifest is published by replacing the manifest
file; it must be signed by the operators, follow the one in force and never go
back. Nodes get it at once.

The mesh CA's key lives in memory: after a restart nodes enrol again.`,
		Example: "  c8s cds --listen 10.80.0.100:15009 --operators operators.json --manifest manifest.dsse.json",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return f.run(c.Context()) },
	}
	f.log.register(c)
	f.tee.Register(c)
	f.trust.register(c)
	c.Flags().StringVar(&f.listen, "listen", ":15009", "address to serve on")
	c.Flags().StringVar(&f.stateDir, "state-dir", "/var/lib/c8s-cds", "folder for the manifest in force")
	c.Flags().StringVar(&f.metrics, "metrics-address", "127.0.0.1:15021", "listen address of /metrics, /healthz and /readyz; empty for none")
	c.Flags().DurationVar(&f.life, "certificate-life", ca.MaxLife, fmt.Sprintf("how long certificates are valid, %s to %s", minCertificateLife, ca.MaxLife))
	return c
}

func (f *cdsFlags) run(ctx context.Context) error {
	if f.life < minCertificateLife || f.life > ca.MaxLife {
		return exit.Usage(fmt.Errorf("--certificate-life is %s, must be between %s and %s", f.life, minCertificateLife, ca.MaxLife))
	}
	log := f.log.logger().With("service", "cds")
	trust, err := f.trust.load()
	if err != nil {
		return err
	}
	manifest, err := policy.Open(trust.envelope, trust.operators)
	if err != nil {
		return err
	}
	attester, _, err := f.tee.Attester(ctx, trust.operators, log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server, err := cds.New(cds.Config{
		Attester: attester, Manifest: manifest, Operators: trust.operators, StateDir: f.stateDir,
		Registry: registry, CertificateLife: f.life, Now: time.Now, Log: log,
	})
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listening for the CDS: %w", err)
	}
	log.Info("CDS starting", "listen", ln.Addr().String(), "manifest", server.Manifest().Manifest.Version)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Serve(ctx, ln) })
	g.Go(func() error { return watchManifestFile(ctx, f.trust.manifestPath, server.Publish, log) })
	if f.metrics != "" {
		g.Go(func() error { return serveMetrics(ctx, f.metrics, registry) })
	}
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// watchManifestFile publishes the file whenever it is replaced.
func watchManifestFile(ctx context.Context, path string, publish func([]byte) error, log *slog.Logger) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the manifest file: %w", err)
	}
	defer w.Close()
	if err := w.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("watching the manifest file: %w", err)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-w.Errors:
			log.Warn("manifest file watcher", "err", err)
		case e := <-w.Events:
			if filepath.Base(e.Name) != filepath.Base(path) || !e.Has(fsnotify.Create|fsnotify.Write) {
				continue
			}
			envelope, err := os.ReadFile(path)
			if err != nil {
				log.Error("reading the manifest file", "err", err)
				continue
			}
			// Publish logs what it refuses; the manifest in force stays.
			_ = publish(envelope)
		}
	}
}

func serveMetrics(ctx context.Context, addr string, registry *prometheus.Registry) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listening for metrics: %w", err)
	}
	ok := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", ok)
	mux.HandleFunc("GET /readyz", ok) // the service listens only once it can issue
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}
