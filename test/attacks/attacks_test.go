// SPDX-License-Identifier: Apache-2.0

package attacks_test

import (
	"bytes"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/attacks"
	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/capture"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// field is a lab with an attacker, its peer and a third pod on one node.
type field struct {
	node                  *lab.Node
	attacker, peer, third *lab.Pod
	outside               *lab.Host
}

func newField(t *testing.T, kind lab.Kind) field {
	t.Helper()
	l := labtest.New(t, lab.Options{Name: "attacks", Nodes: []lab.NodeSpec{{Name: "a"}}, Outside: []string{"thief"}})
	n := l.Node("a")
	return field{
		node:     n,
		attacker: labtest.Pod(t, n, lab.PodSpec{Name: "attacker", Kind: kind}),
		peer:     labtest.Pod(t, n, lab.PodSpec{Name: "peer", Kind: kind}),
		third:    labtest.Pod(t, n, lab.PodSpec{Name: "third", Kind: kind}),
		outside:  l.Outside("thief"),
	}
}

func (f field) env(canary []byte) attacks.Env {
	return attacks.Env{
		Src4: f.attacker.Addr4, Src6: f.attacker.Addr6, Spoof4: f.third.Addr4, Spoof6: f.third.Addr6,
		Outside4: f.outside.Addr4, Outside6: f.outside.Addr6, Peer4: f.peer.Addr4, Peer6: f.peer.Addr6,
		Node4: f.node.Addr4, Node6: f.node.Addr6, Canary: canary,
	}
}

// victim watches where the attack's canary has to arrive.
func (f field) victim(t *testing.T, target attacks.Target, canary []byte) *attacks.Victim {
	t.Helper()
	ns, iface, addrs := f.outside.NS, lab.Uplink, []netip.Addr{f.outside.Addr4, f.outside.Addr6}
	switch target {
	case attacks.Peer:
		ns, iface, addrs = f.peer.NS, f.peer.Interface, f.peer.Addrs()
	case attacks.Node:
		ns, iface, addrs = f.node.NS, "", []netip.Addr{f.node.Addr4, f.node.Addr6}
	case attacks.Segment:
		ns, iface, addrs = f.peer.NS, f.peer.Interface, nil
		if f.attacker.Kind == lab.Routed { // the node is the only neighbour
			ns, iface = f.node.NS, f.attacker.HostLink
		}
	}
	v, err := attacks.NewVictim(ns, iface, canary, addrs...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func waitForHit(v *attacks.Victim) bool {
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if v.Hits() > 0 {
			return true
		}
	}
	return false
}

func TestEveryAttackReachesItsVictimWithoutALock(t *testing.T) {
	answering := regexp.MustCompile(`^(tcp|udp|dns|icmp)-`)
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		t.Run(kind.String(), func(t *testing.T) {
			f := newField(t, kind)
			for _, a := range attacks.All() {
				t.Run(a.Name, func(t *testing.T) {
					canary := capture.NewCanary()
					v := f.victim(t, a.Target, canary)
					var r attacks.Result
					err := f.attacker.Do(func() (err error) {
						r, err = a.Run(t.Context(), f.env(canary))
						return err
					})
					if err != nil {
						t.Fatal(err)
					}
					if r.Refused != nil || r.Sent < len(canary) || r.Tried == "" {
						t.Errorf("the attacker saw %+v", r)
					}
					if !waitForHit(v) {
						t.Error("the canary did not arrive")
					}
					if want := answering.MatchString(a.Name); r.Replied != want {
						t.Errorf("replied is %t, want %t", r.Replied, want)
					}
					if err := v.Close(); err != nil {
						t.Error(err)
					}
				})
			}
		})
	}
}

// The counterpart: with the way out cut, no attack may claim an answer, none
// may hang, and the victim must see nothing. Otherwise the test above could
// pass by accident.
func TestNoAttackReachesItsVictimWhenTheLinkIsCut(t *testing.T) {
	f := newField(t, lab.Bridged)
	link, err := f.node.Netlink().LinkByName(f.attacker.HostLink)
	if err != nil {
		t.Fatal(err)
	}
	// Taking the port off the bridge would not do: the node then answers ARP
	// on it by itself and routes what comes.
	if err := f.node.Netlink().LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	canary := capture.NewCanary()
	var victims []*attacks.Victim
	for _, target := range []attacks.Target{attacks.Outside, attacks.Peer, attacks.Node} {
		victims = append(victims, f.victim(t, target, canary))
	}
	e := f.env(canary)
	e.Wait = 30 * time.Millisecond
	for _, a := range attacks.All() {
		if strings.HasPrefix(a.Name, "packet-") {
			continue // need a neighbour that answers, which a cut link has not
		}
		begin := time.Now()
		err := f.attacker.Do(func() error {
			r, err := a.Run(t.Context(), e)
			if r.Replied {
				t.Errorf("%s claims an answer: %+v", a.Name, r)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s took %v", a.Name, took)
		}
	}
	for _, v := range victims {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		if n := v.Hits(); n != 0 {
			t.Errorf("a victim saw %d canaries: %v", n, v.Report().Canaries)
		}
	}
}

func TestAttacksAreNamedUniquelyAndExpectKnownReasons(t *testing.T) {
	known := map[string]bool{
		"": true, attacks.ReasonSpoofedSource: true, attacks.ReasonNoListener: true, attacks.ReasonICMP: true,
		attacks.ReasonProtocol: true, attacks.ReasonEtherType: true, attacks.ReasonFragment: true,
		attacks.ReasonExtensionHeader: true, attacks.ReasonVLAN: true, attacks.ReasonNeighbourSpoof: true,
	}
	used, names := map[string]bool{}, map[string]bool{}
	kebab := regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)*$`)
	for _, a := range attacks.All() {
		if names[a.Name] || !kebab.MatchString(a.Name) || a.Description == "" {
			t.Errorf("attack %q is a duplicate, ill-named or undescribed", a.Name)
		}
		names[a.Name] = true
		if !known[a.ExpectReason] {
			t.Errorf("%s expects the unknown reason %q", a.Name, a.ExpectReason)
		}
		used[a.ExpectReason] = true
	}
	if len(used) != len(known) {
		t.Errorf("reasons provoked: %v, known: %v", used, known)
	}
	t.Logf("%d attacks", len(names))
}

func TestIncompleteEnvironmentIsRefused(t *testing.T) {
	valid := attacks.Env{
		Src4: addr("10.0.0.1"), Src6: addr("fd00::1"), Spoof4: addr("10.0.0.2"), Spoof6: addr("fd00::2"),
		Outside4: addr("10.0.0.3"), Outside6: addr("fd00::3"), Peer4: addr("10.0.0.4"), Peer6: addr("fd00::4"),
		Node4: addr("10.0.0.5"), Node6: addr("fd00::5"), Canary: []byte("canary-canary"),
	}
	for name, change := range map[string]func(*attacks.Env){
		"no peer":       func(e *attacks.Env) { e.Peer4 = netip.Addr{} },
		"wrong version": func(e *attacks.Env) { e.Src6 = e.Src4 },
		"short canary":  func(e *attacks.Env) { e.Canary = []byte("x") },
		"long canary":   func(e *attacks.Env) { e.Canary = bytes.Repeat([]byte("x"), 64) },
	} {
		e := valid
		change(&e)
		for _, a := range attacks.All() {
			if _, err := a.Run(t.Context(), e); err == nil {
				t.Errorf("%s: %s ran", name, a.Name)
			}
		}
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestEveryAttackIsDocumentedWithItsReason(t *testing.T) {
	doc, err := os.ReadFile("../../docs/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(doc)) {
		if cells := strings.Split(line, "|"); len(cells) == 7 {
			rows[strings.TrimSpace(cells[1])] = line
		}
	}
	for _, a := range attacks.All() {
		base := strings.TrimSuffix(strings.TrimSuffix(a.Name, "-4"), "-6")
		row := rows["`"+base+"`"]
		reason := "`" + a.ExpectReason + "`"
		if a.ExpectReason == "" {
			reason = "none (1)"
		}
		if !strings.Contains(row, "| "+a.Target.String()+" | "+reason+" |") {
			t.Errorf("docs/lab.md has no row for %s with victim %s and reason %q, but %q", a.Name, a.Target, reason, row)
		}
	}
}
