// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8s-dev/c8s/agent/handover"
	"github.com/c8s-dev/c8s/datapath/external"
	"github.com/c8s-dev/c8s/datapath/resolve"
)

// succeeding is a world whose daemon takes over from another: its pod web may
// resolve api.example.com, and default/db is a Service with session affinity.
func succeeding(w *world) *run {
	w.t.Helper()
	w.cfg.DNS = &DNS{Domain: "cluster.local", Upstreams: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}}
	web := listed("web")
	web.DNS = []string{"api.example.com"}
	w.publish(web)
	w.add(w.web())
	w.want("web-uid", StateOpen, "")
	w.mesh.table.SetCluster(sticking())
	var err error
	if w.names, err = w.newNames(); err != nil {
		w.t.Fatal(err)
	}
	return &run{Agent: w.Agent}
}

// sticking is a cluster with a Service with session affinity.
func sticking() resolve.Cluster {
	return resolve.Cluster{
		Nodes: []resolve.Node{{Name: "b", Addr: netip.MustParseAddr("10.80.0.2"), Addrs: []netip.Addr{netip.MustParseAddr("10.80.0.2")}, Pods: []netip.Prefix{netip.MustParsePrefix("10.81.2.0/24")}}},
		Services: []resolve.Service{{
			Name: "default/db", VIPs: []netip.Addr{netip.MustParseAddr("10.96.0.7")}, Affinity: time.Hour,
			Ports: []resolve.Port{{Protocol: resolve.TCP, Port: 80, Endpoints: []resolve.Endpoint{
				{Addr: netip.MustParseAddrPort("10.81.2.1:5432")}, {Addr: netip.MustParseAddrPort("10.81.2.2:5432")},
			}}},
		}},
	}
}

func answers(uid, name, addr string, left int) handover.Memory {
	return handover.Memory{Kind: memoryAnswers, Data: fmt.Appendf(nil, `{"uid":%q,"names":{%q:{%q:%d}},"later":1}`, uid, name, addr, left)}
}

func affinity(client, service, endpoint string, left int) handover.Memory {
	return handover.Memory{Kind: memoryAffinity, Data: fmt.Appendf(nil, `[{"client":%q,"service":%q,"protocol":6,"endpoint":%q,"left":%d,"later":1}]`, client, service, endpoint, left)}
}

func TestMemoryOfThePredecessorIsJudged(t *testing.T) {
	const outside = "93.184.215.14"
	for name, tt := range map[string]struct {
		piece handover.Memory
		lacks func(w *world) // what else is so
		kept  bool
	}{
		"an answer":                     {piece: answers("web-uid", "api.example.com", outside, 60), kept: true},
		"an IPv6 answer":                {piece: answers("web-uid", "api.example.com", "2606:2800:220:1::1", 60), kept: true},
		"of a pod that is not here":     {piece: answers("other", "api.example.com", outside, 60)},
		"of a pod that was refused":     {piece: answers("web-uid", "api.example.com", outside, 60), lacks: func(w *world) { w.publish(listed("another")); synctest.Wait() }},
		"a name that is not listed":     {piece: answers("web-uid", "evil.example.com", outside, 60)},
		"a name that is listed no more": {piece: answers("web-uid", "api.example.com", outside, 60), lacks: func(w *world) { w.publish(listed("web")); synctest.Wait() }},
		"a name spelled otherwise":      {piece: answers("web-uid", "API.example.com.", outside, 60)},
		"a pod's address":               {piece: answers("web-uid", "api.example.com", "10.81.2.1", 60)},
		"a pod's address in disguise":   {piece: answers("web-uid", "api.example.com", "::ffff:10.81.2.1", 60)},
		"the node's address":            {piece: answers("web-uid", "api.example.com", "10.80.0.1", 60)},
		"a private address":             {piece: answers("web-uid", "api.example.com", "192.168.1.1", 60)},
		"one that this node may answer": {piece: answers("web-uid", "api.example.com", "192.168.1.1", 60), kept: true, lacks: func(w *world) {
			w.cfg.DNS.Private = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
			w.names, _ = w.newNames()
		}},
		"an address with a zone":       {piece: answers("web-uid", "api.example.com", "2606:2800:220:1::1%eth0", 60)},
		"no address":                   {piece: answers("web-uid", "api.example.com", "", 60)},
		"over":                         {piece: answers("web-uid", "api.example.com", outside, 0)},
		"over on its way":              {piece: answers("web-uid", "api.example.com", outside, 5)},
		"a daemon that answers nobody": {piece: answers("web-uid", "api.example.com", outside, 60), lacks: func(w *world) { w.names = nil }},
		"a daemon that asks nobody": {piece: answers("web-uid", "api.example.com", outside, 60), lacks: func(w *world) {
			w.cfg.DNS.Upstreams = nil
			w.names, _ = w.newNames()
		}},
		"an affinity":          {piece: affinity("10.81.1.2", "10.96.0.7:80", "10.81.2.1:5432", 60), kept: true},
		"of another node's":    {piece: affinity("10.81.2.9", "10.96.0.7:80", "10.81.2.1:5432", 60)},
		"of a refused pod":     {piece: affinity("10.81.1.2", "10.96.0.7:80", "10.81.2.1:5432", 60), lacks: func(w *world) { w.publish(listed("another")); synctest.Wait() }},
		"an unknown Service":   {piece: affinity("10.81.1.2", "10.96.0.8:80", "10.81.2.1:5432", 60)},
		"no endpoint":          {piece: affinity("10.81.1.2", "10.96.0.7:80", "10.81.2.9:5432", 60)},
		"no address at all":    {piece: affinity("", "", "", 60)},
		"a kind of later":      {piece: handover.Memory{Kind: "answers/2", Data: json.RawMessage(`{"uid":"web-uid"}`)}},
		"no JSON":              {piece: handover.Memory{Kind: memoryAnswers, Data: json.RawMessage(`uid`)}},
		"a life of before":     {piece: answers("web-uid", "api.example.com", outside, -1)},
		"a life beyond bounds": {piece: affinity("10.81.1.2", "10.96.0.7:80", "10.81.2.1:5432", 1<<32)},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				r := succeeding(w)
				if tt.lacks != nil {
					tt.lacks(w)
				}
				r.remember(&handover.Taken{Memory: []handover.Memory{tt.piece}}, time.Now().Add(-5*time.Second))
				held := len(r.bindings.Told()) + len(r.mesh.table.Affinities())
				if (held == 1) != tt.kept || held > 1 {
					t.Errorf("%d are held", held)
				}
			})
		})
	}
}

