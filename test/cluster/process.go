// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/c8s-dev/c8s/test/lab"
)

// errEnded marks errors that waiting does not cure.
var errEnded = errors.New("has ended")

// process is one daemon that can be killed and started again. Its output is
// appended to a log file.
type process struct {
	name    string
	logPath string
	make    func() *lab.Cmd

	mu    sync.Mutex
	cmd   *lab.Cmd
	done  chan struct{}
	since int64 // where in the log this start begins
}

func newProcess(name, logPath string, mk func() *lab.Cmd) *process {
	return &process{name: name, logPath: logPath, make: mk}
}

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	out, err := os.OpenFile(p.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own copy
	if p.since, err = out.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	cmd := p.make()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() {
		_ = cmd.Wait() // how it ended is in the log; running() tells that it did
		close(done)
	}()
	return nil
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// exitCode is -1 while the process runs, and when a signal ended it.
func (p *process) exitCode() int {
	if p.running() {
		return -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) kill() error { return p.end(syscall.SIGKILL) }

// signal sends sig and does not wait.
func (p *process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Signal(sig)
}

// end sends sig and waits for the process to be gone.
func (p *process) end(sig syscall.Signal) error {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("ending %s: %w", p.name, err)
	}
	<-done
	return nil
}

// died describes a process that should be running, with the end of its log.
func (p *process) died() error {
	if p.running() {
		return nil
	}
	return fmt.Errorf("%s %w; its last words:\n%s", p.name, errEnded, p.tail(4000))
}

// said returns the log from the first line with text on, empty if there is none.
func (p *process) said(text string) string {
	raw, err := os.ReadFile(p.logPath)
	at := bytes.Index(raw, []byte(text))
	if err != nil || at < 0 {
		return ""
	}
	raw = raw[bytes.LastIndexByte(raw[:at], '\n')+1:]
	return string(raw[:min(len(raw), 8000)])
}

// tail is the end of what the process has said since it was last started.
func (p *process) tail(n int) []byte {
	raw, err := os.ReadFile(p.logPath)
	if err != nil {
		return []byte(err.Error())
	}
	p.mu.Lock()
	raw = raw[min(p.since, int64(len(raw))):]
	p.mu.Unlock()
	if len(raw) > n {
		raw = raw[len(raw)-n:]
		if _, rest, ok := bytes.Cut(raw, []byte("\n")); ok {
			raw = rest
		}
	}
	return raw
}

// ImageOf returns the path of a program and the SHA-256 of its file, which
// stands for the image digest of a pod that runs it.
func ImageOf(program string) (string, string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", "", err
	}
	digest, err := fileDigest(path)
	return path, digest, err
}
