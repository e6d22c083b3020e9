// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"errors"
	"os"
	"testing"

	"github.com/c8s-dev/c8s/test/privileged"
	"github.com/c8s-dev/c8s/test/stack/component"
)

// NewNode makes a node for a test, which is closed when the test ends. The
// logs of a failed test's node are shown. It skips the test without root or
// without the programs, where skipping is allowed.
func NewNode(t testing.TB, cfg NodeConfig) *Node {
	t.Helper()
	privileged.Require(t)
	n, err := Up(t.Context(), cfg)
	if errors.Is(err, component.ErrNotBuilt) {
		privileged.Missing(t, os.Getenv(privileged.RequireEnv), err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of node %s:\n%s", n.Name(), n.Logs())
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// TestFabric makes a network for nodes that a test makes after it.
func TestFabric(t testing.TB) *Fabric {
	t.Helper()
	privileged.Require(t)
	f, err := NewFabric()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// NewCluster makes a cluster for a test, under the rules of NewNode.
func NewCluster(t testing.TB, cfg ClusterConfig) *Cluster {
	t.Helper()
	privileged.Require(t)
	c, err := UpCluster(t.Context(), cfg)
	if errors.Is(err, component.ErrNotBuilt) {
		privileged.Missing(t, os.Getenv(privileged.RequireEnv), err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of the cluster:\n%s", c.Logs())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}
