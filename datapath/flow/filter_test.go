// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func sample() Record {
	return Record{
		Time: noon, Verdict: Refused, Direction: Egress, Protocol: "tcp", Reason: "port-not-allowed", Rule: "workloads/web/peers/to",
		Src: netip.MustParseAddrPort("10.81.1.2:41000"), Dst: netip.MustParseAddrPort("10.96.0.7:80"),
		Endpoint: netip.MustParseAddrPort("[fd81:2::9]:8080"), Service: "shop/api",
		SrcWorkload: "web", DstWorkload: "api", Pod: "shop/web-0", SrcID: "spiffe://example.org/workload/web",
	}
}

func TestFilter(t *testing.T) {
	for name, tt := range map[string]struct{ fits, not Filter }{
		"verdict":   {Filter{Verdict: Refused}, Filter{Verdict: Allowed}},
		"direction": {Filter{Direction: Egress}, Filter{Direction: Kernel}},
		"protocol":  {Filter{Protocol: "tcp"}, Filter{Protocol: "udp"}},
		"reason":    {Filter{Reason: "port-not-allowed"}, Filter{Reason: "port"}},
		"pod":       {Filter{Pod: "shop/web-0"}, Filter{Pod: "shop/web"}},
		"source":    {Filter{Workload: "web"}, Filter{Workload: "we"}},
		"target":    {Filter{Workload: "api"}, Filter{Workload: "db"}},
		"service":   {Filter{Service: "shop/api"}, Filter{Service: "api"}},
		"src":       {Filter{Address: netip.MustParsePrefix("10.81.0.0/16")}, Filter{Address: netip.MustParsePrefix("10.82.0.0/16")}},
		"endpoint":  {Filter{Address: netip.MustParsePrefix("fd81:2::9/128")}, Filter{Address: netip.MustParsePrefix("fd81:3::/64")}},
		"port":      {Filter{Port: 80}, Filter{Port: 41000}},
		"own port":  {Filter{Port: 8080}, Filter{Port: 81}},
		"since":     {Filter{Since: noon}, Filter{Since: noon.Add(1)}},
		"text":      {Filter{Text: "example.org"}, Filter{Text: "example.com"}},
		"both":      {Filter{Verdict: Refused, Workload: "web", Port: 80}, Filter{Verdict: Refused, Workload: "web", Port: 443}},
	} {
		r := sample()
		if !tt.fits.Match(&r) || tt.not.Match(&r) {
			t.Errorf("%s: %+v must fit, %+v must not", name, tt.fits, tt.not)
		}
	}
	if r := (Record{}); !new(Filter).Match(&r) {
		t.Error("the zero filter leaves records out")
	}
}

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32 0", "10.0.0.1:80": "10.0.0.1/32 80", "10.0.7.1/16": "10.0.0.0/16 0",
		"fd00::1": "fd00::1/128 0", "[fd00::1]:443": "fd00::1/128 443", "::ffff:10.0.0.1": "10.0.0.1/32 0",
	} {
		p, port, err := ParseAddress(in)
		if got := p.String() + " " + netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()[len("0.0.0.0:"):]; err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "host", "10.0.0.1/33", "10.0.0.1:x"} {
		if _, _, err := ParseAddress(in); err == nil {
			t.Errorf("%q was read", in)
		}
	}
}

func TestFilterRefusesWhatNoRecordHas(t *testing.T) {
	for _, q := range []string{"verdict=maybe", "direction=up", "address=10.0.0.1", "address=10.0.0.1/8", "port=0", "port=65536", "port=x", "since=yesterday"} {
		v, err := url.ParseQuery(q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFilter(v); err == nil || !strings.Contains(err.Error(), "reading the filter") {
			t.Errorf("%s: %v", q, err)
		}
	}
}

// FuzzFilter: a filter that was read is written as what reads the same again.
func FuzzFilter(f *testing.F) {
	full := Filter{
		Verdict: Closed, Direction: Ingress, Reason: "reset", Pod: "a/b", Workload: "w", Service: "s/t", Text: "x y",
		Address: netip.MustParsePrefix("fd00::/64"), Port: 443, Since: noon,
	}
	f.Add("")
	f.Add(full.Values().Encode())
	f.Add("verdict=refused&address=10.0.0.0%2F8&since=2026-12-01T12%3A00%3A00.5%2B01%3A00")
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		one, err := ParseFilter(v)
		if err != nil {
			return
		}
		two, err := ParseFilter(one.Values())
		if err != nil || !one.Since.Equal(two.Since) {
			t.Fatalf("%+v was written as %v, which reads %+v, %v", one, one.Values(), two, err)
		}
		one.Since, two.Since = time.Time{}, time.Time{}
		if !reflect.DeepEqual(one, two) {
			t.Fatalf("%+v became %+v", one, two)
		}
	})
}

func TestHistoryCountsWhatFits(t *testing.T) {
	r := NewRing(16)
	for i := range 20 {
		x := rec(i)
		if i%3 == 0 {
			x.Verdict = Refused
		}
		r.Add(x)
	}
	s := r.Subscribe(3, Filter{Verdict: Refused})
	defer s.Close()
	var got []int64
	for _, x := range s.History() {
		got = append(got, x.BytesSent)
	}
	if want := []int64{12, 15, 18}; !reflect.DeepEqual(got, want) {
		t.Errorf("history %v, want %v", got, want)
	}
	r.Add(rec(100))
	r.Add(Record{Verdict: Refused, BytesSent: 101})
	if x, err := s.Next(t.Context()); err != nil || x.BytesSent != 101 || x.Gap != 0 {
		t.Errorf("next is %+v, %v; want 101, which was not missed", x, err)
	}
}
