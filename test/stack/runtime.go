// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"encoding/json"
	"fmt"

	"github.com/c8s-dev/c8s/host"
)

// ConfigureRuntime gives c8s-runtime its settings, for tests that start it
// without 'c8s node install'.
func (n *Node) ConfigureRuntime() error {
	l := host.DefaultLayout()
	settings, err := json.Marshal(host.RuntimeConfig{
		Runtime: "/usr/local/sbin/runc", Gate: l.Gate(), Operators: host.Operators, Manifest: host.Manifest,
		StateDir: l.StateDir, Containerd: l.Containerd,
	})
	if err == nil {
		err = n.WriteFile(host.RuntimeFile, settings, 0o600)
	}
	if err != nil {
		return fmt.Errorf("giving c8s-runtime its settings: %w", err)
	}
	return nil
}
