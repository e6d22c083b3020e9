// SPDX-License-Identifier: Apache-2.0

package host

import (
	"strings"
	"testing"
)

func TestVerifySaysWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*testing.T, *Node)
		fails  string
		actual string
	}{
		"nothing": {change: func(*testing.T, *Node) {}},
		"another drop-in read later": {func(t *testing.T, n *Node) {
			put(t, n, "/etc/containerd/conf.d/zzz.toml", "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nBinaryName = '/usr/bin/runc'\n")
		}, "containerd's configuration", "/usr/bin/runc"},
		"a new runtime": {func(t *testing.T, n *Node) {
			put(t, n, "/etc/containerd/conf.d/99-v.toml", "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.vendor]\nruntime_type = 'io.containerd.runc.v2'\n")
		}, "containerd's configuration", "vendor"},
		"the validator off": {func(t *testing.T, n *Node) {
			put(t, n, "/etc/containerd/conf.d/zzz.toml", "version = 3\n[plugins.'io.containerd.nri.v1.nri']\ndisable = true\ndefault_validator = { enable = false }\n")
		}, "containerd's configuration", "NRI is disabled"},
		"a program exchanged":   {func(t *testing.T, n *Node) { put(t, n, RuntimeProg, "other") }, "installed files", RuntimeProg},
		"the network unchained": {func(t *testing.T, n *Node) { put(t, n, "/etc/cni/net.d/10-pods.conflist", bridgeConf) }, "network configuration", "0 times"},
		"never installed":       {func(t *testing.T, n *Node) { uninstall(t, n) }, "installation", "not installed"},
	} {
		t.Run(name, func(t *testing.T) {
			n := machine(t, ordinary())
			install(t, n)
			c.change(t, n)
			found := ""
			for _, f := range n.Verify() {
				if f.Result == Unknown {
					t.Errorf("%s is unknown: %s", f.Name, f.Actual)
				}
				if f.Result == Fail && f.Name == c.fails && strings.Contains(f.Actual, c.actual) && f.Remedy != "" {
					found = f.Name
				} else if f.Result == Fail && f.Name != "installed files" {
					t.Errorf("%s fails: %s", f.Name, f.Actual)
				}
			}
			if found != c.fails {
				t.Errorf("%q did not fail: %+v", c.fails, n.Verify())
			}
		})
	}
}

func TestStartedThroughCountsRunningContainers(t *testing.T) {
	set := ordinary()
	set["/run/containerd/io.containerd.runtime.v2.task/k8s.io/a/runtime"] = RuntimeProg
	set["/run/containerd/io.containerd.runtime.v2.task/k8s.io/b/runtime"] = "/usr/bin/runc"
	set["/run/containerd/io.containerd.runtime.v2.task/k8s.io/c/runtime"] = ""
	n := machine(t, set)
	if got, err := n.StartedThrough(); err != nil || got != 1 {
		t.Errorf("counted %d, %v", got, err)
	}
	if f := n.verifyStarted(); f.Result != Fail || !strings.HasPrefix(f.Actual, "2 that are not") || f.Remedy == "" {
		t.Errorf("with containers of before: %+v", f)
	}
	delete(set, "/run/containerd/io.containerd.runtime.v2.task/k8s.io/b/runtime")
	delete(set, "/run/containerd/io.containerd.runtime.v2.task/k8s.io/c/runtime")
	if f := machine(t, set).verifyStarted(); f.Result != Pass {
		t.Errorf("without: %+v", f)
	}
}
