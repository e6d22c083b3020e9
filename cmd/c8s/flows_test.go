// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/datapath/flow"
)

func TestFlowFilters(t *testing.T) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		in   flowFlags
		want flow.Filter
	}{
		"none":    {flowFlags{}, flow.Filter{}},
		"words":   {flowFlags{verdict: "refused", direction: "kernel", protocol: "udp", reason: "vlan", pod: "a/b", workload: "w", service: "s/t", text: "x"}, flow.Filter{Verdict: flow.Refused, Direction: flow.Kernel, Protocol: "udp", Reason: "vlan", Pod: "a/b", Workload: "w", Service: "s/t", Text: "x"}},
		"address": {flowFlags{address: "10.0.0.1:80", port: 80}, flow.Filter{Address: netip.MustParsePrefix("10.0.0.1/32"), Port: 80}},
		"ago":     {flowFlags{since: "10m"}, flow.Filter{Since: now.Add(-10 * time.Minute)}},
		"time":    {flowFlags{since: "2026-12-01T11:00:00Z"}, flow.Filter{Since: now.Add(-time.Hour)}},
	} {
		var got flow.Filter
		if err := tt.in.fill(&got, now); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tt.want)
		}
	}
	for name, in := range map[string]flowFlags{
		"verdict": {verdict: "no"}, "direction": {direction: "up"}, "protocol": {protocol: "sctp"}, "address": {address: "web"},
		"two ports": {address: "10.0.0.1:80", port: 81}, "since": {since: "noon"}, "the future": {since: "-5m"},
		"a pod without namespace": {pod: "web-0"}, "a Service without name": {service: "shop/"},
	} {
		if err := in.fill(&flow.Filter{}, now); err == nil {
			t.Errorf("%s: %+v was taken", name, in)
		}
	}
}

func TestFlowLine(t *testing.T) {
	var out bytes.Buffer
	r := flow.Record{
		Time: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC), Verdict: flow.Refused, Direction: flow.Kernel, Reason: "spoofed-source",
		Src: netip.MustParseAddrPort("10.81.1.2:0"), Dst: netip.MustParseAddrPort("10.96.0.7:80"), SrcWorkload: "web", Suppressed: 7, Gap: 3,
	}
	if err := writeFlow(&out, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"(3 records lost", "refused", "kernel", "10.81.1.2 (web) -> 10.96.0.7:80", "spoofed-source (and 7 more before it)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out.String(), want)
		}
	}
	out.Reset()
	r.Verdict, r.Protocol, r.Suppressed, r.Gap, r.Reason = flow.Closed, "udp", 0, 0, ""
	r.DatagramsSent, r.DatagramsReceived, r.DatagramsDropped = 60, 59, 1
	if err := writeFlow(&out, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.96.0.7:80/udp", "(datagrams: 60 sent, 59 received, 1 dropped)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out.String(), want)
		}
	}
}
