// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/datapath/flow"
	"github.com/c8s-dev/c8s/test/stack"
)

// Status is what `c8s status` says on a node.
func (s *Site) Status(ctx context.Context, n *stack.Node) (*agent.Status, error) {
	out, err := n.Run(ctx, s.program("c8s"), "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var status agent.Status
	if err := json.Unmarshal([]byte(out), &status); err != nil {
		return nil, fmt.Errorf("reading the status of %s: %w: %s", n.Name(), err, out)
	}
	return &status, nil
}

// Report is what somebody would look at when something does not work.
func (s *Site) Report(ctx context.Context) string {
	var out string
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp", "--field-selector=type=Warning"},
		{"logs", "-n", systemNamespace, "-l", "app.kubernetes.io/component=node", "-c", "install", "--prefix", "--tail=20"},
		{"logs", "-n", systemNamespace, "-l", "app.kubernetes.io/component=node", "-c", "node", "--prefix", "--tail=60"},
		{"logs", "-n", systemNamespace, "-l", "app.kubernetes.io/component=ingress", "--prefix", "--tail=60"},
		{"get", "gateways,httproutes,ingresses", "-A", "-o", "yaml"},
		{"logs", "-n", systemNamespace, "-l", "app.kubernetes.io/component=cds", "--all-containers", "--prefix", "--tail=20"},
	} {
		said, err := s.Kubectl(ctx, args...)
		out += fmt.Sprintf("\n$ kubectl %v\n%s", args, said)
		if err != nil {
			out += err.Error() + "\n"
		}
	}
	return out
}

// Flows are the connections a node remembers.
func (s *Site) Flows(ctx context.Context, n *stack.Node) ([]flow.Record, error) {
	out, err := n.Run(ctx, s.program("c8s"), "flows", "-n", "1000", "-o", "json")
	if err != nil {
		return nil, err
	}
	var records []flow.Record
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var r flow.Record
		if err := dec.Decode(&r); err != nil {
			return nil, fmt.Errorf("reading the flows of %s: %w", n.Name(), err)
		}
		records = append(records, r)
	}
	return records, nil
}

// Exec runs a command in a pod of the shop, as kubectl does.
func (s *Site) Exec(ctx context.Context, pod string, argv ...string) (string, error) {
	return s.Kubectl(ctx, append([]string{"exec", "-n", "shop", pod, "--"}, argv...)...)
}
