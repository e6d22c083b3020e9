// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/c8s-dev/c8s/cds/store/etcdtest"
	"github.com/c8s-dev/c8s/test/bench/fleet"
	"github.com/c8s-dev/c8s/test/freeport"
)

// cdsSite is one service to measure: a process of its own.
type cdsSite struct {
	name  string
	addr  string
	pid   int
	judge *fleet.Judge // nil: what it issues proves nothing
	as    *fleet.Node  // whom callers are connected as, if not by what it issued
	end   func()

	perSecond float64 // of the mixed load, as measured last
}

// startCDS runs the real program on loopback with the given flags for its
// store, and returns when it has enrolled every machine once.
func startCDS(ctx context.Context, f *benchFleet, o options, name string, store ...string) (*cdsSite, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	args := append([]string{
		"cds", "--name", name, "--listen", addr, "--metrics-address", "", "--operators", f.OperatorsFile(), "--manifest", f.ManifestFile(),
		"--tee", "sim", "--sim-dir", f.SimDir(), "--sim-machine", "cds-" + name,
		// One host stands for many nodes here, and a machine for many minutes.
		"--calls-per-second", "1000000", "--max-certificates", "100000000", "--max-connections", "65536",
	}, store...)
	s, err := start(ctx, f.path(name+".log"), name, nil, o.Binary, args...)
	if err != nil {
		return nil, err
	}
	s.addr = addr
	if s.judge, err = meet(ctx, f.Fleet, addr); err == nil {
		err = f.Warm(ctx, addr)
	}
	if err != nil {
		s.end()
		return nil, fmt.Errorf("starting the CDS %q: %w; its last words:\n%s", name, err, tail(f.path(name+".log")))
	}
	return s, nil
}

// start runs a program that dies with this one. Who calls it has locked its
// thread: a child dies with its parent's thread.
func start(ctx context.Context, logPath, name string, stdin io.Reader, program string, args ...string) (*cdsSite, error) {
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own copy
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return &cdsSite{name: name, pid: cmd.Process.Pid, end: func() {
		cancel()
		_ = cmd.Wait() // was killed
	}}, nil
}

func meet(ctx context.Context, f *fleet.Fleet, addr string) (*fleet.Judge, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		j, err := f.Meet(ctx, addr)
		if err == nil {
			return j, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(50 * time.Millisecond): // not ready yet
		}
	}
}

// startEcho runs the server that does nothing, with answers of the size that
// the real one gives.
func startEcho(ctx context.Context, f *benchFleet, like *cdsSite) (*cdsSite, error) {
	node, config, err := answersOf(ctx, f, like)
	if err != nil {
		return nil, fmt.Errorf("asking for what the echo answers: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	logPath := f.path("echo.log")
	s, err := start(ctx, logPath, "echo", bytes.NewReader(config), self, "echo-cds")
	if err != nil {
		return nil, err
	}
	s.as = node
	if s.addr, err = said(ctx, logPath); err != nil {
		s.end()
		return nil, fmt.Errorf("starting the echo: %w", err)
	}
	return s, nil
}

// said waits for the address that a program writes into its log first.
func said(ctx context.Context, logPath string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		log, err := os.ReadFile(logPath)
		if err != nil {
			return "", err
		}
		if line, _, ok := strings.Cut(string(log), "\n"); ok {
			if _, _, err := net.SplitHostPort(line); err != nil {
				return "", fmt.Errorf("it said %q", log)
			}
			return line, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// answersOf enrols a node and a pod, and makes an echo's configuration of it.
func answersOf(ctx context.Context, f *benchFleet, s *cdsSite) (*fleet.Node, []byte, error) {
	node, session, err := newNode(ctx, f, s, 0)
	if err != nil {
		return nil, nil, err
	}
	defer session.Close()
	pod, err := session.EnrolPod(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	e := fleet.Echo{SimDir: f.SimDir(), Operators: f.Operators}
	if e.Node, err = proto.Marshal(node.Response); err != nil {
		return nil, nil, err
	}
	if e.Pod, err = proto.Marshal(pod.Response); err != nil {
		return nil, nil, err
	}
	raw, err := json.Marshal(e)
	return node, raw, err
}

func runEcho(ctx context.Context, config io.Reader) error {
	var e fleet.Echo
	if err := json.NewDecoder(bufio.NewReader(config)).Decode(&e); err != nil {
		return fmt.Errorf("reading the echo's configuration: %w", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return e.Serve(ctx, ln)
}

// startEtcd starts a cluster of three; nil where
// there is no etcd program.
func startEtcd(ctx context.Context, dir string) (*etcdtest.Cluster, error) {
	binary, err := etcdtest.Binary()
	if err != nil {
		say("leaving etcd out: %v", err)
		return nil, nil
	}
	dir = filepath.Join(dir, "etcd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return etcdtest.New(ctx, etcdtest.Options{Members: 3, Dir: dir, Binary: binary})
}

func freeAddr() (string, error) {
	p, err := freeport.Find()
	return fmt.Sprintf("127.0.0.1:%d", p), err
}

func tail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-2000):])
}
