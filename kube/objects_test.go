// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/c8s-dev/c8s/datapath/resolve"
)

var byValue = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.AllowUnexported(sliceInfo{}, serviceInfo{}, namedPort{}, endpointInfo{}),
}

func decode[T runtime.Object](t testing.TB, into T, raw string) T {
	t.Helper()
	if _, _, err := codecs().UniversalDeserializer().Decode([]byte(raw), nil, into); err != nil {
		t.Fatal(err)
	}
	return into
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestOnlyPodsWithAddressesOfTheirOwn(t *testing.T) {
	const usual = `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"d"},"spec":{"nodeName":"b"},"status":{"phase":"Running","podIPs":[{"ip":"10.1.2.3"},{"ip":"fd00::3"}]}}`
	want := resolve.Pod{Name: "d/p", Node: "b", Addrs: []netip.Addr{ip("10.1.2.3"), ip("fd00::3")}}
	for change, want := range map[string]*resolve.Pod{
		``:                             &want,
		`"nodeName":"b"→"nodeName":""`: nil, // not scheduled
		`"nodeName"→"hostNetwork":true,"nodeName"`: nil,
		`Running→Succeeded`:                        nil,
		`Running→Failed`:                           nil,
		`Running→Pending`:                          &want,
		`"podIPs":[{"ip":"10.1.2.3"},{"ip":"fd00::3"}]→"podIPs":[]`:             nil,
		`"podIPs":[{"ip":"10.1.2.3"},{"ip":"fd00::3"}]→"podIP":"10.1.2.3"`:      {Name: "d/p", Node: "b", Addrs: []netip.Addr{ip("10.1.2.3")}},
		`"ip":"fd00::3"→"ip":"fd00::zz"`:                                        {Name: "d/p", Node: "b", Addrs: []netip.Addr{ip("10.1.2.3")}},
		`"name":"p"→"name":"p","deletionTimestamp":"2026-01-02T03:04:05Z"`:      {Name: "d/p", Node: "b", Addrs: want.Addrs, Leaving: true},
		`"status":{→"somethingNew":{"x":[1]},"status":{"conditions":[{"a":1}],`: &want,
		`{"ip":"fd00::3"}→` + strings.TrimSuffix(strings.Repeat(`{"ip":"fd00::3"},`, 100), ","): {
			Name: "d/p", Node: "b", Addrs: append([]netip.Addr{ip("10.1.2.3")}, slices.Repeat([]netip.Addr{ip("fd00::3")}, maxAddrs-1)...),
		},
	} {
		from, to, _ := strings.Cut(change, "→")
		got, keep := podOf(decode(t, &pod{}, strings.Replace(usual, from, to, 1)))
		if keep != (want != nil) || keep && !cmp.Equal(got, *want, byValue) {
			t.Errorf("%s: %v, %+v", change, keep, got)
		}
	}
}

func TestNodesAreReachedAtTheirFirstInternalAddressOfTheFamily(t *testing.T) {
	for _, tt := range []struct {
		addresses  string
		v4, v6     string
		allOfThem  int
		nodeOfName string
	}{
		{addresses: `[{"type":"InternalIP","address":"10.0.0.1"},{"type":"InternalIP","address":"10.0.0.2"},{"type":"InternalIP","address":"fd00::1"}]`, v4: "10.0.0.1", v6: "fd00::1", allOfThem: 3},
		{addresses: `[{"type":"ExternalIP","address":"192.0.2.1"},{"type":"Hostname","address":"b"},{"type":"InternalIP","address":"fd00::1"}]`, v4: "fd00::1", v6: "fd00::1", allOfThem: 2},
		{addresses: `[{"type":"Hostname","address":"b"}]`},
	} {
		n := decode(t, &node{}, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"b","labels":{"topology.kubernetes.io/zone":"z1","x":"y"}},"spec":{"podCIDRs":["10.1.2.0/24","nonsense"]},"status":{"addresses":`+tt.addresses+`}}`)
		if _, err := trim(n); err != nil || len(n.Labels) != 1 {
			t.Errorf("%v, labels %v", err, n.Labels)
		}
		for ipv4, want := range map[bool]string{true: tt.v4, false: tt.v6} {
			got, keep := nodeOf(n, ipv4)
			var addr netip.Addr
			if want != "" {
				addr = ip(want)
			}
			if !keep || got.Name != "b" || got.Zone != "z1" || got.Addr != addr || len(got.Addrs) != tt.allOfThem || len(got.Pods) != 1 {
				t.Errorf("IPv4 %v: %+v", ipv4, got)
			}
		}
	}
}

func TestTrimKeepsWhatIsNeeded(t *testing.T) {
	s := decode(t, &endpointSlice{}, sliceJSON)
	before, _ := sliceOf(s)
	if _, err := trim(s); err != nil {
		t.Fatal(err)
	}
	if after, keep := sliceOf(s); !keep || !cmp.Equal(before, after, byValue) {
		t.Errorf("%+v", after)
	}
	if len(s.ManagedFields)+len(s.Annotations) > 0 || len(s.Labels) != 1 {
		t.Errorf("%+v", s.ObjectMeta)
	}
}

func TestCopiesShareNothing(t *testing.T) {
	for _, o := range []runtime.Object{
		decode(t, &endpointSlice{}, sliceJSON), decode(t, &service{}, serviceJSON),
		decode(t, &pod{}, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","labels":{"a":"b"}},"status":{"podIPs":[{"ip":"10.1.2.3"}]}}`),
		decode(t, &list[node]{}, `{"kind":"NodeList","apiVersion":"v1","items":[{"metadata":{"name":"p"},"spec":{"podCIDRs":["10.1.2.0/24"]}}]}`),
	} {
		before, err := json.Marshal(o)
		must(t, err)
		c := o.DeepCopyObject()
		if got, err := json.Marshal(c); err != nil || string(got) != string(before) {
			t.Errorf("the copy of %T differs: %s, %v", o, got, err)
		}
		switch c := c.(type) {
		case *endpointSlice:
			c.Labels["x"], c.Endpoints[0].Addresses[0], c.Ports[0].Name, c.Endpoints[0].Hints.ForZones[0].Name = "y", "z", "z", "z"
		case *service:
			c.Spec.ClusterIPs[0], c.Spec.ExternalIPs[0], c.Status.LoadBalancer.Ingress[0].IP, c.Spec.Ports[0].Name = "z", "z", "z", "z"
		case *pod:
			c.Labels["x"], c.Status.PodIPs[0].IP = "y", "z"
		case *list[node]:
			c.Items[0].Spec.PodCIDRs[0] = "z"
		}
		if after, err := json.Marshal(o); err != nil || string(after) != string(before) {
			t.Errorf("changing the copy of %T changed it: %s, %v", o, after, err)
		}
	}
}