// A piece that makes no sense costs nobody else's.
func TestMemoryGoesFromDaemonToDaemon(t *testing.T) {
	inWorld(t, func(w *world) {
		r := succeeding(w)
		addrs := []netip.Addr{netip.MustParseAddr("93.184.215.14"), netip.MustParseAddr("2606:2800:220:1::1")}
		before := &run{Agent: &Agent{bindings: external.New(external.Config{Now: time.Now}), mesh: emptyMesh(t, r.Agent)}}
		before.mesh.table.SetCluster(sticking())
		before.bindings.Learn("web-uid", "api.example.com", addrs, 5*time.Minute)
		before.bindings.Learn("other", "api.example.com", addrs, 5*time.Minute)
		q := resolve.Query{Protocol: resolve.TCP, Src: netip.MustParseAddr("10.81.1.2"), Dst: netip.MustParseAddrPort("10.96.0.7:80")}
		target, verdict := before.mesh.table.Resolve(q)
		if verdict != resolve.Found {
			t.Fatal(verdict)
		}
		asked := time.Now()
		memory := before.Memory([]string{memoryAffinity, "later/1", memoryAnswers})
		if len(memory) != 3 {
			t.Fatalf("%q", memory)
		}
		if none := before.Memory([]string{"answers/2"}); len(none) != 0 {
			t.Errorf("of a kind that it does not know: %q", none)
		}
		memory = slices.Insert(memory, 0, handover.Memory{Kind: memoryAnswers, Data: json.RawMessage(`[]`)})
		r.remember(&handover.Taken{Memory: memory}, asked)
		for _, addr := range addrs {
			if got := r.bindings.Names("web-uid", addr); !slices.Equal(got, []string{"api.example.com"}) {
				t.Errorf("%s: %q", addr, got)
			}
			if got := r.bindings.Names("other", addr); len(got) != 0 {
				t.Errorf("a pod that is not here: %q", got)
			}
		}
		if all := r.mesh.table.Affinities(); len(all) != 1 || all[0].Endpoint != target.Pod || all[0].Left != time.Hour {
			t.Errorf("%+v, want %+v", all, target)
		}
	})
}

