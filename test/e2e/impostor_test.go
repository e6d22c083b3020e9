// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/agent"
	"github.com/c8s-dev/c8s/test/cluster"
	"github.com/c8s-dev/c8s/test/lab"
)

// A node whose software is not the measured one differs from an honest node
// in nothing else: same flags, same operators, same simulated vendor.
func TestUnmeasuredNodeNeverGetsACertificate(t *testing.T) {
	raw, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	patched := filepath.Join(t.TempDir(), "c8s-patched")
	if err := os.WriteFile(patched, append(raw, 0), 0o700); err != nil {
		t.Fatal(err)
	}
	c := newCluster(t, func(o *cluster.Options) {
		o.Nodes = append(o.Nodes, "node-evil")
		o.Impostors = map[string]string{"node-evil": patched}
	})
	evil := c.Node("node-evil")
	pod := addPod(t, evil, "client", lab.Routed)
	if err := pod.WaitState(t.Context(), agent.StateAdmitted, "node-not-enrolled"); err != nil {
		t.Fatal(err)
	}
	var status *agent.Status
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if status, err = evil.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status.Node.Error != "" || time.Now().After(deadline) {
			break
		}
	}
	if status.Node.ID != "" || !strings.Contains(status.Node.Error, "measurement") {
		t.Errorf("node-evil: ID %q, error %q; want no ID and a refusal that names the measurement", status.Node.ID, status.Node.Error)
	}
	if !strings.Contains(c.CDS[0].Log(), `"code":"measurement"`) {
		t.Errorf("the CDS's log does not say why it refused:\n%s", c.CDS[0].Log())
	}
}
