// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/envflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/version"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/ingress"
	"github.com/c8s-dev/c8s/ingress/attester"
	"github.com/c8s-dev/c8s/ingress/daemon"
	"github.com/c8s-dev/c8s/ingress/files"
	"github.com/c8s-dev/c8s/internal/filelock"
	"github.com/c8s-dev/c8s/internal/memlimit"
)

// ingressFlags are the flags of `c8s ingress`.
type ingressFlags struct {
	machineFlags
	name     string
	services string
	routes   ingressRoutesFlags
	listen   ingressListenFlags
	certs    ingressCertsFlags
	proofs   time.Duration
	tls13    bool
	access   bool
}

func newIngress() *cobra.Command {
	var f ingressFlags
	c := &cobra.Command{
		Use:   "ingress",
		Short: "Take requests from outside to attested pods, and prove it to clients",
		Long: `Run an ingress.

It terminates TLS with a key that is made in its TEE, and forwards requests
over attested TLS to pods that the signed manifest lists for the request's
host, and to no others, wherever the routes lead. Under /.well-known/c8s it
shows a proof that clients check before they send anything ('c8s verify',
'c8s curl', 'c8s proxy'), and a page for people. Plain clients and browsers
get what the web gives them.

Routes come from Ingress and Gateway API objects, or from a file
(--ingress-routes). Certificates come from an ACME CA, from an internal CA
that signs a request in a file, or are self-signed for development. Names are
the hosts that both the routes and the manifest have. TLS key, ACME account
and certificates are kept in the state folder, sealed to the TEE.

Told to end by SIGTERM, it takes no new connections and lets requests end in
their own time, up to --drain; a second signal ends it at once.

` + envflag.Note("address") + `

Exit codes: 0 told to end, 1 failed, 2 wrong usage, which a --state-dir that
another ingress has is too.`,
		Example: `  # in Kubernetes
  c8s ingress --address 10.80.0.1 --cds 10.80.0.100:15009 --operators operators.json \
    --manifest manifest.signed.json --acme-directory letsencrypt --acme-contact ops@bank.example

  # on a machine without Kubernetes, with an internal CA
  c8s ingress --address 10.80.0.3 --cds 10.80.0.100:15009 --operators operators.json \
    --manifest manifest.signed.json --no-kubernetes --routes pods.json --services services.json \
    --ingress-routes routes.json --csr-out ingress.csr --certificate ingress.pem`,
		Args: desk.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := envflag.Apply(c, os.Environ()); err != nil {
				return err
			}
			return f.run(c.Context())
		},
	}
	c.AddCommand(newIngressStatus(), newIngressReady())
	f.register(c)
	return c
}

func (f *ingressFlags) register(c *cobra.Command) {
	f.machineFlags.register(c, "address", filepath.Join(host.StateDir, "ingress"), "127.0.0.1:15022")
	f.routes.register(c)
	f.listen.register(c)
	f.certs.register(c)
	hostname, _ := os.Hostname()
	fl := c.Flags()
	fl.StringVar(&f.name, "name", hostname, "name of this ingress, in its status and in Kubernetes' events")
	fl.StringVar(&f.services, "services", "", `JSON file of what is behind Services, with --no-kubernetes: {"default/web": [{"port": 80, "endpoints": ["10.81.1.2:8080"]}]}`)
	fl.DurationVar(&f.proofs, "proof-period", time.Minute, "how often the proof is made anew, 1s to 4m; clients refuse one that is older than five minutes")
	fl.BoolVar(&f.tls13, "tls13-only", false, "refuse TLS 1.2")
	fl.BoolVar(&f.access, "access-log", false, "log a line for each request")
	completeFile(c, "json", "services", "ingress-routes")
}

// check finds what is wrong with the flags before anything is opened.
func (f *ingressFlags) check() (own netip.Addr, err error) {
	if own, err = f.machineFlags.check(); err != nil {
		return own, err
	}
	if f.proofs < attester.MinRefresh || f.proofs > attester.MaxRefresh {
		return own, exit.Usage(fmt.Errorf("--proof-period is %s, must be from %s to %s", f.proofs, attester.MinRefresh, attester.MaxRefresh))
	}
	switch {
	case f.services != "" && !f.places.noKubernetes:
		return own, exit.Usage(errors.New("--services goes with --no-kubernetes: the API server says what is behind Services"))
	case f.services == "" && f.places.noKubernetes:
		return own, requireFlag("services", f.services)
	}
	return own, errors.Join(f.routes.check(f.places.noKubernetes), f.listen.check(), f.certs.check())
}

