// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// awayLife is how long certificates live here: several renewals fit into the
// test, and so does their end.
const awayLife = 15 * time.Second

func TestWithoutTheCDSPodsTalkUntilTheirCertificatesEnd(t *testing.T) {
	t.Parallel() // it waits most of the time
	s := newSite(t, func(o *cluster.Options) {
		o.CDSFlags = []string{"--certificate-life", awayLife.String()}
	})
	kill(t, s.CDS[0])
	first, last := s.ends(t)
	late := addPod(t, s.Nodes[0], "stranger", lab.Routed)
	if err := late.WaitState(t.Context(), agent.StateAdmitted, "enrolment-failed"); err != nil {
		t.Fatal(err)
	}
	talked := 0
	for time.Until(first) > time.Second {
		conn, err := greeted(t.Context(), s.client, s.to)
		if err == nil {
			err = roundTrip(conn)
			conn.Close()
		}
		if err != nil {
			t.Fatalf("connection %d, %s before the first certificate ends: %v", talked, time.Until(first), err)
		}
		talked++
		time.Sleep(trafficEvery)
	}
	if talked == 0 {
		t.Fatalf("a certificate ends %s after the CDS was killed, which leaves nothing to see", first)
	}
	t.Logf("%d connections without the CDS", talked)

	for {
		conn, err := greeted(t.Context(), s.client, s.to)
		if err != nil {
			break
		}
		conn.Close()
		if time.Since(last) > expirySlack {
			t.Fatalf("they talk %s after their certificates have ended", time.Since(last))
		}
		time.Sleep(trafficEvery)
	}
	for _, p := range []*cluster.Pod{s.client, s.server} {
		if err := p.WaitState(t.Context(), agent.StateAdmitted, "enrolment-failed"); err != nil {
			t.Error(err)
		}
	}
	if conn, err := greeted(t.Context(), s.client, s.to); err == nil {
		conn.Close()
		t.Error("a pod without a certificate got a connection")
	}
	if err := late.WaitState(t.Context(), agent.StateAdmitted, "enrolment-failed"); err != nil {
		t.Error(err)
	}

	restart(t, s.CDS[0])
	began := time.Now()
	for _, p := range []*cluster.Pod{s.client, s.server, late} {
		if err := p.WaitState(t.Context(), agent.StateOpen, ""); err != nil {
			t.Fatal(err)
		}
	}
	s.mustTalkAgain(t)
	t.Logf("they talk again %s after the CDS is ready", since(began))
	_, end := s.ends(t)
	for deadline := time.Now().Add(2 * awayLife); ; time.Sleep(trafficEvery) {
		if _, now := s.ends(t); now.After(end) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("renewals are not resumed")
		}
	}
}

// ends is when the first and the last of the two pods' certificates end.
func (s *site) ends(t *testing.T) (first, last time.Time) {
	t.Helper()
	for _, p := range []*cluster.Pod{s.client, s.server} {
		status, err := p.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if status.NotAfter.IsZero() {
			t.Fatalf("%s is %s (%s %s)", p.Name, status.State, status.Reason, status.Detail)
		}
		if first.IsZero() || status.NotAfter.Before(first) {
			first = status.NotAfter
		}
		if status.NotAfter.After(last) {
			last = status.NotAfter
		}
	}
	return first, last
}
