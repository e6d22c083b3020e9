// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/test/attacks"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

const attackCanary = "CANARY-e2e-3b0d7c-stolen"

// victims are everybody who would receive a canary if there were no lock: the
// tests of package attacks prove that they do.
func victims(t *testing.T, c *cluster.Cluster, from, peer *cluster.Pod) map[string]*attacks.Victim {
	t.Helper()
	outside, node := c.Lab.Outside("outside"), from.On.Lab
	all := map[string]*attacks.Victim{}
	for _, v := range []struct {
		name, link string
		host       *lab.Host
		pod        *cluster.Pod
	}{
		{"the host outside", lab.Uplink, outside, nil},
		{"the node", "", &node.Host, nil},
		{"the other pod", peer.Interface, nil, peer},
	} {
		var victim *attacks.Victim
		var err error
		if v.host != nil {
			victim, err = attacks.NewVictim(v.host.NS, v.link, []byte(attackCanary), v.host.Addr4, v.host.Addr6)
		} else {
			victim, err = attacks.NewVictim(v.pod.NS, v.link, []byte(attackCanary), v.pod.Addr4, v.pod.Addr6)
		}
		if err != nil {
			t.Fatal(err)
		}
		all[v.name] = victim
		t.Cleanup(func() {
			if err := victim.Close(); err != nil {
				t.Errorf("%s was not watched completely: %v", v.name, err)
			}
		})
	}
	return all
}

func TestNoAttackFromAPodGetsOut(t *testing.T) {
	c := newCluster(t)
	node := c.Nodes[0]
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		t.Run(kind.String(), func(t *testing.T) {
			attacker := openPod(t, node, "client", kind)
			// A neighbour on the same bridge is the one whom link-layer attacks could reach.
			neighbour := openPod(t, node, "server", kind)
			watched := victims(t, c, attacker, neighbour)
			outside := c.Lab.Outside("outside")
			env := attacks.Env{
				Interface: attacker.Interface, Src4: attacker.Addr4, Src6: attacker.Addr6,
				Spoof4: neighbour.Addr4, Spoof6: neighbour.Addr6, Outside4: outside.Addr4, Outside6: outside.Addr6,
				Peer4: neighbour.Addr4, Peer6: neighbour.Addr6, Node4: node.Lab.Addr4, Node6: node.Lab.Addr6,
				Canary: []byte(attackCanary), Wait: 100 * time.Millisecond,
			}
			for _, attack := range attacks.All() {
				t.Run(attack.Name, func(t *testing.T) { tryAttack(t, node, attacker, attack, env, watched) })
			}
			// What arrives late is still an escape.
			time.Sleep(300 * time.Millisecond)
			for name, v := range watched {
				if n := v.Hits(); n > 0 {
					t.Errorf("%d packets with the canary reached %s: %v", n, name, v.Report().Canaries)
				}
			}
			for _, p := range []*cluster.Pod{attacker, neighbour} {
				if err := node.RemovePod(p); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// ownAnswers is how many questions of pods the node has answered without asking
// anybody.
func ownAnswers(s *agent.Status) (n uint64) {
	for _, count := range s.DNS.Queries {
		n += count
	}
	return n - s.DNS.Questions
}

func tryAttack(t *testing.T, node *cluster.Node, from *cluster.Pod, attack attacks.Attack, env attacks.Env, watched map[string]*attacks.Victim) {
	before, err := node.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hits := map[string]uint64{}
	for name, v := range watched {
		hits[name] = v.Hits()
	}
	var result attacks.Result
	err = from.Do(func() error {
		var err error
		result, err = attack.Run(t.Context(), env)
		return err
	})
	if err != nil {
		t.Fatalf("the attack could not be made: %v", err)
	}
	if result.Replied {
		t.Errorf("%s: an answer came back", result.Tried)
	}
	for name, v := range watched {
		if v.Hits() > hits[name] {
			t.Errorf("%s: it reached %s", result.Tried, name)
		}
	}
	if attack.ExpectReason == "" || attack.ExpectReason == attacks.ReasonNoListener { // the daemon takes datagrams, and refuses them itself
		return
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		after, err := node.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if after.Drops[attack.ExpectReason] > before.Drops[attack.ExpectReason] {
			return
		}
		// With a daemon that takes UDP it is the daemon that refuses.
		if attack.ExpectReason == attacks.ReasonNoListener && (after.UDP.Refused > before.UDP.Refused || ownAnswers(after) > ownAnswers(before)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: the kernel did not count %s; before %v, after %v", result.Tried, attack.ExpectReason, before.Drops, after.Drops)
		}
	}
}
