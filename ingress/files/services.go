// SPDX-License-Identifier: Apache-2.0

// Package files tells an ingress where pods are and what is behind Services on
// machines without Kubernetes, and keeps this invariant: a file that cannot be
// wholly understood changes nothing. What files say is a hint, as what
// Kubernetes says: whoever answers at an endpoint must prove what it is.
package files

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

// MaxServices is the size of the largest accepted file of Services, in bytes.
const MaxServices = 16 << 20

// servicePort is a port of a Service in the file.
type servicePort struct {
	Port      uint16           `json:"port"`
	Name      string           `json:"name,omitempty"`
	Endpoints []netip.AddrPort `json:"endpoints"`
}

// ParseServices reads
//
//	{"<namespace>/<name>": [{"port": 80, "name": "http", "endpoints": ["10.81.1.2:8080"]}]}
//
// name may be left out. An endpoint is a pod's address and its own port.
func ParseServices(raw []byte) ([]resolve.Service, error) {
	const doing = "parsing services"
	if len(raw) > MaxServices {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", doing, len(raw), MaxServices)
	}
	var table map[string][]servicePort
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&table); err != nil {
		return nil, fmt.Errorf(`%s (want {"default/web": [{"port": 80, "endpoints": ["10.81.1.2:8080"]}]}): %w`, doing, err)
	}
	if _, err := dec.Token(); err != io.EOF { //nolint:errorlint // Token returns it as it is
		return nil, fmt.Errorf("%s: something follows the object", doing)
	}
	var services []resolve.Service
	for _, name := range slices.Sorted(maps.Keys(table)) {
		namespace, short, found := strings.Cut(name, "/")
		if !found || namespace == "" || short == "" || strings.Contains(short, "/") {
			return nil, fmt.Errorf(`%s: %.100q is no name of a Service, want "namespace/name"`, doing, name)
		}
		s := resolve.Service{Name: name, Headless: true}
		for _, p := range table[name] {
			port, err := p.checked()
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", doing, name, err)
			}
			if slices.ContainsFunc(s.Ports, func(o resolve.Port) bool { return o.Port == port.Port || o.Name != "" && o.Name == port.Name }) {
				return nil, fmt.Errorf("%s: %s has port %d %s twice", doing, name, port.Port, port.Name)
			}
			s.Ports = append(s.Ports, port)
		}
		if len(s.Ports) == 0 {
			return nil, fmt.Errorf("%s: %s has no ports", doing, name)
		}
		services = append(services, s)
	}
	return services, nil
}

func (p *servicePort) checked() (resolve.Port, error) {
	port := resolve.Port{Name: p.Name, Protocol: resolve.TCP, Port: p.Port}
	if p.Port == 0 {
		return port, fmt.Errorf("a port without a number")
	}
	for _, e := range p.Endpoints {
		// What another spelling means is not worth a surprise.
		if a := e.Addr(); !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" || e.Port() == 0 {
			return port, fmt.Errorf("port %d: endpoint %s is no pod's address and port", p.Port, e)
		}
		port.Endpoints = append(port.Endpoints, resolve.Endpoint{Addr: e})
	}
	return port, nil
}

// clusterOf is what the two files say together: nodes have no names here, so
// their addresses are.
func clusterOf(routes []resolve.Route, services []resolve.Service) resolve.Cluster {
	nodes := map[netip.Addr]*resolve.Node{}
	for _, r := range routes {
		n := nodes[r.Node]
		if n == nil {
			n = &resolve.Node{Name: r.Node.String(), Addr: r.Node, Addrs: []netip.Addr{r.Node}}
			nodes[r.Node] = n
		}
		n.Pods = append(n.Pods, r.Prefix)
	}
	c := resolve.Cluster{Services: services}
	for _, addr := range slices.SortedFunc(maps.Keys(nodes), netip.Addr.Compare) {
		c.Nodes = append(c.Nodes, *nodes[addr])
	}
	return c
}