func (f *ingressFlags) run(ctx context.Context) error {
	own, err := f.check()
	if err != nil {
		return err
	}
	log := f.log.logger().With("ingress", f.name)
	collectLater()
	held, err := f.hold()
	if err != nil {
		return err
	}
	defer held.Close()
	trust, err := f.trust.load()
	if err != nil {
		return err
	}
	attester, _, err := f.attester(ctx, f.name, trust, log)
	if err != nil {
		return err
	}
	cfg := daemon.Config{
		Name: f.name, Version: version.String(), Software: version.Software(), Operators: trust.operators, Attester: attester, StateDir: f.stateDir,
		Limits: ingress.Limits{Drain: f.drain}, TLS13: f.tls13, Mesh: memoryLimits(), ProofPeriod: f.proofs, Now: time.Now, Log: log,
	}
	if f.access {
		cfg.Access = log.With("log", "access")
	}
	if cfg.CDS, err = f.client(trust, log); err != nil {
		return err
	}
	if err := f.findPods(&cfg, own); err != nil {
		return err
	}
	if cfg.Certs, err = f.certs.config(); err != nil {
		return err
	}
	if cfg.TrustedFor, err = prefixes("forwarded-from", f.listen.forwarded); err != nil {
		return err
	}
	if cfg.Listen, err = f.listen.open(ctx); err != nil {
		return err
	}
	defer closeListeners(&cfg.Listen)
	d, err := daemon.New(ctx, cfg)
	if err != nil {
		return err
	}
	log.Info("ingress starting", "version", version.String(), "manifest", cfg.CDS.Manifest().Manifest.Version, "https", f.listen.https, "http", f.listen.http)
	return f.serve(ctx, d)
}

// hold keeps other ingresses out of the state folder while this process lives:
// of two, each would take back what the other has kept, orders that were counted
// and certificates that were issued.
func (f *ingressFlags) hold() (*os.File, error) {
	held, err := filelock.Take(filepath.Join(f.stateDir, "ingress.lock"))
	if errors.Is(err, filelock.ErrHeld) {
		return nil, exit.Usage(fmt.Errorf("%w: a c8s ingress that runs, or drains still, has this --state-dir; wait until it has ended, or give this one a folder of its own", err))
	}
	return held, err
}

// collectLater trades memory for processor time, within what the process may
// have: requests leave a lot behind that is dead at once, beside very little
// that lives. Who sets GOGC or GOMEMLIMIT has decided otherwise.
func collectLater() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(400)
	if limit := memlimit.Of(os.DirFS("/"), math.MaxInt64); limit < math.MaxInt64 {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
}

// findPods says who knows where pods are, and who has the routes.
func (f *ingressFlags) findPods(cfg *daemon.Config, own netip.Addr) (err error) {
	if cfg.Table, err = resolve.New(resolve.Config{Node: own, Rand: rand.Uint64, Now: time.Now}); err != nil {
		return err
	}
	if f.places.file != "" {
		cfg.Places = &files.Places{Routes: f.places.file, Services: f.services, Table: cfg.Table, Log: cfg.Log}
	}
	if cfg.Cluster, err = f.places.cluster(own, "c8s-ingress", cfg.Log); err != nil {
		return err
	}
	if f.routes.file != "" {
		cfg.RoutesFile = f.routes.file
		return nil
	}
	cfg.Kubernetes, err = f.routes.kubernetes(f.places.kubeconfig, &f.listen)
	return err
}

// serve runs the ingress and what watches it: metrics stay until it has ended.
func (f *ingressFlags) serve(ctx context.Context, d *daemon.Daemon) error {
	watched, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, watched := errgroup.WithContext(watched)
	if f.metrics != "" {
		g.Go(func() error { return serveMetrics(watched, f.metrics, d.Registry(), d.Ready) })
	}
	g.Go(func() error {
		defer end()
		told, stop := context.WithCancel(watched)
		defer stop()
		defer context.AfterFunc(ctx, stop)()
		return d.Run(told, f.runDir)
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
