// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/test/privileged"
)

// ownerEnv makes the test binary a program that makes a node and waits to be
// killed.
const ownerEnv = "C8S_STACK_TEST_OWNER"

func TestMain(m *testing.M) {
	if os.Getenv(ownerEnv) != "" {
		owner()
	}
	os.Exit(m.Run())
}

func owner() {
	n := &Node{cfg: NodeConfig{Name: "orphan", NoContainerd: true}}
	var err error
	if n.scratch, err = newScratch("orphan"); err == nil {
		if n.cgroups, err = newCgroups(n.scratch.id); err == nil {
			err = n.hold()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(n.scratch.id, n.scratch.dir)
	select {}
}

func TestSweepRemovesNodesOfDeadOwners(t *testing.T) {
	privileged.Require(t)
	living := NewNode(t, NodeConfig{Name: "living", NoContainerd: true})

	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), ownerEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var id, dir string
	if _, err := fmt.Fscan(bufio.NewReader(out), &id, &dir); err != nil {
		t.Fatal(err)
	}
	if got := traces(t, id, dir); len(got) < 3 {
		t.Fatalf("a living node's traces are %v", got)
	}
	if err := Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := traces(t, id, dir); len(got) < 3 {
		t.Fatalf("of a node whose owner lives, only %v is left", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	// The node ends without anybody's help; only what it has on disk is left.
	all, err := hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	events := filepath.Join(all[0].mount, id, "cgroup.events")
	err = Poll(t.Context(), "the node to end with its owner", func(context.Context) error {
		if b, err := os.ReadFile(events); err != nil || !strings.Contains(string(b), "populated 0") {
			return fmt.Errorf("%s has %q (%w)", events, b, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := traces(t, id, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if out, err := living.Run(t.Context(), "true"); err != nil {
		t.Errorf("the other node was swept up as well: %v %s", err, out)
	}
}
