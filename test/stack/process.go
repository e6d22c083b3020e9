// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// searchPath is PATH on a node: its own programs are below /usr/local.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// shellUnit is the cgroup of what Command runs, as of somebody logged in.
const shellUnit = "user.slice/session.scope"

// Command prepares a program that will run on the node, as root, in / and in
// no daemon's cgroup. Its process id is the one it will have as a command.
// Ending ctx kills it.
func (n *Node) Command(ctx context.Context, argv ...string) *exec.Cmd {
	return n.command(ctx, shellUnit, argv)
}

func (n *Node) command(ctx context.Context, unit string, argv []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(n.scratch.dir, "enter"), append([]string{unit}, argv...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "PATH="+searchPath)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What it started may hold its pipes open.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Run runs a program on the node and returns its output, stdout before
// stderr, also when it fails; the error has it too.
func (n *Node) Run(ctx context.Context, argv ...string) (string, error) {
	cmd := n.Command(ctx, argv...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	all := out.String() + errOut.String()
	if err != nil {
		return all, fmt.Errorf("running %s on %s: %w: %s", strings.Join(argv, " "), n.cfg.Name, err, strings.TrimSpace(all))
	}
	return all, nil
}

// Daemon is a program that keeps running.
type Daemon struct {
	// Name names its log and its cgroup, /system.slice/NAME.service.
	Name string
	Args []string // the program first
	Env  []string // in addition, KEY=VALUE
	// Ready is asked until it returns nil; nil: ready when started.
	Ready func(context.Context) error
}

// Process is a daemon that was started.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // once done is closed
}

// Start starts a daemon on the node and waits until it is ready. Its log goes
// on where that of an earlier one of this name ended.
func (n *Node) Start(ctx context.Context, d Daemon) (*Process, error) {
	p := &Process{name: d.Name, log: filepath.Join(n.logDir(), d.Name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// It lives longer than the context it is started under.
	p.cmd = n.command(context.WithoutCancel(ctx), "system.slice/"+d.Name+".service", d.Args)
	p.cmd.Env = append(p.cmd.Env, d.Env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s on %s: %w", d.Name, n.cfg.Name, err)
	}
	n.mu.Lock()
	n.processes[d.Name] = p
	n.mu.Unlock()
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if d.Ready == nil {
		return p, nil
	}
	if err := p.await(ctx, d.Ready); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s on %s: %w\n%s", d.Name, n.cfg.Name, err, tail(p.log)), p.Kill())
	}
	return p, nil
}

// Process is the daemon that was last started under a name, nil if none was.
func (n *Node) Process(name string) *Process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.processes[name]
}

// await polls until f succeeds, but not longer than the process lives.
func (p *Process) await(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-p.done:
			cancel(fmt.Errorf("it ended before it was ready (%v)", p.err))
		case <-ctx.Done():
		}
	}()
	return Poll(ctx, p.name+" to be ready", f)
}

// Pid is the daemon's process id, on the node and on the machine.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the process to end and says how it did.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the process at once, and nothing that it started.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// Stop asks the process to end, and kills it when it has not after a while.
func (p *Process) Stop(ctx context.Context) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience/4)
	defer cancel()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s had to be killed", p.name), p.Kill())
	}
}

// Log is what the daemon has printed so far.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Logs are the last lines of all that has run on the node, for people.
func (n *Node) Logs() string {
	files, _ := filepath.Glob(filepath.Join(n.logDir(), "*"))
	var b strings.Builder
	for _, f := range files {
		if last := tail(f); last != "" {
			fmt.Fprintf(&b, "--- %s: %s\n%s\n", n.cfg.Name, filepath.Base(f), last)
		}
	}
	return b.String()
}

// tail is the end of a file.
func tail(file string) string {
	const most = 8 << 10
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return strings.TrimSpace(string(b))
}
