// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
)

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
