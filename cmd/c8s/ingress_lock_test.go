// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy/policytest"
)

// asCommand has this program be c8s.
const asCommand = "C8S_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// program is c8s as a process of its own.
type program struct {
	*exec.Cmd
	lines *bufio.Scanner // of standard error
	said  strings.Builder
}

func startProgram(t *testing.T, args ...string) *program {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{Cmd: exec.CommandContext(t.Context(), path, args...)}
	p.Env = append(os.Environ(), asCommand+"=yes")
	out, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(out)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	return p
}

// says reads what p says until word is in it; false: it ended before.
func (p *program) says(word string) bool {
	for p.lines.Scan() {
		p.said.WriteString(p.lines.Text() + "\n")
		if strings.Contains(p.lines.Text(), word) {
			return true
		}
	}
	return false
}

// lonelyIngress are flags with which an ingress runs, though nobody answers it.
func lonelyIngress(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	f := policytest.New(t)
	operators, err := json.Marshal(f.Operators)
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"ingress", "--address=10.80.0.1", "--cds=127.0.0.1:1", "--https-address=127.0.0.1:0", "--http-address=", "--metrics-address=",
		"--operators", file("operators.json", operators), "--manifest", file("manifest.json", f.Envelope),
		"--tee=sim", "--sim-dir", filepath.Join(dir, "sim"), "--state-dir", filepath.Join(dir, "state"), "--run-dir", filepath.Join(dir, "run"),
		"--no-kubernetes", "--routes", file("pods.json", []byte("{}")), "--services", file("services.json", []byte("{}")),
		"--ingress-routes", file("routes.json", []byte(`{"schema": "c8s.dev/ingress-routes/v1", "routes": []}`)), "--self-signed",
	}
}

func TestStateFolderIsOneIngress(t *testing.T) {
	flags := lonelyIngress(t)
	first := startProgram(t, flags...)
	if !first.says("ingress starting") {
		t.Fatalf("the first did not start:\n%s", first.said.String())
	}
	second := startProgram(t, flags...)
	if second.says("ingress starting") {
		t.Fatal("a second one works in the same folder")
	}
	_ = second.Wait()
	if code := second.ProcessState.ExitCode(); code != exit.Misuse {
		t.Errorf("the second ended with %d, want %d", code, exit.Misuse)
	}
	for _, want := range []string{"ingress.lock", "another process holds the lock", "--state-dir"} {
		if !strings.Contains(second.said.String(), want) {
			t.Errorf("no %q in what the second said:\n%s", want, second.said.String())
		}
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	next := startProgram(t, flags...)
	if !next.says("ingress starting") {
		t.Errorf("after SIGKILL the next does not start:\n%s", next.said.String())
	}
}
