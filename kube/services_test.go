// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

const sliceJSON = `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","addressType":"IPv4",
"metadata":{"name":"web-x","namespace":"d","labels":{"kubernetes.io/service-name":"web","other":"1"},"annotations":{"a":"b"},"managedFields":[{"manager":"m"}]},
"ports":[{"name":"main","protocol":"TCP","port":8080},{"name":"dns","protocol":"UDP","port":5353},{"name":"bad","protocol":"TCP","port":70000},{"name":"any","protocol":"TCP"},{"name":"main","protocol":"SCTP","port":1}],
"endpoints":[
 {"addresses":["10.1.2.1","10.9.9.9"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"b","hostname":"db-0","hints":{"forZones":[{"name":"z1"}],"forNodes":[{"name":"b"}]}},
 {"addresses":["10.1.2.2"],"conditions":{},"hints":{"forZones":[{"name":"z1"}],"forNodes":[{"name":"b"}]}},
 {"addresses":["10.1.2.3"],"conditions":{"ready":false,"serving":true,"terminating":true}},
 {"addresses":["10.1.2.4"],"conditions":{"ready":false,"serving":false,"terminating":true}},
 {"addresses":["10.1.2.5"],"conditions":{"ready":false,"serving":true}},
 {"addresses":["10.1.2.6"],"conditions":{"ready":true,"serving":false}},
 {"addresses":[],"conditions":{"ready":true}},
 {"addresses":["host.example"],"conditions":{"ready":true}}]}`

const serviceJSON = `{"kind":"Service","apiVersion":"v1","metadata":{"name":"web","namespace":"d"},"spec":{"type":"ClusterIP","clusterIP":"10.96.0.10","clusterIPs":["10.96.0.10","fd96::10"],
"externalIPs":["192.0.2.1"],"ports":[{"name":"main","protocol":"TCP","port":80,"targetPort":"http","nodePort":30080},{"name":"dns","protocol":"UDP","port":53}],
"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":600}},"internalTrafficPolicy":"Local","externalTrafficPolicy":"Local","trafficDistribution":"PreferClose"},
"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.2"},{"hostname":"lb.example"}]}}}`

const headlessJSON = `{"kind":"Service","apiVersion":"v1","metadata":{"name":"web","namespace":"d"},"spec":{"type":"ClusterIP","clusterIP":"None","clusterIPs":["None"]}}`

func endpoints(port uint16) []resolve.Endpoint {
	h := &resolve.Hints{Zones: []string{"z1"}, Nodes: []string{"b"}}
	return []resolve.Endpoint{
		{Addr: netip.AddrPortFrom(ip("10.1.2.1"), port), Node: "b", Host: "db-0", Hints: h},
		{Addr: netip.AddrPortFrom(ip("10.1.2.2"), port), Hints: h},
		{Addr: netip.AddrPortFrom(ip("10.1.2.3"), port), Terminating: true},
		{Addr: netip.AddrPortFrom(ip("10.1.2.6"), port)},
	}
}

func TestEndpointsThatMayBeUsedStandBehindTheirPort(t *testing.T) {
	slice, keep := sliceOf(decode(t, &endpointSlice{}, sliceJSON))
	if !keep {
		t.Fatal("the slice was not kept")
	}
	if a, b := slice.endpoints[0].hints, slice.endpoints[1].hints; a != b || slice.hints != 1 {
		t.Errorf("equal hints are not shared, weight %d", slice.hints)
	}
	info, keep := serviceOf(decode(t, &service{}, serviceJSON))
	if !keep {
		t.Fatal("the service was not kept")
	}
	other := sliceInfo{service: "d/web", ports: []namedPort{{name: "other", proto: resolve.TCP, port: 1}, {name: "main", proto: resolve.UDP, port: 1}}, endpoints: []endpointInfo{{addr: ip("10.1.2.9")}}}
	got, cut := join(info, []sliceInfo{slice, other}, 8)
	if cut != 0 {
		t.Errorf("%d endpoints were left out", cut)
	}
	want := resolve.Service{
		Name: "d/web", VIPs: []netip.Addr{ip("10.96.0.10"), ip("fd96::10")}, External: []netip.Addr{ip("192.0.2.1"), ip("192.0.2.2")}, Affinity: 10 * time.Minute, Local: true,
		Ports: []resolve.Port{
			{Name: "main", Protocol: resolve.TCP, Port: 80, Endpoints: endpoints(8080)}, {Name: "dns", Protocol: resolve.UDP, Port: 53, Endpoints: endpoints(5353)},
		},
	}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Error(diff)
	}
	if got, keep := sliceOf(decode(t, &endpointSlice{}, strings.Replace(sliceJSON, "kubernetes.io/service-name", "x", 1))); keep {
		t.Errorf("a slice of no Service: %+v", got)
	}
}

