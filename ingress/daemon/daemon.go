// SPDX-License-Identifier: Apache-2.0

// Package daemon is a whole ingress: it joins the parts that know one thing
// each. identity keeps the machine a member of the mesh, certs holds the TLS
// key, attester proves that key, the server takes requests to pods, and page
// shows people what of it is true now.
//
// Invariant: whatever the operators' word, the routes or the keys become, every
// part is told, and none of them decides for another: the manifest is asked
// where a connection is made, not here. An ingress that is told to end serves
// what it has accepted before anything that this needs goes away.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/cds/client"
	"github.com/c8s-dev/c8s/client/receipt"
	"github.com/c8s-dev/c8s/datapath"
	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress"
	"github.com/c8s-dev/c8s/ingress/attester"
	"github.com/c8s-dev/c8s/ingress/certs"
	"github.com/c8s-dev/c8s/ingress/files"
	"github.com/c8s-dev/c8s/ingress/identity"
	"github.com/c8s-dev/c8s/ingress/kuberoute"
	"github.com/c8s-dev/c8s/ingress/page"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
)

// Config is what an ingress is made of. What is not said to be optional is
// required.
type Config struct {
	Name      string // of this ingress in Kubernetes' events and in its status
	Version   string // for people
	Software  string // what statements say: a version without spaces
	Operators policy.Operators
	CDS       *client.Client
	Attester  attest.Attester

	Certs    certs.Config // where certificates come from; the rest is filled in
	StateDir string       // keeps the sealed key and certificates

	Table   *resolve.Table // filled by Places and Cluster
	Places  *files.Places  // optional
	Cluster agent.Cluster  // optional

	RoutesFile string      // hosts and backends: of route.Parse; or:
	Kubernetes *Kubernetes // where routes come from

	Listen ingress.Listeners
	Limits ingress.Limits
	TLS13  bool
	// TrustedFor are the clients whose word about others is passed on. Optional.
	TrustedFor []netip.Prefix
	Mesh       datapath.Limits
	Access     *slog.Logger // optional: a line for each request

	ProofPeriod time.Duration // zero: a minute
	Now         func() time.Time
	Log         *slog.Logger
}

// Kubernetes is where routes come from: Ingress and Gateway API objects.
type Kubernetes struct {
	API          *rest.Config
	IngressClass string
	GatewayClass string
	HTTPS, HTTP  uint16   // ports for clients
	Addresses    []string // for the objects' statuses
	ReadOnly     bool
}

// Daemon is an ingress.
type Daemon struct {
	cfg      Config
	identity *identity.Identity
	certs    *certs.Store
	proofs   *attester.Attester
	dialer   *datapath.Dialer
	server   *ingress.Server
	watcher  *kuberoute.Watcher // nil: routes come from a file
	registry *prometheus.Registry

	routes   atomic.Pointer[route.Table] // nil: none yet
	draining atomic.Bool

	naming sync.Mutex // one change of names at a time
	names  atomic.Pointer[[]string]
}

// New makes every part; a file that says nothing that can be understood is an
// error here. Nothing runs until Run, and the listeners are closed by it.
func New(ctx context.Context, cfg Config) (*Daemon, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	d := &Daemon{cfg: cfg, registry: prometheus.NewRegistry()}
	d.names.Store(&[]string{})
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, make := range []func(context.Context) error{d.makeIdentity, d.makeCerts, d.makeProofs, d.makeServer, d.makeRoutes} {
		if err := make(ctx); err != nil {
			return nil, err
		}
	}
	d.registry.MustRegister(d.server.Collectors()...)
	d.registry.MustRegister(d.collector())
	return d, nil
}

func (c *Config) check() error {
	lacks := c.Version == "" || c.Software == "" || len(c.Operators.Keys) == 0 || c.CDS == nil || c.Attester == nil || c.StateDir == "" || c.Table == nil || c.Now == nil || c.Log == nil
	if lacks || (c.RoutesFile == "") == (c.Kubernetes == nil) {
		return errors.New("preparing the ingress: the configuration lacks a part")
	}
	return nil
}

func (d *Daemon) makeIdentity(context.Context) (err error) {
	d.identity, err = identity.New(identity.Config{
		CDS: d.cfg.CDS, Attester: d.cfg.Attester, Changed: d.changed, Rand: rand.Int64N, Now: d.cfg.Now, Log: d.cfg.Log.With("part", "identity"),
	})
	if err != nil {
		return err
	}
	d.dialer, err = datapath.NewDialer(datapath.DialerConfig{
		Word: d.identity, Credential: d.identity.Credential, Limits: d.cfg.Mesh, Now: d.cfg.Now, Log: d.cfg.Log.With("part", "mesh"),
	})
	return err
}

// sealedFile is the file of the sealed key and certificates in the state folder.
const sealedFile = "certificates.sealed"

