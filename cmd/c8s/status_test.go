// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
)

func TestStatusShowsWhatServicesPassOver(t *testing.T) {
	now := time.Now()
	var out strings.Builder
	s := &agent.Status{Avoided: []agent.Avoided{
		{Node: netip.MustParseAddr("10.80.0.3"), Reason: "node-unreachable", Since: now.Add(-time.Minute), Failures: 3},
		{Node: netip.MustParseAddr("10.80.0.2"), Endpoint: netip.MustParseAddrPort("10.81.2.9:80"), Workload: "web", Reason: "peer-address", Since: now, Failures: 1},
	}}
	for range 30 {
		s.Avoided = append(s.Avoided, agent.Avoided{Reason: "handshake-failed"})
	}
	if err := writeStatus(&out, s, now); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"all pods of the node 10.80.0.3 everybody 1m0s ago 3 node-unreachable", "10.81.2.9:80 10.80.0.2 web 0s ago 1 peer-address", "and 12 more: c8s status -o json",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := writeStatus(&out, &agent.Status{}, now); err != nil || strings.Contains(out.String(), "PASSED OVER") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestStatusSaysWhichDaemonAnswersAndWhyItIsNotReady(t *testing.T) {
	for name, tt := range map[string]struct {
		node agent.NodeStatus
		want []string
		not  string
	}{
		"ready":      {agent.NodeStatus{Version: "1.0"}, []string{"Daemon    1.0"}, "Ready"},
		"in a pod":   {agent.NodeStatus{Version: "1.0", Instance: "c8s-node-x"}, []string{"Daemon    c8s-node-x, 1.0"}, "Ready"},
		"not ready":  {agent.NodeStatus{Version: "1.0", NotReady: "no NRI"}, []string{"Ready     no: no NRI"}, "failing"},
		"not at all": {agent.NodeStatus{Version: "1.0", NotReady: "not enrolled", Error: "refused"}, []string{"Ready     no: not enrolled", "Enrolment failing: refused"}, "yes"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if err := writeStatus(&out, &agent.Status{Node: tt.node}, time.Now()); err != nil {
				t.Fatal(err)
			}
			head, _, _ := strings.Cut(out.String(), "\n\n")
			for _, want := range tt.want {
				// Columns are as wide as the widest word.
				if !strings.Contains(strings.Join(strings.Fields(head), " "), strings.Join(strings.Fields(want), " ")) {
					t.Errorf("no %q in\n%s", want, head)
				}
			}
			if strings.Contains(head, tt.not) {
				t.Errorf("%q in\n%s", tt.not, head)
			}
		})
	}
}

func TestStatusSaysThatTheLockWasDamaged(t *testing.T) {
	for damage, want := range map[agent.RestoredStatus]bool{{}: false, {Pins: 3}: true, {Programs: 1}: true} {
		var out strings.Builder
		if err := writeStatus(&out, &agent.Status{Restored: damage}, time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "damaged"); got != want {
			t.Errorf("%+v: said %t\n%s", damage, got, out.String())
		}
	}
}
