// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/c8s-dev/c8s/test/lab"
	"github.com/c8s-dev/c8s/test/lab/labtest"
)

// crashVariable makes the test binary build a lab and then wait to be killed.
const crashVariable = "C8S_LAB_TEST_CRASH"

func TestMain(m *testing.M) {
	if os.Getenv(crashVariable) != "" {
		if err := crash(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// crash prints the lab's name, the pid of a direct child and the pid of a
// grandchild in a session of its own, and never returns.
func crash() error {
	l, pids, err := crowdedLab(context.Background(), "crash")
	if err != nil {
		return err
	}
	fmt.Println(l.Name(), pids[0], pids[1])
	select {}
}

// crowdedLab is a lab with everything in it that could be left behind. The
// processes are a direct child and a grandchild that left its group.
func crowdedLab(ctx context.Context, name string) (*lab.Lab, [2]int, error) {
	var pids [2]int
	l, err := lab.New(ctx, lab.Options{Name: name, Nodes: []lab.NodeSpec{{Name: "a"}}, Outside: []string{"o"}})
	if err != nil {
		return nil, pids, err
	}
	n := l.Node("a")
	if _, err := n.BPFFS(); err != nil {
		return nil, pids, err
	}
	for _, kind := range []lab.Kind{lab.Routed, lab.Bridged} {
		p, err := n.AddPod(ctx, lab.PodSpec{Name: kind.String(), Kind: kind})
		if err != nil {
			return nil, pids, err
		}
		if _, err := p.Listen("tcp", "[::]:80"); err != nil {
			return nil, pids, err
		}
	}
	cmd := n.Pods()[0].Command(context.Background(), "sh", "-c", "setsid sleep 1000 & echo $!; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, pids, err
	}
	if err := cmd.Start(); err != nil {
		return nil, pids, err
	}
	pids[0] = cmd.Process.Pid
	_, err = fmt.Fscan(bufio.NewReader(out), &pids[1])
	return l, pids, err
}

// wantNothingLeft checks folders, mounts, file descriptors and processes.
func wantNothingLeft(t *testing.T, name string, inodes []uint64, pids [2]int) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob("/run/c8s-lab/" + name + "*")
	if strings.Contains(string(mounts), name) || len(left) > 0 {
		t.Errorf("mounts or files of %s are left: %v", name, left)
	}
	for _, inode := range inodes {
		ref := fmt.Sprintf("net:[%d]", inode)
		if strings.Contains(string(mounts), ref) {
			t.Errorf("%s is still mounted", ref)
		}
		for _, pattern := range []string{"/proc/[0-9]*/ns/net", "/proc/self/fd/*", "/proc/self/task/*/ns/net"} {
			paths, _ := filepath.Glob(pattern)
			for _, p := range paths {
				if to, _ := os.Readlink(p); to == ref {
					t.Errorf("%s still refers to %s", p, ref)
				}
			}
		}
	}
	for _, pid := range pids {
		waitGone(t, pid)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
}

func inodesOf(l *lab.Lab) []uint64 {
	inodes := []uint64{l.Wire.Inode(), l.Outside("o").Inode(), l.Node("a").Inode()}
	for _, p := range l.Node("a").Pods() {
		inodes = append(inodes, p.Inode())
	}
	return inodes
}

func TestCloseLeavesNothingAndIsIdempotent(t *testing.T) {
	needRoot(t)
	l, pids, err := crowdedLab(t.Context(), "close")
	if err != nil {
		t.Fatal(err)
	}
	inodes := inodesOf(l)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantNothingLeft(t, l.Name(), inodes, pids)
	if _, err := l.Node("a").AddPod(t.Context(), lab.PodSpec{Name: "late"}); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("AddPod after Close: %v", err)
	}
	if _, err := l.Node("a").BPFFS(); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("BPFFS after Close: %v", err)
	}
	if err := l.Node("a").Command(t.Context(), "true").Run(); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Command after Close: %v", err)
	}
	if _, err := l.Node("a").Listen("tcp", ":80"); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Listen after Close: %v", err)
	}
}

