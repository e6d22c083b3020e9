// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/test/kernels/console"
)

// grace is how much longer than its own limit a test binary may take.
const grace = 10 * time.Second

func runTests() error {
	out, err := openResults(Results)
	if err != nil {
		return err
	}
	defer out.Close()
	plan, err := readPlan()
	if err != nil {
		return err
	}
	describe(out)
	for _, s := range plan.Suites {
		s.run(out, plan.Env)
	}
	_, err = fmt.Fprintln(out, console.Line{Verb: console.End})
	return err
}

// openResults opens a serial port and has it pass on bytes as they are.
func openResults(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("asking %s for its settings: %w", path, err)
	}
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t); err != nil {
		return nil, fmt.Errorf("setting up %s: %w", path, err)
	}
	return f, nil
}

// run runs one test binary and reports its tests, and itself when it failed
// beyond them or had none.
func (s Suite) run(out io.Writer, env []string) {
	began := time.Now()
	tests, err := s.start(out, env)
	if err == nil && tests == 0 {
		err = errors.New("it has no tests")
	}
	l := console.Line{Verb: console.Pass, Suite: s.Name, Name: "(all)", Took: time.Since(began)}
	if err != nil {
		fmt.Fprintf(out, "| %s: %v\n", s.Name, err)
		l.Verb = console.Fail
	}
	fmt.Fprintln(out, l)
}

func (s Suite) start(out io.Writer, env []string) (tests int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), s.Limit+grace)
	defer cancel()
	args := []string{"-test.v=test2json", "-test.timeout=" + s.Limit.String()}
	if s.Run != "" {
		args = append(args, "-test.run="+s.Run)
	}
	if s.Skip != "" {
		args = append(args, "-test.skip="+s.Skip)
	}
	c := exec.CommandContext(ctx, s.Path, args...)
	c.Dir, c.Env = s.Dir, env
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return unix.Kill(-c.Process.Pid, unix.SIGKILL) }
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, w
	if err := c.Start(); err != nil {
		return 0, errors.Join(err, w.Close())
	}
	_ = w.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- c.Wait()
		_ = r.SetReadDeadline(time.Now().Add(time.Second)) // a grandchild may hold the pipe
	}()
	passed, tests := console.Translate(s.Name, r, out)
	if err := <-ended; err != nil {
		return tests, err
	}
	if !passed {
		return tests, errors.New("it did not say PASS: " + strings.Join(args, " "))
	}
	return tests, nil
}
