// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// onEtcd is three replicas of the CDS on three members of etcd.
func onEtcd(t *testing.T) func(*cluster.Options) {
	t.Helper()
	binary := etcdBinary(t)
	return func(o *cluster.Options) { o.Replicas, o.Etcd, o.EtcdBinary = 3, 3, binary }
}

// site is a cluster whose pods talk, with something to do for its CDS.
type site struct {
	*cluster.Cluster
	client, server *cluster.Pod
	to             netip.AddrPort
}

func newSite(t *testing.T, change ...func(*cluster.Options)) *site {
	t.Helper()
	s := &site{Cluster: newCluster(t, change...)}
	s.client, s.server = openPod(t, s.Nodes[0], "client", lab.Routed), openPod(t, s.Nodes[1], "server", lab.Bridged)
	serveEcho(t, s.server)
	s.to = netip.AddrPortFrom(s.server.Addr4, echoPort)
	return s
}

// mustIssue has a new pod certified on each node, and a manifest published, and
// says how long they took.
func (s *site) mustIssue(t *testing.T, after string) {
	t.Helper()
	began := time.Now()
	for _, n := range s.Nodes {
		p := addPod(t, n, "stranger", lab.Routed)
		if err := p.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
			t.Fatalf("%s: a new pod: %v", after, err)
		}
		t.Logf("%s: a new pod on %s is open after %s", after, n.Lab.Name, since(began))
		if err := n.RemovePod(p); err != nil {
			t.Fatal(err)
		}
	}
	s.mustPublish(t, after)
}

