// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/c8s-dev/c8s/test/privileged"
)

// Two checkouts may need the same component at the same time, and somebody may
// have killed a build: one builds, both have it, nothing else is left.
func TestBuildTwiceAtOnce(t *testing.T) {
	privileged.Require(t) // as the other tests with programs of hack/stack
	cache := t.TempDir()
	if err := os.MkdirAll(filepath.Join(cache, ".cni.killed", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	build := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "../../hack/stack/build", args...)
		cmd.Env = append(os.Environ(), "C8S_STACK_CACHE="+cache)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	var both errgroup.Group
	var out [2]string
	for i := range out {
		both.Go(func() (err error) {
			out[i], err = build("cni")
			return err
		})
	}
	if err := both.Wait(); err != nil {
		t.Fatal(err, out)
	}
	if n := strings.Count(out[0]+out[1], "stack: building cni"); n != 1 {
		t.Errorf("it was built %d times: %q", n, out)
	}
	folder, err := build("--print", "cni")
	if err != nil {
		t.Fatal(err, folder)
	}
	folder = strings.TrimSpace(folder)
	if programs, err := os.ReadDir(folder); err != nil || len(programs) != 5 {
		t.Errorf("the folder has %v (%v), want five plugins", programs, err)
	}
	entries, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if path := filepath.Join(cache, e.Name()); path != folder && e.Name() != "cni.lock" {
			t.Errorf("%s is left", path)
		}
	}
	if again, err := build("cni"); err != nil || again != "" {
		t.Errorf("a third run built it again: %q (%v)", again, err)
	}
}

func TestBuildOfUnknownComponent(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "../../hack/stack/build", "--print", "nothing").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no component nothing") {
		t.Errorf("got %q (%v), want that there is no such component", out, err)
	}
}