func watcher(t testing.TB) (*Watcher, *resolve.Table) {
	t.Helper()
	w := &Watcher{line: newLine(time.Now, slog.New(slog.DiscardHandler))}
	w.nodes = newStore(w, 5, func(resolve.Node) int { return 1 }, func(n *node) (resolve.Node, bool) { return nodeOf(n, true) })
	w.pods = newStore(w, 5, func(resolve.Pod) int { return 1 }, podOf)
	w.services = newStore(w, 5, func(serviceInfo) int { return 1 }, serviceOf)
	w.slices = newStore(w, 20, func(s sliceInfo) int { return 1 + len(s.endpoints) }, sliceOf)
	for _, s := range []interface{ Replace([]any, string) error }{&w.nodes, &w.pods, &w.services, &w.slices} {
		must(t, s.Replace(nil, ""))
	}
	table, err := resolve.New(resolve.Config{Node: ip(nodeA), NodeName: "a", Rand: func() uint64 { return 7 }, Now: time.Now})
	must(t, err)
	return w, table
}

func TestStoresAreBounded(t *testing.T) {
	w, _ := watcher(t)
	made := func(i int) *pod {
		return decode(t, &pod{}, fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p%d"},"spec":{"nodeName":"b"},"status":{"podIP":"10.1.2.%d"}}`, i, i))
	}
	for i := range 9 {
		must(t, w.pods.Add(made(i)))
	}
	if len(w.pods.items) != 5 || w.pods.total != 5 || w.pods.crowded != 4 {
		t.Errorf("%d kept, weight %d, %d found no place", len(w.pods.items), w.pods.total, w.pods.crowded)
	}
	must(t, w.pods.Update(made(2))) // what is there already may change
	must(t, w.pods.Delete(made(0)))
	must(t, w.pods.Delete(made(0)))
	must(t, w.pods.Add(made(8)))
	if _, ok := w.pods.items["p8"]; !ok || w.pods.total != 5 {
		t.Errorf("a place that became free was not given away: %v", w.pods.items)
	}
	must(t, w.pods.Replace([]any{made(1), made(1)}, ""))
	if len(w.pods.items) != 1 || w.pods.total != 1 {
		t.Errorf("%d kept, weight %d", len(w.pods.items), w.pods.total)
	}
}

// A Service whose ports all have one name, before slices that do the same,
// must not become the product of the two.
func TestTablesAreBounded(t *testing.T) {
	ports := func(n int) string { return strings.TrimSuffix(strings.Repeat(`{"protocol":"TCP","port":80},`, n), ",") }
	s, _ := serviceOf(decode(t, &service{}, `{"kind":"Service","apiVersion":"v1","metadata":{"name":"web"},"spec":{"clusterIPs":["10.96.0.10"],"ports":[`+ports(900)+`]}}`))
	slice, _ := sliceOf(decode(t, &endpointSlice{}, `{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":"x","labels":{"kubernetes.io/service-name":"web"}},
"ports":[`+ports(900)+`],"endpoints":[{"addresses":["10.1.2.1"]},{"addresses":["10.1.2.2"]}]}`))
	count := func(s resolve.Service) (n int) {
		for _, p := range s.Ports {
			n += len(p.Endpoints)
		}
		return n
	}
	if joined, cut := join(s, []sliceInfo{slice}, 1000); count(joined) != 2 || cut != 0 {
		t.Errorf("%d endpoints of 2 pods, %d left out", count(joined), cut)
	}
	if joined, cut := join(s, slices.Repeat([]sliceInfo{slice}, 700), 1001); count(joined) != 1001 || cut != 399 {
		t.Errorf("%d endpoints and %d left out, want 1001 and 399", count(joined), cut)
	}
}

func TestUpdatesOfOtherFieldsMakeNoTable(t *testing.T) {
	w, _ := watcher(t)
	<-w.dirty
	p := decode(t, &pod{}, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"nodeName":"b"},"status":{"podIP":"10.1.2.3"}}`)
	must(t, w.pods.Add(p))
	<-w.dirty
	p.ResourceVersion, p.Status.Phase = "9", "Running"
	must(t, w.pods.Update(p))
	select {
	case <-w.dirty:
		t.Error("nothing changed that routing needs")
	default:
	}
}

// FuzzEvents: whatever the API server sends, in whatever order, nothing
// panics, sizes keep their bounds, and no answer is an address no pod can have.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(sliceJSON + "\n\n" + serviceJSON + "\n\n" + `-{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"}}`))
	f.Add([]byte(`{"kind":"Node","apiVersion":"v1","metadata":{"name":"b"},"status":{"addresses":[{"type":"InternalIP","address":"10.80.0.2"}]}}` + "\n\n" +
		`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"nodeName":"b"},"status":{"podIPs":[{"ip":"10.80.0.2"},{"ip":"127.0.0.1"}]}}`))
	f.Add([]byte(headlessJSON + "\n\n" + sliceJSON + "\n\n" + strings.Replace(sliceJSON, `"hostname":"db-0"`, `"hostname":"DB_0"`, 1)))
	f.Add([]byte(`{"kind":"NodeList","apiVersion":"v1","items":[{"metadata":{}}]}` + "\n\n" + `{"kind":"Status","apiVersion":"v1"}`))
	deserializer := codecs().UniversalDeserializer()
	f.Fuzz(func(t *testing.T, raw []byte) {
		w, table := watcher(t)
		for doc := range strings.SplitSeq(string(raw), "\n\n") {
			doc, remove := strings.CutPrefix(doc, "-")
			o, _, err := deserializer.Decode([]byte(doc), nil, nil)
			if err != nil {
				continue
			}
			for _, s := range []interface {
				Add(any) error
				Delete(any) error
			}{&w.nodes, &w.pods, &w.services, &w.slices} {
				op := s.Add
				if remove {
					op = s.Delete
				}
				if err := op(o); err != nil {
					break // without a name; the reflector logs it
				}
			}
		}
		c, ok := w.cluster()
		if !ok || w.slices.total > w.slices.most || len(w.pods.items) > w.pods.most {
			t.Fatal("the stores are not whole, or too large")
		}
		var asked []netip.AddrPort
		for _, p := range c.Pods {
			for _, a := range p.Addrs {
				asked = append(asked, netip.AddrPortFrom(a, 80))
			}
		}
		for _, s := range c.Services {
			for _, v := range s.VIPs {
				for _, p := range s.Ports {
					asked = append(asked, netip.AddrPortFrom(v, p.Port))
				}
			}
		}
		table.SetCluster(c)
		for _, s := range c.Services {
			namespace, name, _ := strings.Cut(s.Name, "/")
			v, _ := table.Service(namespace, name)
			for _, h := range v.Hosts {
				if strings.ContainsFunc(h.Name, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }) {
					t.Fatalf("%s has the endpoint %q", s.Name, h.Name)
				}
			}
		}
		for _, dst := range asked {
			target, v := table.Resolve(resolve.Query{Protocol: resolve.TCP, Src: ip("10.81.1.2"), Dst: dst})
			if a := target.Pod.Addr(); v == resolve.Found && (!a.IsGlobalUnicast() || a.Is4In6() || a == ip(nodeA) || !target.Node.IsGlobalUnicast()) {
				t.Fatalf("%s became %+v", dst, target)
			}
		}
	})
}