// mustPublish publishes a manifest, as often as it takes, and waits for all
// nodes to have it.
func (s *site) mustPublish(t *testing.T, after string) {
	t.Helper()
	began := time.Now()
	change := func(m *policy.Manifest) { m.Workloads[2].HostAccess = !m.Workloads[2].HostAccess }
	done, err := s.Offer(t.Context(), change)
	for ; err != nil; done, err = s.Offer(t.Context(), change) {
		if time.Since(began) > time.Minute {
			t.Fatalf("%s: publishing: %v", after, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%s: a manifest is published after %s", after, since(began))
	if err := s.WaitManifest(t.Context(), done.Version); err != nil {
		t.Fatalf("%s: %v", after, err)
	}
	t.Logf("%s: and in force on the nodes after %s", after, since(began))
}

func since(began time.Time) time.Duration { return time.Since(began).Round(time.Millisecond) }

// keys is the digest of what the CDS signs with, by the word of one replica.
func keys(t *testing.T, c *cluster.Cluster, r *cluster.Replica) policy.Digest {
	t.Helper()
	cl, err := c.Client(r)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := cl.Documents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer docs.Close()
	return docs.Bundle().Digest()
}

func restart(t *testing.T, r *cluster.Replica) {
	t.Helper()
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func kill(t *testing.T, rs ...interface{ Kill() error }) {
	t.Helper()
	for _, r := range rs {
		if err := r.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReplicasOnEtcd(t *testing.T) {
	t.Parallel() // it waits most of the time
	s := newSite(t, onEtcd(t))
	ca := keys(t, s.Cluster, s.CDS[0])
	for _, r := range s.CDS[1:] {
		if other := keys(t, s.Cluster, r); other != ca {
			t.Fatalf("%s has keys %s, the first replica %s", r.Host.Name, other, ca)
		}
	}
	t.Run("any replica may die", s.anyReplicaMayDie)
	t.Run("two replicas may die", s.twoReplicasMayDie)
	t.Run("etcd's leader may die", s.leaderMayDie)
	t.Run("a replica cut off from etcd", s.replicaCutOff)
	t.Run("a replica's host vanishes", s.replicaVanished)
	t.Run("etcd without a quorum", s.quorumLost)
	t.Run("all replicas may die", func(t *testing.T) { s.allMayDie(t, ca) })
	for name, log := range s.Saying(`"newCA":true`) {
		t.Errorf("%s saw another CA:\n%s", name, log)
	}
}

func (s *site) anyReplicaMayDie(t *testing.T) {
	for _, r := range s.CDS {
		talk := startTraffic(t, s.client, s.to)
		kill(t, r)
		s.mustIssue(t, r.Host.Name+" dead")
		talk.mustFlow(t)
		began := time.Now()
		restart(t, r)
		t.Logf("%s is ready %s after its start", r.Host.Name, since(began))
		if !strings.Contains(r.Log(), `"by":"join"`) {
			t.Errorf("%s did not get the secret from another replica:\n%s", r.Host.Name, r.Log())
		}
	}
}

func (s *site) twoReplicasMayDie(t *testing.T) {
	talk := startTraffic(t, s.client, s.to)
	kill(t, s.CDS[0], s.CDS[1])
	s.mustIssue(t, "two replicas dead")
	talk.mustFlow(t)
	for _, r := range s.CDS[:2] {
		restart(t, r)
	}
}

func (s *site) leaderMayDie(t *testing.T) {
	leader, err := s.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	talk := startTraffic(t, s.client, s.to)
	kill(t, leader)
	s.mustIssue(t, "etcd's leader dead")
	talk.mustFlow(t)
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	if err := leader.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A node that watches this replica hears no news from it any more. The replica
// says so, and the node hears them all the same.
func (s *site) replicaCutOff(t *testing.T) {
	r := s.watched(t)
	talk := startTraffic(t, s.client, s.to)
	began := time.Now()
	if err := r.CutFrom(t.Context(), s.EtcdHosts()...); err != nil {
		t.Fatal(err)
	}
	s.mustIssue(t, "a watched replica cut off from etcd")
	if err := r.WaitNotReady(t.Context(), storeAway); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is not ready %s after it was cut off", r.Host.Name, since(began))
	talk.mustFlow(t)
	s.heal(t, r)
}

// Nobody is told that a host has vanished: connections to it just fall silent.
func (s *site) replicaVanished(t *testing.T) {
	r := s.watched(t)
	talk := startTraffic(t, s.client, s.to)
	if err := r.CutFrom(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.mustIssue(t, "the host of a watched replica gone")
	talk.mustFlow(t)
	s.heal(t, r)
}

func (s *site) heal(t *testing.T, r *cluster.Replica) {
	t.Helper()
	if err := r.Heal(t.Context()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := r.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s is ready %s after it was healed", r.Host.Name, since(began))
}

const storeAway = "the store does not answer"

// watched is a replica that a node follows.
func (s *site) watched(t *testing.T) *cluster.Replica {
	t.Helper()
	for _, r := range s.CDS {
		metrics, err := r.Metrics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(metrics, "c8s_cds_watchers") && !strings.Contains(metrics, "c8s_cds_watchers 0") {
			return r
		}
	}
	t.Fatal("no node watches any replica")
	return nil
}

func (s *site) quorumLost(t *testing.T) {
	talk := startTraffic(t, s.client, s.to)
	kill(t, s.Etcd[0], s.Etcd[1])
	began := time.Now()
	late := addPod(t, s.Nodes[0], "stranger", lab.Routed)
	for _, r := range s.CDS {
		if err := r.WaitNotReady(t.Context(), storeAway); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("no replica is ready %s after etcd lost its quorum", since(began))
	began = time.Now()
	if _, err := s.Offer(t.Context(), func(m *policy.Manifest) { m.Workloads[2].HostAccess = !m.Workloads[2].HostAccess }); err == nil {
		t.Error("a manifest was published without a quorum")
	} else {
		t.Logf("a manifest is refused after %s: %v", since(began), err)
	}
	if err := late.WaitState(t.Context(), agent.StateAdmitted, ""); err != nil {
		t.Fatal(err)
	}
	talk.mustFlow(t)
	for _, m := range s.Etcd[:2] {
		if err := m.Start(); err != nil {
			t.Fatal(err)
		}
	}
	began = time.Now()
	for _, r := range s.CDS {
		if err := r.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("all replicas are ready %s after etcd was started again", since(began))
	if err := late.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
		t.Fatal(err)
	}
	t.Logf("the waiting pod is open after %s", since(began))
	if err := s.Nodes[0].RemovePod(late); err != nil {
		t.Fatal(err)
	}
	s.mustPublish(t, "quorum back")
}

func (s *site) allMayDie(t *testing.T, ca policy.Digest) {
	before, err := s.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	talk := startTraffic(t, s.client, s.to)
	for _, r := range s.CDS {
		kill(t, r)
	}
	late := addPod(t, s.Nodes[0], "stranger", lab.Routed)
	if err := late.WaitState(t.Context(), agent.StateAdmitted, "enrolment-failed"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var unsealed bool
	for _, r := range s.CDS {
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range s.CDS {
		if err := r.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := keys(t, s.Cluster, r); got != ca {
			t.Errorf("%s has keys %s, before they were %s", r.Host.Name, got, ca)
		}
		unsealed = unsealed || strings.Contains(r.Log(), `"by":"unseal"`)
	}
	if !unsealed {
		t.Error("no replica unsealed the secret")
	}
	if err := late.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
		t.Fatal(err)
	}
	t.Logf("the waiting pod is open %s after all replicas were started again", since(began))
	talk.mustFlow(t)
	after, err := s.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !after.NotAfter.Equal(before.NotAfter) {
		t.Errorf("the client's certificate ends %s, before it was %s: a running pod needs no other", after.NotAfter, before.NotAfter)
	}
	s.mustIssue(t, "all replicas back")
	newAuditor(t, s.Cluster).audit(t)
}
