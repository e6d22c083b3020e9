// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// traces are what a node has on the machine.
func traces(t *testing.T, id, dir string) []string {
	t.Helper()
	var left []string
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(locks, id)} {
		if _, err := os.Stat(path); err == nil {
			left = append(left, path)
		}
	}
	for _, h := range all {
		if _, err := os.Stat(filepath.Join(h.mount, id)); err == nil {
			left = append(left, filepath.Join(h.mount, id))
		}
	}
	return left
}

// network keeps a network namespace, whose number could otherwise be that of
// somebody else's soon after it is gone, and lists the processes in it.
func network(t *testing.T, pid int) func() []int {
	t.Helper()
	path := "/proc/" + strconv.Itoa(pid) + "/ns/net"
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	want, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return func() []int {
		var pids []int
		all, err := filepath.Glob("/proc/[0-9]*/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all {
			if got, err := os.Readlink(path); err == nil && got == want {
				pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
				pids = append(pids, pid)
			}
		}
		return pids
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	n := NewNode(t, NodeConfig{})
	appImage(t, n)
	a := runApp(t, n, "a", "serve")
	status, err := a.Pod.cri.Runtime.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: a.ID, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(status.Info["info"]), &info); err != nil || info.Pid == 0 {
		t.Fatalf("no pid in %v (%v)", status.Info, err)
	}
	ofNode, ofPod := network(t, n.Pid()), network(t, info.Pid)
	if node, pod := ofNode(), ofPod(); len(node) < 2 || len(pod) < 2 || slices.Contains(node, info.Pid) {
		t.Fatalf("processes %v are on the node's network and %v on the pod's: this test looks in the wrong places", node, pod)
	}
	if got := traces(t, n.scratch.id, n.scratch.dir); len(got) < 3 {
		t.Fatalf("a living node's traces are %v: this test looks in the wrong places", got)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if left := traces(t, n.scratch.id, n.scratch.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if pids := append(ofNode(), ofPod()...); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
}
