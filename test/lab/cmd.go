// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// waitDelay bounds how long Wait waits for pipes that surviving grandchildren
// hold open.
const waitDelay = 2 * time.Second

// Cmd is an exec.Cmd whose process runs inside a namespace, in a process
// group of its own. Only Start, Run, Output, CombinedOutput and Wait differ
// from exec.Cmd; the embedded command must not be started directly, it would
// run outside.
type Cmd struct {
	*exec.Cmd
	ns *NS

	waitOnce sync.Once
	waitErr  error
}

// Command prepares a program that will run in the namespace. Ending ctx kills
// its whole process group; so does closing the lab, and the end of this
// process kills the program itself.
func (ns *NS) Command(ctx context.Context, name string, args ...string) *Cmd {
	c := &Cmd{Cmd: exec.CommandContext(ctx, name, args...), ns: ns}
	c.Cancel = func() error { return unix.Kill(-c.Process.Pid, unix.SIGKILL) }
	c.WaitDelay = waitDelay
	return c
}

// Start starts the program inside its namespace.
func (c *Cmd) Start() error {
	return c.ns.lab.starter.start(c.ns, c.Cmd, c)
}

// Wait waits for the program; unlike exec.Cmd's it may be called repeatedly
// and from several goroutines.
func (c *Cmd) Wait() error {
	c.waitOnce.Do(func() {
		c.waitErr = c.Cmd.Wait()
		c.ns.lab.starter.done(c)
	})
	return c.waitErr
}

// Run starts the program and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the program and returns its standard output.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("running a program: Stdout is already set")
	}
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the program and returns standard output and error.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("running a program: Stdout or Stderr is already set")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Start starts a plain exec.Cmd inside the namespace, in a process group of
// its own. The caller waits for it as usual; closing the lab kills it.
func (ns *NS) Start(cmd *exec.Cmd) error {
	return ns.lab.starter.start(ns, cmd, nil)
}

// starter starts all processes of a lab from one thread. The parent-death
// signal is tied to the parent *thread*; the thread of an arbitrary goroutine
// may end at any time, this one ends with the lab or with the process.
type starter struct {
	requests chan startRequest
	stopped  chan struct{}
	stopOnce sync.Once

	mu      sync.Mutex
	running map[*Cmd]struct{}
}

type startRequest struct {
	ns    *NS
	cmd   *exec.Cmd
	reply chan error
}

func newStarter() *starter {
	s := &starter{requests: make(chan startRequest), stopped: make(chan struct{}), running: map[*Cmd]struct{}{}}
	go s.serve()
	return s
}

func (s *starter) serve() {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	for {
		select {
		case r := <-s.requests:
			r.reply <- r.ns.Do(r.cmd.Start)
		case <-s.stopped:
			return
		}
	}
}

func (s *starter) start(ns *NS, cmd *exec.Cmd, owner *Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if !cmd.SysProcAttr.Setsid {
		cmd.SysProcAttr.Setpgid = true
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	s.mu.Lock()
	defer s.mu.Unlock()
	r := startRequest{ns: ns, cmd: cmd, reply: make(chan error, 1)}
	select {
	case <-s.stopped:
		return fmt.Errorf("starting %s in namespace %s: %w", cmd.Path, ns.name, ErrClosed)
	default:
	}
	// serve ends only by close, which needs the lock held here.
	s.requests <- r
	if err := <-r.reply; err != nil {
		return fmt.Errorf("starting %s in namespace %s: %w", cmd.Path, ns.name, err)
	}
	if owner != nil {
		s.running[owner] = struct{}{}
	}
	return nil
}

func (s *starter) done(c *Cmd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, c)
}

// close refuses new processes, kills the groups of the running ones and reaps
// them. A process that was not reaped still owns its id, so the signal cannot
// hit a stranger.
func (s *starter) close() {
	s.mu.Lock()
	s.stopOnce.Do(func() { close(s.stopped) })
	var victims []*Cmd
	for c := range s.running {
		_ = unix.Kill(-c.Process.Pid, unix.SIGKILL)
		victims = append(victims, c)
	}
	s.mu.Unlock()
	for _, c := range victims {
		_ = c.Wait() // its error is that it was killed
	}
}
