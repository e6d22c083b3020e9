// SPDX-License-Identifier: Apache-2.0

package loader_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/lab"
)

// processVariable makes the test binary a process that does what it is told.
const processVariable = "C8S_LOADER_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(processVariable) != "" {
		obey(os.Stdin, os.Stdout)
		return
	}
	os.Exit(m.Run())
}

// obey answers each line of orders with one line: "ok …" or "error …".
func obey(in io.Reader, out io.Writer) {
	orders := bufio.NewScanner(in)
	for orders.Scan() {
		answer, err := do(strings.Fields(orders.Text()))
		if err != nil {
			fmt.Fprintln(out, "error", err)
			continue
		}
		fmt.Fprintln(out, "ok", answer)
	}
}

func do(order []string) (string, error) {
	switch order[0] {
	case "socket": // domain, type, protocol
		var n [3]int
		for i := range n {
			n[i], _ = strconv.Atoi(order[1+i])
		}
		fd, err := unix.Socket(n[0], n[1], n[2])
		if err != nil {
			return "", err
		}
		return "", unix.Close(fd)
	case "bpf":
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			return "", err
		}
		return "", m.Close()
	case "dial": // address, limit, local port
		limit, err := time.ParseDuration(order[2])
		if err != nil {
			return "", err
		}
		port, _ := strconv.Atoi(order[3])
		d := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{Port: port}, Control: reuseAddr}
		d.SetMultipathTCP(false)
		c, err := d.Dial("tcp", order[1])
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(limit))
		line, err := bufio.NewReader(c).ReadString('\n')
		return strings.TrimSpace(line), err
	}
	return "", errors.New("unknown order")
}

// process is the test binary in a namespace and a cgroup.
type process struct {
	cmd *lab.Cmd
	in  io.Writer
	out *bufio.Reader
}

// startProcess starts one under the name; it ends with the test.
func startProcess(t testing.TB, ns *lab.NS, cgroup, name string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(t.TempDir(), name)
	if os.Link(self, exe) != nil { // it lies on another file system
		err = copyFile(exe, self)
	}
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	cmd := ns.Command(t.Context(), exe)
	cmd.Env = []string{processVariable + "=1"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd())}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd, in, bufio.NewReader(out)}
	t.Cleanup(p.stop)
	return p
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o700)
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// tell gives an order and returns the answer.
func (p *process) tell(order ...any) (string, error) {
	if _, err := fmt.Fprintln(p.in, order...); err != nil {
		return "", err
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("the process has ended: %w", err)
	}
	if answer, ok := strings.CutPrefix(line, "ok "); ok {
		return strings.TrimSpace(answer), nil
	}
	return "", errors.New(strings.TrimSpace(strings.TrimPrefix(line, "error ")))
}

// newCgroup makes a cgroup below another one, or below the root, and returns
// its folder and its path.
func newCgroup(t testing.TB, parent, name string) (dir, path string) {
	t.Helper()
	root, err := loader.CgroupDir()
	if err != nil {
		t.Fatal(err)
	}
	if parent == "" {
		name = fmt.Sprintf("c8s-loader-test-%d-%s", os.Getpid(), name)
	}
	path = filepath.Join("/", parent, name)
	dir = filepath.Join(root, path)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, dir) })
	return dir, path
}

// removeCgroup waits for the last process to be gone.
func removeCgroup(t testing.TB, dir string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		if time.Now().After(end) {
			t.Error(err)
			return
		}
	}
}