// Whatever the node can remember is handed over in messages that can be sent.
func TestMemoryComesInPiecesThatFit(t *testing.T) {
	const most = 120 << 10 // of 128 KiB
	var told []external.Told
	for i := range 2048 {
		label := strings.Repeat("n", 63) + "."
		name := fmt.Sprintf("%s%s%s%057d", label, label, label, i)
		told = append(told, external.Told{UID: strings.Repeat("u", 36), Name: name, Addr: netip.MustParseAddr("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"), Left: time.Hour})
	}
	told = append(told, external.Told{UID: "another", Name: "x", Addr: netip.MustParseAddr("192.0.2.1"), Left: time.Hour})
	pieces := encodeAnswers(told)
	var back []external.Told
	for _, p := range pieces {
		some, err := decodeAnswers(p.Data)
		if err != nil || len(p.Data) > most || p.Kind != memoryAnswers {
			t.Errorf("a piece of %d bytes: %v", len(p.Data), err)
		}
		back = append(back, some...)
	}
	slices.SortFunc(back, func(x, y external.Told) int { return strings.Compare(y.UID+x.Name, x.UID+y.Name) })
	if len(pieces) != 9 || !slices.Equal(back, told) {
		t.Errorf("%d pieces, %d answers of %d", len(pieces), len(back), len(told))
	}
	var all, again []resolve.Affinity
	for i := range 2*affinitiesPerPiece + 1 {
		long := netip.MustParseAddrPort("[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
		all = append(all, resolve.Affinity{Client: long.Addr(), Service: long, Protocol: resolve.UDP, Endpoint: long, Left: time.Duration(i) * time.Second})
	}
	for _, p := range encodeAffinities(all) {
		some, err := decodeAffinities(p.Data)
		if err != nil || len(p.Data) > most || p.Kind != memoryAffinity {
			t.Errorf("a piece of %d bytes: %v", len(p.Data), err)
		}
		again = append(again, some...)
	}
	if !slices.Equal(all, again) {
		t.Errorf("%d affinities of %d", len(again), len(all))
	}
}

func TestLifeIsNeverRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		-time.Hour: 0, 0: 0, time.Second - 1: 0, time.Second: 1, 90*time.Second + 999*time.Millisecond: 90, 1<<63 - 1: 1<<32 - 1,
	} {
		if got := seconds(d); got != want {
			t.Errorf("%s has %d s, want %d", d, got, want)
		}
	}
}

// What is read is whole, lasts within bounds, and is the same when it is handed
// on.
func FuzzMemory(f *testing.F) {
	for _, m := range []handover.Memory{
		answers("uid", "api.example.com", "192.0.2.1", 60), answers("uid", "*", "fe80::1%eth0", 1<<32-1), answers("", "", "", -1),
		affinity("10.81.1.2", "10.96.0.7:80", "[2001:db8::1]:5432", 60), affinity("::ffff:1.2.3.4", "", "1.2.3.4:70000", 0),
		{Data: json.RawMessage(`{"uid":"a","names":{"x":{"192.0.2.1":1,"192.0.2.1":2},"x":null}}`)},
		{Data: json.RawMessage(`[null,{}]`)},
		{Data: json.RawMessage(`null`)},
	} {
		f.Add([]byte(m.Data))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if told, err := decodeAnswers(raw); err == nil {
			for _, one := range told {
				if one.UID == "" || one.Name == "" || !plainAddr(one.Addr) || one.Left < 0 || one.Left > (1<<32-1)*time.Second {
					t.Fatalf("%q gives %+v", raw, one)
				}
			}
			var back []external.Told
			for _, p := range encodeAnswers(told) {
				some, err := decodeAnswers(p.Data)
				if err != nil {
					t.Fatal(err)
				}
				back = append(back, some...)
			}
			order := func(x, y external.Told) int {
				return strings.Compare(x.Name+" "+x.Addr.String(), y.Name+" "+y.Addr.String())
			}
			slices.SortFunc(told, order)
			slices.SortFunc(back, order)
			if !slices.Equal(told, back) {
				t.Fatalf("%+v became %+v", told, back)
			}
		}
		if all, err := decodeAffinities(raw); err == nil {
			var back []resolve.Affinity
			for _, p := range encodeAffinities(all) {
				some, err := decodeAffinities(p.Data)
				if err != nil {
					t.Fatal(err)
				}
				back = append(back, some...)
			}
			if !slices.Equal(all, back) {
				t.Fatalf("%+v became %+v", all, back)
			}
		}
	})
}

// BenchmarkMemory is all that a node can remember, there and back: new
// connections wait for it.
func BenchmarkMemory(b *testing.B) {
	var told []external.Told
	for i := range 131072 {
		told = append(told, external.Told{
			UID: fmt.Sprint("pod", i/2048), Name: fmt.Sprintf("name-%d.example.com", i/4), Addr: netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}), Left: time.Hour,
		})
	}
	var affinities []resolve.Affinity
	for i := range 65536 {
		pod := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 81, byte(i >> 8), byte(i)}), uint16(rand.IntN(65536)))
		affinities = append(affinities, resolve.Affinity{Client: pod.Addr(), Service: pod, Protocol: resolve.TCP, Endpoint: pod, Left: time.Hour})
	}
	for name, n := range map[string]int{"full": 1, "hundredth": 100} {
		b.Run(name, func(b *testing.B) {
			var size int
			for b.Loop() {
				size = 0
				for _, m := range append(encodeAnswers(told[:len(told)/n]), encodeAffinities(affinities[:len(affinities)/n])...) {
					size += len(m.Data)
					var err error
					if m.Kind == memoryAnswers {
						_, err = decodeAnswers(m.Data)
					} else {
						_, err = decodeAffinities(m.Data)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}
