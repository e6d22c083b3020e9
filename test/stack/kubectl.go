// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Kubectl runs kubectl on the control plane's machine as the administrator
// and returns its output.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.ControlPlane.Run(ctx, append([]string{"kubectl", "--kubeconfig", AdminConfig}, args...)...)
}

// Helm is Kubectl for helm.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	return c.ControlPlane.Run(ctx, append([]string{"helm", "--kubeconfig", AdminConfig}, args...)...)
}

// Apply makes the objects of a YAML text what they are there.
func (c *Cluster) Apply(ctx context.Context, yaml string) error {
	cmd := c.ControlPlane.Command(ctx, "kubectl", "--kubeconfig", AdminConfig, "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(yaml)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("applying to the cluster: %w: %s", err, out)
	}
	return nil
}

// Rollout waits until a workload ("deployment/web") is as it should be in all
// its pods.
func (c *Cluster) Rollout(ctx context.Context, workload string, args ...string) error {
	_, err := c.Kubectl(ctx, append([]string{"rollout", "status", workload, "--timeout", patience.String()}, args...)...)
	return err
}

// nodeReady fails until a worker can take pods.
func (c *Cluster) nodeReady(ctx context.Context, name string) error {
	body, err := c.Get(ctx, "/api/v1/nodes/"+name)
	if err != nil {
		return err
	}
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(body, &node); err != nil {
		return fmt.Errorf("reading node %s: %w", name, err)
	}
	for _, cond := range node.Status.Conditions {
		if cond.Type == "Ready" && cond.Status == "True" {
			return nil
		}
	}
	return fmt.Errorf("node %s is not ready: %+v", name, node.Status.Conditions)
}
