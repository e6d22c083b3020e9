// SPDX-License-Identifier: Apache-2.0

package filelock

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// held names the file that this program takes when it is started as the other
// process.
const held = "C8S_TEST_HELD"

func TestMain(m *testing.M) {
	if path := os.Getenv(held); path != "" {
		_, err := Take(path)
		os.Stdout.WriteString(errors.Join(err, errors.New("done")).Error() + "\n")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until it is killed
		return
	}
	os.Exit(m.Run())
}

// other starts a process that takes the file, and returns what ends it by
// SIGKILL.
func other(t *testing.T, path string) (kill func()) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), program)
	c.Env = append(os.Environ(), held+"="+path)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	t.Cleanup(kill)
	if said, err := bufio.NewReader(out).ReadString('\n'); said != "done\n" {
		t.Fatalf("the other process said %q, %v", said, err)
	}
	return kill
}

func TestLockEndsWithTheProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "lock")
	kill := other(t, path)
	if _, err := Take(path); !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), path) {
		t.Fatalf("a second one: %v", err)
	}
	kill()
	f, err := Take(path)
	if err != nil {
		t.Fatalf("after SIGKILL: %v", err)
	}
	if _, err := Take(path); !errors.Is(err, ErrHeld) {
		t.Errorf("a second one in the same process: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, err = Take(path); err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeLockedIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"a folder": dir, "below a file": filepath.Join(dir, "file", "lock")} {
		if f, err := Take(path); err == nil || errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}
