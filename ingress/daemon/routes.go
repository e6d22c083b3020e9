// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/ingress/route"
)

// loadRoutes takes the file of routes into force.
func (d *Daemon) loadRoutes() error {
	raw, err := os.ReadFile(d.cfg.RoutesFile)
	if err != nil {
		return fmt.Errorf("reading the routes: %w", err)
	}
	t, err := route.Parse(raw)
	if err != nil {
		return fmt.Errorf("reading the routes from %s: %w", d.cfg.RoutesFile, err)
	}
	d.setRoutes(t)
	d.cfg.Log.Info("routes in force", "hosts", len(t.Hosts()))
	return nil
}

func (d *Daemon) setRoutes(t *route.Table) {
	d.server.SetRoutes(t)
	d.routes.Store(t)
	if d.nameHosts() {
		d.proofs.Wake() // it says for which hosts
	}
}

// nameHosts has certificates for the hosts that both the routes and the
// operators know. Neither alone makes a name: whoever writes routes could have
// one asked for that is not meant to be here, and the CA's limits be used up. It
// reports whether there are others now.
func (d *Daemon) nameHosts() bool {
	d.naming.Lock()
	defer d.naming.Unlock()
	t := d.routes.Load()
	if t == nil {
		return false
	}
	var names []string
	listed := d.manifest().IngressHosts()
	for _, host := range t.Hosts() {
		if strings.HasPrefix(host, "*.") {
			names = append(names, covered(host, listed, d.wildcards())...)
			continue
		}
		if _, decision := d.manifest().IngressHost(host); decision.Allowed {
			names = append(names, host)
		} else {
			d.cfg.Log.Warn("routes name a host that the operators do not", "host", host, "code", decision.Code, "rule", decision.Rule,
				"expected", decision.Expected, "actual", decision.Actual, "remedy", decision.Remedy)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if slices.Equal(names, *d.names.Load()) {
		return false
	}
	if err := d.certs.SetNames(names); err != nil {
		d.cfg.Log.Error("certificates stay as they are", "err", err)
		return false
	}
	d.names.Store(&names)
	d.cfg.Log.Info("hosts of this ingress", "hosts", names)
	return true
}

// wildcards reports whether certificates may have wildcards: ACME proves them
// by DNS alone.
func (d *Daemon) wildcards() bool { return d.cfg.Certs.ACME == nil }

// covered are the manifest's hosts that a route for a wildcard serves.
func covered(wildcard string, listed []string, wildcards bool) (hosts []string) {
	for _, host := range listed {
		_, below, _ := strings.Cut(host, ".")
		switch {
		case host == wildcard && wildcards, !strings.HasPrefix(host, "*.") && "*."+below == wildcard:
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// hosts are those with a certificate, or about to have one.
func (d *Daemon) hosts() []string { return *d.names.Load() }