func TestKindsOfServices(t *testing.T) {
	usual, _ := serviceOf(decode(t, &service{}, serviceJSON))
	with := func(change func(*resolve.Service)) *resolve.Service {
		s := usual.service
		change(&s)
		return &s
	}
	for change, want := range map[string]*resolve.Service{
		``:                                    with(func(*resolve.Service) {}),
		`["10.96.0.10","fd96::10"]→["None"]`:  with(func(s *resolve.Service) { s.VIPs, s.Headless = nil, true }),
		`["10.96.0.10","fd96::10"]→[]`:        nil,
		`"10.96.0.10","fd96::10"→"","nobody"`: nil,
		`"type":"ClusterIP"→"type":"ExternalName","externalName":"API.Example.com."`:                  {Name: "d/web", Alias: "api.example.com"},
		`"type":"ClusterIP"→"type":"ExternalName"`:                                                    nil,
		`"type":"ClusterIP"→"type":"ExternalName","externalName":"` + strings.Repeat("a.", 200) + `"`: nil,
		`"type":"ClusterIP"→"type":"NodePort"`:                                                        with(func(*resolve.Service) {}),
		`"timeoutSeconds":600→"timeoutSeconds":0`:                                                     with(func(s *resolve.Service) { s.Affinity = 3 * time.Hour }),
		`"timeoutSeconds":600→"timeoutSeconds":2000000000`:                                            with(func(s *resolve.Service) { s.Affinity = 24 * time.Hour }),
		`"sessionAffinity":"ClientIP"→"sessionAffinity":"None"`:                                       with(func(s *resolve.Service) { s.Affinity = 0 }),
		`"internalTrafficPolicy":"Local"→"x":1`:                                                       with(func(s *resolve.Service) { s.Local = false }),
		`"externalIPs":["192.0.2.1"]→"externalIPs":["x"]`:                                             with(func(s *resolve.Service) { s.External = []netip.Addr{ip("192.0.2.2")} }),
	} {
		from, to, _ := strings.Cut(change, "→")
		got, keep := serviceOf(decode(t, &service{}, strings.Replace(serviceJSON, from, to, 1)))
		if keep != (want != nil) || keep && !cmp.Equal(got.service, *want, byValue) {
			t.Errorf("%s: %v, %+v", change, keep, got.service)
		}
	}
}

// A headless Service needs no ports for its pods to have names.
func TestHeadlessServicesWithoutPorts(t *testing.T) {
	info, keep := serviceOf(decode(t, &service{}, headlessJSON))
	raw := sliceJSON[:strings.Index(sliceJSON, `"ports":`)] + `"ports":null,` + sliceJSON[strings.Index(sliceJSON, `"endpoints":`):]
	slice, kept := sliceOf(decode(t, &endpointSlice{}, raw))
	if !keep || !kept {
		t.Fatalf("service %v, slice %v", keep, kept)
	}
	got, cut := join(info, []sliceInfo{slice}, 3)
	want := resolve.Service{Name: "d/web", Headless: true, Ports: []resolve.Port{{Endpoints: endpoints(0)[:3]}}}
	if diff := cmp.Diff(want, got, byValue); diff != "" || cut != 1 {
		t.Errorf("%d left out\n%s", cut, diff)
	}
}

// What an endpoint may say is bounded, and what it does not share has weight.
func TestHintsAreBounded(t *testing.T) {
	many := strings.Repeat(`{"name":"zone"},{"name":""},{"name":"`+strings.Repeat("x", 300)+`"},`, 20)
	raw := strings.Replace(sliceJSON, `"forZones":[`, `"forZones":[`+many, 1)
	raw = strings.Replace(raw, `"hostname":"db-0"`, `"hostname":"`+strings.Repeat("h", 64)+`"`, 1)
	slice, keep := sliceOf(decode(t, &endpointSlice{}, raw))
	first := slice.endpoints[0]
	if !keep || len(first.hints.Zones) > maxHints || len(first.hints.Zones) == 0 || first.host != "" || slice.hints < 2 {
		t.Errorf("%+v, weight %d", first, slice.hints)
	}
	for _, z := range first.hints.Zones {
		if z != "zone" {
			t.Errorf("zone %q", z)
		}
	}
}
