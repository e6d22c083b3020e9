// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/cds"
	"github.com/c8s-dev/c8s/cds/ca"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/cdscmd"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/envflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/teeflag"
)

// cdsFlags are the flags of `c8s cds`.
type cdsFlags struct {
	log         logFlags
	tee         teeflag.Flags
	trust       trustFlags
	store       storeFlags
	listen      string
	metrics     string
	name        string
	join        []string
	reBootstrap bool
	life        time.Duration
	limits      cds.Limits
}

// minCertificateLife leaves time to renew before a certificate expires.
const minCertificateLife = 10 * time.Second

func newCDS() *cobra.Command {
	var f cdsFlags
	c := &cobra.Command{
		Use:   "cds",
		Short: "Turn hardware evidence into short-lived certificates",
		Long: `Run a replica of the certificate distribution service.

It proves itself by evidence in its own TLS certificate, appraises the
evidence of machines under the operator-signed manifest, and issues
certificates of at most an hour, each of which is in an append-only log before
it is handed out. A new manifest is published with 'c8s manifest publish', or
by replacing the manifest file; it must be signed by the operators, follow the
one in force and never go back. Nodes get it at once.

What it must not forget is in a store that need not be trusted: one file, or
etcd for several replicas. Its secret comes, in this order, from another
replica (--join), from the store if it was sealed there by this very program
on this machine, or from the operators' recovery shares ('c8s cds recovery').
Only with an empty store is a new secret made.

Its operators look at it from outside with 'c8s cds verify'.

` + envflag.Note("listen") + `

Exit codes: 0 told to end, 1 failed, 2 wrong usage, which a store file that
another CDS has is too.`,
		Example: `  # one replica
  c8s cds --listen 10.80.0.100:15009 --operators operators.json --manifest manifest.signed.json

  # one of three
  c8s cds --name cds-1 --listen 10.80.0.101:15009 --operators operators.json --manifest manifest.signed.json \
    --etcd http://10.80.0.11:2379,http://10.80.0.12:2379,http://10.80.0.13:2379 \
    --join 10.80.0.102:15009,10.80.0.103:15009`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := envflag.Apply(c, os.Environ()); err != nil {
				return err
			}
			return f.run(c.Context())
		},
	}
	c.AddCommand(cdscmd.Commands()...)
	f.log.register(c)
	f.tee.Register(c)
	f.trust.register(c)
	f.store.register(c)
	hostname, _ := os.Hostname()
	fl := c.Flags()
	fl.StringVar(&f.listen, "listen", ":15009", "address to serve on")
	registerMetrics(c, &f.metrics, "127.0.0.1:15021")
	fl.StringVar(&f.name, "name", hostname, "name of this replica in logs and issuing certificates")
	fl.StringSliceVar(&f.join, "join", nil, "address and port of other replicas to get the secret from (repeatable)")
	fl.BoolVar(&f.reBootstrap, "re-bootstrap", false, "forget what the store holds and make a new CA: only when the secret is lost for good")
	fl.DurationVar(&f.life, "certificate-life", ca.MaxLife, fmt.Sprintf("how long certificates are valid, %s to %s", minCertificateLife, ca.MaxLife))
	fl.IntVar(&f.limits.Connections, "max-connections", 4096, "connections at once")
	fl.Float64Var(&f.limits.CallsPerSecond, "calls-per-second", 500, "calls of one remote host, steadily; four times as many in a burst")
	fl.IntVar(&f.limits.LivePerMachine, "max-certificates", 64, "certificates of one machine, for itself, that may be valid at once")
	return c
}

func (f *cdsFlags) run(ctx context.Context) error {
	if f.life < minCertificateLife || f.life > ca.MaxLife {
		return exit.Usage(fmt.Errorf("--certificate-life is %s, must be between %s and %s", f.life, minCertificateLife, ca.MaxLife))
	}
	f.limits.CallBurst = 4 * f.limits.CallsPerSecond
	log := f.log.logger().With("service", "cds", "replica", f.name)
	trust, err := f.trust.load()
	if err != nil {
		return err
	}
	attester, _, err := f.tee.Attester(ctx, trust.operators, log)
	if err != nil {
		return err
	}
	kept, err := f.store.open(log)
	if err != nil {
		return err
	}
	defer kept.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server, err := cds.New(cds.Config{
		Attester: attester, Manifest: trust.manifest, Operators: trust.operators, Store: kept, Registry: registry,
		Name: f.name, Join: f.join, ReBootstrap: f.reBootstrap, CertificateLife: f.life, Limits: f.limits,
		Wall: time.Now, Log: log,
	})
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listening for the CDS: %w", err)
	}
	log.Info("CDS starting", "listen", ln.Addr().String(), "manifest", trust.manifest.Manifest.Version)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Serve(ctx, ln) })
	publish := func(envelope []byte) (again bool) { // what is refused is in the log
		return cds.Unavailable(server.Publish(ctx, envelope))
	}
	g.Go(func() error { return watchManifestFile(ctx, f.trust.manifestPath, publish, log) })
	if f.metrics != "" {
		g.Go(func() error { return serveMetrics(ctx, f.metrics, registry, server.Ready) })
	}
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// publishAgain is when a manifest is offered again to a CDS that is not ready.
const publishAgain = 2 * time.Second

// watchManifestFile publishes the file whenever it is replaced, and again while
// the CDS cannot take it. What is refused changes nothing: the manifest in force
// stays.
func watchManifestFile(ctx context.Context, path string, publish func([]byte) (again bool), log *slog.Logger) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the manifest file: %w", err)
	}
	defer w.Close()
	if err := w.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("watching the manifest file: %w", err)
	}
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-w.Errors:
			log.Warn("manifest file watcher", "err", err)
			continue
		case e := <-w.Events:
			if filepath.Base(e.Name) != filepath.Base(path) || !e.Has(fsnotify.Create|fsnotify.Write) {
				continue
			}
		case <-again:
		}
		again = nil
		envelope, err := os.ReadFile(path)
		if err != nil {
			log.Error("reading the manifest file", "err", err)
			continue
		}
		if publish(envelope) {
			again = time.After(publishAgain)
		}
	}
}