func TestEndOfContextClosesTheLab(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	l, pids, err := crowdedLab(ctx, "cancel")
	if err != nil {
		t.Fatal(err)
	}
	inodes := inodesOf(l)
	cancel()
	for range 500 {
		if _, err := os.Stat(l.Dir()); err != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := l.Close(); err != nil { // waits for the close under way
		t.Error(err)
	}
	wantNothingLeft(t, l.Name(), inodes, pids)
	if _, err := lab.New(ctx, lab.Options{Nodes: []lab.NodeSpec{{Name: "a"}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("New with an ended context: %v", err)
	}
}

func TestPanickingTestLeavesNothing(t *testing.T) {
	needRoot(t)
	var l *lab.Lab
	var inodes []uint64
	var pids [2]int
	func() {
		defer func() { _ = recover() }()
		var err error
		if l, pids, err = crowdedLab(t.Context(), "panic"); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		inodes = inodesOf(l)
		_ = l.Node("a").Do(func() error { panic("in the middle of a namespace") })
	}()
	wantNothingLeft(t, l.Name(), inodes, pids)
}

func TestOpenConnectionsDoNotKeepLinksAlive(t *testing.T) {
	needRoot(t)
	l, _, err := crowdedLab(t.Context(), "conn")
	if err != nil {
		t.Fatal(err)
	}
	pods := l.Node("a").Pods()
	c, err := pods[0].Dial(t.Context(), "tcp", net.JoinHostPort(pods[1].Addr4.String(), "80"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	// The link went with the lab, so the other end can no longer be reached.
	if _, err := c.Write([]byte("x")); err == nil {
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection survived the lab")
		}
	}
}

func TestLabsRunSideBySide(t *testing.T) {
	for i := range 2 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			l := labtest.New(t, twoNodes())
			a := labtest.Pod(t, l.Node("a"), lab.PodSpec{Name: "a", Kind: lab.Bridged})
			b := labtest.Pod(t, l.Node("b"), lab.PodSpec{Name: "b"})
			echo(t, b.NS, b.Addrs()...)
			for range 20 {
				for _, dst := range b.Addrs() {
					if err := ping(a.NS, "tcp", dst); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

func TestSweepRemovesOnlyWhatDeadProcessesLeft(t *testing.T) {
	alive := labtest.New(t, lab.Options{Name: "alive", Nodes: []lab.NodeSpec{{Name: "a"}}})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crashVariable+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var name string
	var pids [2]int
	_, err = fmt.Fscan(out, &name, &pids[0], &pids[1])
	if killErr := cmd.Process.Kill(); err != nil || killErr != nil {
		t.Fatal(err, killErr)
	}
	_ = cmd.Wait()
	waitGone(t, pids[0]) // by the parent-death signal, before any sweep
	var inodes []uint64
	ns, err := os.ReadDir("/run/c8s-lab/" + name + "/ns")
	if err != nil || len(ns) != 5 {
		t.Fatalf("the crashed lab left namespaces %v, %v; want 5", ns, err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pids[1])); err != nil {
		t.Errorf("the grandchild should have survived the crash: %v", err)
	}
	for _, e := range ns {
		if to, err := os.Stat("/run/c8s-lab/" + name + "/ns/" + e.Name()); err == nil {
			inodes = append(inodes, inodeOf(to))
		}
	}
	removed, err := lab.Sweep()
	if err != nil {
		t.Error(err)
	}
	if !strings.Contains(strings.Join(removed, " "), name) {
		t.Errorf("Sweep removed %v, want %s among them", removed, name)
	}
	wantNothingLeft(t, name, inodes, pids)
	if err := alive.Node("a").Command(t.Context(), "true").Run(); err != nil {
		t.Errorf("Sweep harmed a living lab: %v", err)
	}
}

func inodeOf(fi os.FileInfo) uint64 { return fi.Sys().(*syscall.Stat_t).Ino }

func TestUnusableOptionsAreRefused(t *testing.T) {
	needRoot(t)
	node := []lab.NodeSpec{{Name: "a"}}
	for name, o := range map[string]lab.Options{
		"no nodes":         {},
		"bad lab name":     {Name: "../x", Nodes: node},
		"bad node name":    {Nodes: []lab.NodeSpec{{Name: "A/b"}}},
		"name twice":       {Nodes: []lab.NodeSpec{{Name: "a"}, {Name: "a"}}},
		"outside as node":  {Nodes: node, Outside: []string{"a"}},
		"too many nodes":   {Nodes: make([]lab.NodeSpec, 101)},
		"unknown sysctl":   {Nodes: []lab.NodeSpec{{Name: "a", Sysctls: map[string]string{"net.no.such": "1"}}}},
		"too many outside": {Nodes: node, Outside: make([]string, 51)},
	} {
		if l, err := lab.New(t.Context(), o); err == nil {
			t.Errorf("%s: built", name)
			_ = l.Close()
		}
	}
	left, _ := filepath.Glob(fmt.Sprintf("/run/c8s-lab/*-%d-*", os.Getpid()))
	if len(left) > 0 {
		t.Errorf("refused labs left %v", left)
	}
}
