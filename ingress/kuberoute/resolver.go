// SPDX-License-Identifier: Apache-2.0

package kuberoute

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/c8s-dev/c8s/datapath/resolve"
	"github.com/c8s-dev/c8s/ingress/route"
	"github.com/c8s-dev/c8s/policy"
)

// Resolver finds endpoints of Services for the ingress. Its errors are
// policy.Decision, with the codes of the datapath.
func Resolver(t *resolve.Table) func(service string, port route.Port, avoid []netip.Addr) (resolve.Target, error) {
	return func(service string, port route.Port, avoid []netip.Addr) (resolve.Target, error) {
		namespace, name, _ := strings.Cut(service, "/")
		target, verdict := t.Behind(resolve.ServiceQuery{Namespace: namespace, Name: name, Port: port.Number, PortName: port.Name, Avoid: avoid})
		if verdict == resolve.Found {
			return target, nil
		}
		return resolve.Target{}, missing(verdict, service, port)
	}
}

func missing(v resolve.Verdict, service string, port route.Port) policy.Decision {
	d := policy.Decision{Code: "no-endpoints", Rule: "service " + service, Expected: "a ready endpoint", Actual: "none", Remedy: "see whether the Service selects pods, and whether they are ready"}
	switch v {
	case resolve.NoRoute:
		d.Code, d.Expected, d.Actual = "no-route", "a Service of this name", "none"
		d.Remedy = "make the Service, or point the route at another"
	case resolve.NoServicePort:
		d.Code, d.Expected, d.Actual = "no-service-port", "a TCP port of the Service", fmt.Sprintf("%q", port.String())
		d.Remedy = "point the route at a port that the Service has"
	case resolve.HostService:
		d.Code, d.Expected, d.Actual = "host-address", "pods of the mesh", "endpoints on nodes' own addresses, or outside of the cluster"
		d.Remedy = "point the route at a Service of pods"
	}
	return d
}
