// SPDX-License-Identifier: Apache-2.0

// Package desktest runs the operator's commands in tests, each desk in a
// folder of its own.
package desktest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// Desk is a folder in which one operator works.
type Desk struct {
	T       testing.TB
	Dir     string
	Stdin   string // of the next commands
	command func() *cobra.Command
}

// New returns an empty desk for a command and its subcommands.
func New(t testing.TB, command func() *cobra.Command) *Desk {
	return &Desk{T: t, Dir: t.TempDir(), command: command}
}

// Path returns where a file of the desk is.
func (d *Desk) Path(name string) string { return filepath.Join(d.Dir, name) }

// Read returns a file of the desk.
func (d *Desk) Read(name string) []byte {
	d.T.Helper()
	text, err := os.ReadFile(d.Path(name))
	if err != nil {
		d.T.Fatal(err)
	}
	return text
}

// Write puts a file on the desk.
func (d *Desk) Write(name string, text []byte) {
	d.T.Helper()
	if err := os.WriteFile(d.Path(name), text, 0o600); err != nil {
		d.T.Fatal(err)
	}
}

// Result is what a command did.
type Result struct {
	Code        int
	Out, ErrOut string
}

// Run runs one command line. In each word, what follows an @ is a file of the
// desk; an image's digest keeps its @.
func (d *Desk) Run(line string) Result {
	d.T.Helper()
	args := strings.Fields(line)
	for i, arg := range args {
		if before, name, ok := strings.Cut(arg, "@"); ok && !strings.HasPrefix(name, "sha256:") {
			args[i] = before + d.Path(name)
		}
	}
	return d.RunArgs(args...)
}

// RunArgs runs one command with exactly these arguments.
func (d *Desk) RunArgs(args ...string) Result {
	d.T.Helper()
	var out, errOut bytes.Buffer
	c := d.command()
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	c.SetIn(strings.NewReader(d.Stdin))
	c.SetOut(&out)
	c.SetErr(&errOut)
	err := c.Execute()
	if err != nil {
		errOut.WriteString(err.Error())
	}
	return Result{exit.Code(err), out.String(), errOut.String()}
}

// Must runs a command line that succeeds.
func (d *Desk) Must(line string) Result {
	d.T.Helper()
	r := d.Run(line)
	if r.Code != exit.OK {
		d.T.Fatalf("%q: exit %d: %s", line, r.Code, r.ErrOut)
	}
	return r
}

// Refused runs a command line that fails with this exit code and message.
func (d *Desk) Refused(code int, line, want string) {
	d.T.Helper()
	if r := d.Run(line); r.Code != code || !strings.Contains(r.ErrOut, want) {
		d.T.Errorf("%q: exit %d, %q; want exit %d with %q", line, r.Code, r.ErrOut, code, want)
	}
}