func BenchmarkCluster(b *testing.B) {
	w, table := watcher(b)
	w.nodes.most, w.pods.most, w.services.most, w.slices.most = 1e6, 1e6, 1e6, 1e6
	for i := range 500 {
		w.nodes.items[fmt.Sprint(i)] = resolve.Node{Name: fmt.Sprint(i), Addr: netip.AddrFrom4([4]byte{10, 80, byte(i >> 8), byte(i)})}
	}
	pod := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 128, byte(i >> 8), byte(i)}) }
	for i := range 10_000 {
		w.pods.items[fmt.Sprint(i)] = resolve.Pod{Name: fmt.Sprint("d/", i), Node: fmt.Sprint(i % 500), Addrs: []netip.Addr{pod(i)}}
	}
	for i := range 1000 {
		name := fmt.Sprint("d/s", i)
		w.services.items[name] = serviceInfo{
			service: resolve.Service{Name: name, VIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)})}}, ports: []namedPort{{name: "main", proto: resolve.TCP, port: 80}},
		}
		s := sliceInfo{service: name, ports: []namedPort{{name: "main", proto: resolve.TCP, port: 8080}}}
		for j := range 10 {
			s.endpoints = append(s.endpoints, endpointInfo{addr: pod(i*10 + j)})
		}
		w.slices.items[name] = s
	}
	b.ReportAllocs()
	began := time.Now()
	for b.Loop() {
		c, _ := w.cluster()
		if r := table.SetCluster(c); r.Ignored > 0 || r.Endpoints != 10_000 {
			b.Fatalf("%+v after %s", r, time.Since(began))
		}
	}
}
