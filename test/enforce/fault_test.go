// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
)

// inPod runs a shell script as a process of a pod: in its cgroup and network.
func (n *node) inPod(t testing.TB, c *stack.Container, script string) (string, error) {
	t.Helper()
	cmd := n.Command(t.Context(), "bash", "-c", `echo; read -r && exec nsenter --net="$0" timeout 3 bash -c "$1"`, n.info(t, c.Pod).netns, script)
	stdin, stdout := must(cmd.StdinPipe()), must(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	_, err := out.ReadString('\n') // it is on the node
	procs := n.Cgroup("/kubepods/pod" + c.Pod.Config.Metadata.Uid + "/" + c.ID + "/cgroup.procs")
	if err == nil {
		err = os.WriteFile(procs, []byte(strconv.Itoa(cmd.Process.Pid)), 0)
	}
	if err == nil {
		_, err = io.WriteString(stdin, "\n")
	}
	err = errors.Join(err, stdin.Close())
	said, readErr := io.ReadAll(out)
	return string(said), errors.Join(err, readErr, cmd.Wait())
}

// connects reports whether a process of the pod can connect to an address.
func (n *node) connects(t testing.TB, from *stack.Container, to netip.Addr) bool {
	t.Helper()
	out, err := n.inPod(t, from, fmt.Sprintf("exec 3<>/dev/tcp/%s/9000; echo hi >&3; read -r answer <&3; echo \"$answer\"", to))
	return err == nil && strings.TrimSpace(out) == "web hi"
}

// TestTheDaemonDies kills it at the worst moments, and containerd too.
func TestTheDaemonDies(t *testing.T) {
	w := newWorld(t, []string{"one"})
	n := w.nodes[0]
	web := n.run(t, n.pod(t, "web", "web"), "serve")
	clientPod := n.pod(t, "client", "client")
	client := n.run(t, clientPod, "sleep")
	ip := web.Pod.IPs[0]
	talk := func(ctx context.Context) error {
		if !n.connects(t, client, ip) {
			return errors.New("no answer")
		}
		return nil
	}
	w.eventually("web to answer", talk)

	t.Run("containerd restarts", func(t *testing.T) {
		if err := n.RestartContainerd(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.eventually("the daemon to be connected again", n.ready)
		if err := talk(t.Context()); err != nil {
			t.Error(err)
		}
		n.run(t, n.pod(t, "after", "strict"), "sleep")
	})
	t.Run("while a container is created", func(t *testing.T) {
		n.signal(syscall.SIGSTOP)
		err := n.during(t, "CreateContainer within", func(ctx context.Context) error {
			_, err := clientPod.Run(ctx, stack.ContainerSpec{Name: "during", Image: w.app.Ref, Args: []string{"run", "/app"}})
			return err
		}, n.kill)
		refused(t, "a container", err)
		n.startDaemon()
	})
	t.Run("while the runtime asks", func(t *testing.T) {
		c, err := clientPod.Create(t.Context(), stack.ContainerSpec{Name: "asking", Image: w.app.Ref, Args: []string{"sleep"}})
		if err != nil {
			t.Fatal(err)
		}
		n.signal(syscall.SIGSTOP)
		started := make(chan error, 1)
		go func() { started <- c.Start(t.Context()) }()
		w.eventually("c8s-runtime to ask", func(context.Context) error { return n.asking(c.ID) })
		n.kill()
		refused(t, "a container", <-started, "c8s-runtime: create")
	})
	t.Run("and is away", func(t *testing.T) {
		if n.connects(t, client, ip) {
			t.Error("a pod talks without the daemon")
		}
		if !running(t.Context(), client) || !running(t.Context(), web) {
			t.Error("a pod was stopped")
		}
		_, err := n.tryPod(t.Context(), "new", "strict")
		refused(t, "a pod", err, "no node daemon")
		_, err = n.tryPod(t.Context(), "tolerant", "strict", func(c *cri.PodSandboxConfig) { tolerate(c) })
		refused(t, "a pod that tolerates a missing plugin", err, "no node daemon")
		_, err = client.Exec(t.Context(), "/app", "env")
		refused(t, "exec", err, "daemon-not-running")

		onNode := func(c *cri.PodSandboxConfig) {
			tolerate(c)
			c.Hostname, c.Linux.SecurityContext.NamespaceOptions.Network = "", cri.NamespaceMode_NODE
		}
		p := n.pod(t, "bootstrap", "c8s-node", onNode)
		_, err = p.Run(t.Context(), stack.ContainerSpec{Name: "other", Image: w.app.Ref, Args: []string{"serve"}})
		refused(t, "another command of a bootstrap entry", err, "daemon-not-running")
		n.run(t, p, "sleep")
		_, err = clientPod.Run(t.Context(), stack.ContainerSpec{Name: "late", Image: w.app.Ref, Args: []string{"sleep"}})
		refused(t, "a container of a pod that runs", err, `required plugin "c8s" not present`)
	})
	t.Run("and comes back", func(t *testing.T) {
		n.startDaemon()
		w.eventually("the pods to be known", talk)
		if !running(t.Context(), client) || !running(t.Context(), web) {
			t.Error("a pod was stopped")
		}
		if got, err := client.Exec(t.Context(), "/app", "env"); err != nil || got.Code != 0 {
			t.Errorf("exec in a pod from before: %+v, %v", got, err)
		}
		_, err := clientPod.Run(t.Context(), stack.ContainerSpec{Name: "foreign", Image: w.app.Ref, Args: []string{"serve"}})
		refused(t, "a container of another entry in a pod from before", err, "args-not-allowed")
	})
}

// during starts f and does something once containerd's log says so.
func (n *node) during(t *testing.T, says string, f func(context.Context) error, do func()) error {
	t.Helper()
	before := strings.Count(n.Containerd().Log(), says)
	done := make(chan error, 1)
	go func() { done <- f(t.Context()) }()
	n.w.eventually("containerd to say "+says, func(context.Context) error {
		if strings.Count(n.Containerd().Log(), says) <= before {
			return errors.New("not yet")
		}
		return nil
	})
	do()
	return <-done
}

// asking is nil once c8s-runtime runs for the container's creation.
func (n *node) asking(id string) error {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		args, _ := os.ReadFile(f)
		if bytes.Contains(args, []byte(programs.runtime+"\x00")) && bytes.Contains(args, []byte("\x00create\x00")) && bytes.Contains(args, []byte(id)) {
			return nil
		}
	}
	return errors.Join(errors.New("no such process"), err)
}

// TestWhatRanBefore is a node on which C8s is installed while pods run.
func TestWhatRanBefore(t *testing.T) {
	w := newWorld(t, nil, func(_ *world, m *policy.Manifest) {
		m.Unlisted = policy.UnlistedCut
		for i := range m.Workloads[:2] { // which run without the filter that C8s adds
			m.Workloads[i].Images[0].Run.Sockets = policy.SocketKinds()
		}
	})
	n := w.plainNode("one", stack.NodeConfig{})
	w.nodes = append(w.nodes, n)
	w.routes()
	listed := n.run(t, n.pod(t, "web", "web"), "serve")
	client := n.run(t, n.pod(t, "client", "client"), "sleep")
	other := n.run(t, n.pod(t, "other", ""), "serve", "-name", "web")
	w.eventually("the unlisted one to answer", func(context.Context) error {
		if !n.connects(t, client, other.Pod.IPs[0]) {
			return errors.New("no answer")
		}
		return nil
	})

	w.install(n)
	n.write("/etc/containerd/conf.d/c8s.toml", []byte(dropIn+fmt.Sprintf("[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n  BinaryName = %q\n", programs.runtime)))
	if err := n.RestartContainerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.startDaemon()
	w.eventually("the listed pods to be in the mesh", func(context.Context) error {
		if !n.connects(t, client, listed.Pod.IPs[0]) {
			return errors.New("no answer")
		}
		return nil
	})
	if n.connects(t, client, other.Pod.IPs[0]) || n.connects(t, other, listed.Pod.IPs[0]) {
		t.Error("the unlisted pod is in the mesh")
	}
	if !running(t.Context(), other) {
		t.Error("the unlisted pod was stopped, and should be cut off")
	}
	w.publish(func(m *policy.Manifest) { m.Unlisted = policy.UnlistedStop })
	w.eventually("the unlisted pod to be stopped", func(ctx context.Context) error {
		if running(ctx, other) {
			return errors.New("it runs")
		}
		return nil
	})
	if !running(t.Context(), listed) || !running(t.Context(), client) {
		t.Error("a listed pod was stopped")
	}
}