func (d *Daemon) makeCerts(ctx context.Context) (err error) {
	c := d.cfg.Certs
	c.TrustDomain, c.Path = d.manifest().TrustDomain, filepath.Join(d.cfg.StateDir, sealedFile)
	c.Sealer, _ = d.cfg.Attester.(attest.Sealer) // one that seals nothing keeps nothing
	c.Allowed = func(host string) policy.Decision {
		_, decision := d.manifest().IngressHost(host)
		return decision
	}
	c.Now, c.Metrics, c.Log = d.cfg.Now, d.registry, d.cfg.Log.With("part", "certificates")
	d.certs, err = certs.Open(ctx, c)
	return err
}

func (d *Daemon) makeProofs(context.Context) error {
	status, err := page.New(page.Config{Facts: d.facts, Log: d.cfg.Log.With("part", "page")})
	if err != nil {
		return err
	}
	d.proofs, err = attester.New(attester.Config{
		CDS: d.cfg.CDS, Identity: d.identity, Keys: d.certs, Attester: d.cfg.Attester, Software: d.cfg.Software,
		Hosts: d.hosts, KeyOf: keyOf, Status: status, Adopted: d.changed, Refresh: d.cfg.ProofPeriod,
		Now: d.cfg.Now, Rand: rand.Int64N, Log: d.cfg.Log.With("part", "proof"),
	})
	return err
}

func (d *Daemon) makeServer(context.Context) (err error) {
	d.server, err = ingress.New(ingress.Config{
		Listen: d.cfg.Listen, Certs: d.certs, Mesh: telling{ingress.Through(d.dialer, d.identity.Manifest), d.tried}, Resolve: kuberoute.Resolver(d.cfg.Table),
		Own: d.proofs, Receipts: receipt.NewSigner(d.proofs.ReceiptKey(), d.cfg.Now), LogIndex: d.logIndex,
		Limits: d.cfg.Limits, TLS13: d.cfg.TLS13, TrustedFor: d.cfg.TrustedFor, Log: d.cfg.Log.With("part", "server"), Access: d.cfg.Access, Now: d.cfg.Now, Rand: rand.Uint64,
	})
	return err
}

func (d *Daemon) makeRoutes(context.Context) (err error) {
	if d.cfg.Places != nil {
		if err := d.cfg.Places.Load(); err != nil {
			return err
		}
	}
	k := d.cfg.Kubernetes
	if k == nil {
		return d.loadRoutes()
	}
	d.watcher, err = kuberoute.New(kuberoute.Config{
		API: k.API, Name: d.cfg.Name, IngressClass: k.IngressClass, GatewayClass: k.GatewayClass, HTTPS: k.HTTPS, HTTP: k.HTTP, Addresses: k.Addresses,
		Services: d.cfg.Table, Ready: d.placesKnown, Manifest: d.manifest, Set: d.setRoutes, ReadOnly: k.ReadOnly,
		Now: d.cfg.Now, Log: d.cfg.Log.With("part", "routes"),
	})
	return err
}

// placesKnown reports whether the table has what the API server says.
func (d *Daemon) placesKnown() bool {
	if d.cfg.Cluster == nil {
		return true
	}
	_, since := d.cfg.Cluster.Contact()
	return !since.IsZero()
}

func (d *Daemon) manifest() *policy.Manifest { return d.identity.Manifest().Manifest }

// changed is called after the operators' word, the credential, the roots or the
// meaning of the manifest at this time have changed.
func (d *Daemon) changed() {
	d.dialer.Recheck()
	d.nameHosts()
	d.proofs.Wake()
}

// Registry has the metrics of every part.
func (d *Daemon) Registry() *prometheus.Registry { return d.registry }

// Run works until ctx ends or a part fails for good. When ctx ends, the server
// drains first: until it is done, everything that it needs goes on.
func (d *Daemon) Run(ctx context.Context, dir string) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, life := errgroup.WithContext(life)
	part := func(name string, run func(context.Context) error) {
		group.Go(func() error {
			err := run(life)
			switch {
			case life.Err() != nil:
				return nil
			case err == nil:
				err = errors.New("it ended without being told to")
			}
			return fmt.Errorf("%s: %w", name, err)
		})
	}
	part("identity", d.identity.Run)
	part("connections into the mesh", d.dialer.Run)
	part("certificates", d.certs.Run)
	part("proofs", d.proofs.Run)
	part("admin socket", func(ctx context.Context) error { return d.serveAdmin(ctx, dir) })
	if d.cfg.Places != nil {
		part("places of pods", d.cfg.Places.Run)
	}
	if d.cfg.Cluster != nil {
		part("cluster", func(ctx context.Context) error { return d.cfg.Cluster.Fill(ctx, d.cfg.Table) })
	}
	if d.watcher != nil {
		part("routes", d.watcher.Run)
	} else {
		part("routes", func(ctx context.Context) error { return files.Watch(ctx, d.cfg.Log, d.loadRoutes, d.cfg.RoutesFile) })
	}
	group.Go(func() error {
		defer end()
		serve, stop := context.WithCancel(life) // a part that fails ends the server too
		defer stop()
		defer context.AfterFunc(ctx, func() { d.draining.Store(true); stop() })()
		return d.server.Run(serve)
	})
	return group.Wait()
}
