// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/test/stack/image"
)

func appImage(t *testing.T, nodes ...*Node) *image.Image {
	t.Helper()
	app, err := image.App(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		if err := n.Import(t.Context(), app); err != nil {
			t.Fatal(err)
		}
	}
	return app
}

// runApp starts a pod with one container of the test program.
func runApp(t *testing.T, n *Node, name string, args ...string) *Container {
	t.Helper()
	c, err := n.CRI()
	if err != nil {
		t.Fatal(err)
	}
	pod, err := c.RunPod(t.Context(), PodSpec{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	container, err := pod.Run(t.Context(), ContainerSpec{Image: image.AppRef, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	return container
}

// greet lets a pod talk to another until it has an answer: a server needs a
// moment to listen.
func greet(t *testing.T, from *Container, to netip.Addr, want string) {
	t.Helper()
	address := net.JoinHostPort(to.String(), "9000")
	err := Poll(t.Context(), "an answer of "+address, func(ctx context.Context) error {
		got, err := from.Exec(ctx, "/app", "dial", "tcp", address, "hello")
		if err != nil {
			return err
		}
		var answer struct{ Answer string }
		if err := json.Unmarshal([]byte(got.Stdout), &answer); err != nil {
			return &exec.Error{Name: got.Stderr, Err: err}
		}
		if answer.Answer != want+" hello" {
			t.Fatalf("%s answered %q, want %q", address, answer.Answer, want+" hello")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPodsTalk(t *testing.T) {
	for _, tc := range []NodeConfig{
		{Containerd: ContainerdStock, CNI: CNIBridge},
		{Containerd: ContainerdNRI5, CNI: CNIPTP},
	} {
		t.Run(tc.Containerd+" "+tc.CNI, func(t *testing.T) {
			n := NewNode(t, tc)
			appImage(t, n)
			a, b := runApp(t, n, "a", "serve"), runApp(t, n, "b", "serve")
			if len(b.Pod.IPs) != 2 || !n.PodCIDRs()[0].Contains(b.Pod.IPs[0]) || !n.PodCIDRs()[1].Contains(b.Pod.IPs[1]) {
				t.Fatalf("pod has addresses %v, want one of each of %v", b.Pod.IPs, n.PodCIDRs())
			}
			for _, ip := range b.Pod.IPs {
				greet(t, a, ip, "b")
			}
		})
	}
}

func TestPodsTalkAcrossNodes(t *testing.T) {
	f := TestFabric(t)
	one := NewNode(t, NodeConfig{Name: "one", Fabric: f})
	two := NewNode(t, NodeConfig{Name: "two", Fabric: f, CNI: CNIPTP})
	appImage(t, one, two)
	a, b := runApp(t, one, "a", "serve"), runApp(t, two, "b", "serve")
	for i := range 2 {
		greet(t, a, b.Pod.IPs[i], "b")
		greet(t, b, a.Pod.IPs[i], "a")
	}
}

func TestPodsOutliveContainerd(t *testing.T) {
	n := NewNode(t, NodeConfig{})
	appImage(t, n)
	a, b := runApp(t, n, "a", "serve"), runApp(t, n, "b", "serve")
	before := n.Containerd().Pid()
	if err := n.RestartContainerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n.Containerd().Pid() == before {
		t.Fatal("containerd was not restarted")
	}
	greet(t, a, b.Pod.IPs[0], "b")
	status, err := b.Status(t.Context())
	if err != nil || status.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("container is %v (%v), want running", status, err)
	}
}

func TestContainerLife(t *testing.T) {
	n := NewNode(t, NodeConfig{})
	app := appImage(t, n)
	c := runApp(t, n, "a", "fail")
	if code, err := c.Wait(t.Context()); err != nil || code != 7 {
		t.Fatalf("ended with %d (%v), want 7", code, err)
	}
	status, err := c.Status(t.Context())
	if err != nil || status.ImageRef != app.Config {
		t.Fatalf("runs image %q (%v), want %q", status.GetImageRef(), err, app.Config)
	}
	d, err := c.Pod.Run(t.Context(), ContainerSpec{Name: "d", Image: image.AppRef, Args: []string{"env"}, Env: map[string]string{"A": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if code, err := d.Wait(t.Context()); err != nil || code != 0 {
		t.Fatalf("ended with %d (%v), want 0", code, err)
	}
	log, err := d.Log()
	if err != nil {
		t.Fatal(err)
	}
	var found struct {
		Uid    int
		Host   string
		Env    []string
		Args   []string
		Status map[string]string
	}
	if err := json.Unmarshal([]byte(log), &found); err != nil {
		t.Fatalf("%v: %q", err, log)
	}
	if found.Uid != 65535 || found.Host != "a" || found.Status["NoNewPrivs"] != "1" || found.Status["Seccomp"] != "2" {
		t.Errorf("found %+v", found)
	}
	running := runApp(t, n, "b", "sleep")
	if err := running.Update(t.Context(), &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}); err != nil {
		t.Error(err)
	}
	updated, err := running.Status(t.Context())
	if got := updated.GetResources().GetLinux().GetMemoryLimitInBytes(); err != nil || got != 64<<20 {
		t.Errorf("the memory limit is %d (%v) after the update", got, err)
	}
	if err := running.Stop(t.Context(), 10); err != nil {
		t.Error(err)
	}
	if err := running.Pod.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if err := d.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Pod.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	client, _ := n.CRI()
	if pods, err := client.ListPods(t.Context()); err != nil || len(pods) != 0 {
		t.Errorf("%d pods are left (%v)", len(pods), err)
	}
}

// A program in front of runc sees every create, and a drop-in can replace it
// without touching the configuration, as an installer on a real host does.
func TestRuntimeInFront(t *testing.T) {
	calls := filepath.Join(t.TempDir(), "calls")
	wrapper := filepath.Join(filepath.Dir(calls), "wrapper")
	script := "#!/bin/sh\necho \"$@\" >>" + calls + "\nexec /usr/local/sbin/runc \"$@\"\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	creates := func() int {
		text, err := os.ReadFile(calls)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), " create ")
	}
	n := NewNode(t, NodeConfig{RuntimeBinary: wrapper})
	appImage(t, n)
	runApp(t, n, "a", "serve")
	if got := creates(); got != 2 { // pause and app
		t.Errorf("the runtime in front was asked for %d containers, want 2", got)
	}
	dropIn := "version = 4\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n  BinaryName = '/usr/local/sbin/runc'\n"
	if err := n.WriteFile("/etc/containerd/conf.d/50-runc.toml", []byte(dropIn), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.RestartContainerd(t.Context()); err != nil {
		t.Fatal(err)
	}
	runApp(t, n, "b", "serve")
	if got := creates(); got != 2 {
		t.Errorf("the runtime that was replaced was asked for %d more containers", got-2)
	}
}

// Without a network configuration, only pods on the host's network start.
func TestHostNetworkWithoutCNI(t *testing.T) {
	n := NewNode(t, NodeConfig{CNI: CNINone, IPv4Only: true})
	appImage(t, n)
	c, err := n.CRI()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RunPod(t.Context(), PodSpec{Name: "own"}); err == nil || !strings.Contains(err.Error(), "cni") {
		t.Errorf("a pod with a network of its own: got %v, want that CNI is not there", err)
	}
	pod, err := c.RunPod(t.Context(), PodSpec{Name: "host", HostNetwork: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pod.Run(t.Context(), ContainerSpec{Image: image.AppRef, Args: []string{"serve"}}); err != nil {
		t.Fatal(err)
	}
	err = Poll(t.Context(), "the pod to answer at its node's address", func(ctx context.Context) error {
		conn, err := n.Dial(ctx, "tcp", netip.AddrPortFrom(n.Addr(), 9000).String())
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		t.Error(err)
	}
}

func TestLogOfContainer(t *testing.T) {
	const file = "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stdout P two \n2026-01-01T00:00:00Z stderr F and three\nbroken\n"
	if got, want := criLog(file), "one\ntwo and three\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNodeTouchesNothingOfTheMachine(t *testing.T) {
	n := NewNode(t, NodeConfig{NoContainerd: true})
	for _, file := range []string{"/etc/x-c8s", "/var/lib/x-c8s", "/opt/x-c8s", "/usr/local/x-c8s", "/run/x-c8s", "/sys/fs/bpf/x-c8s"} {
		if out, err := n.Run(t.Context(), "mkdir", file); err != nil {
			t.Fatal(err, out)
		}
		if _, err := os.Stat(n.Path(file)); err != nil {
			t.Errorf("the node's %s: %v", file, err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s reached the machine", file)
		}
	}
	out, err := n.Run(t.Context(), "cat", "/proc/self/cgroup")
	if err != nil || !strings.Contains(out, "0::/"+shellUnit+"\n") {
		t.Errorf("a command's cgroups are %q (%v), want its own below the node's", out, err)
	}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if strings.Contains(line, "/../") || strings.Contains(line, prefix) {
			t.Errorf("cgroup %q is outside of the node's", line)
		}
	}
	// Nobody answers at the machine's addresses, nor further away.
	if out, err := n.Run(t.Context(), "ip", "-o", "link"); err != nil || strings.Count(out, "\n") != 2 {
		t.Errorf("devices are %q (%v), want lo and %s", out, err, Uplink)
	}
}

func TestDaemonThatFailsIsReported(t *testing.T) {
	n := NewNode(t, NodeConfig{NoContainerd: true})
	_, err := n.Start(t.Context(), Daemon{
		Name:  "broken",
		Args:  []string{"sh", "-c", "echo the reason; exit 3"},
		Ready: func(context.Context) error { return os.ErrNotExist },
	})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("got %v, want the exit status and the last lines", err)
	}
}

func TestNginxServes(t *testing.T) {
	n := NewNode(t, NodeConfig{})
	appImage(t, n)
	nginx, err := image.Nginx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Import(t.Context(), nginx); err != nil {
		t.Fatal(err)
	}
	c, err := n.CRI()
	if err != nil {
		t.Fatal(err)
	}
	pod, err := c.RunPod(t.Context(), PodSpec{Name: "nginx"})
	if err != nil {
		t.Fatal(err)
	}
	server, err := pod.Run(t.Context(), ContainerSpec{Image: image.NginxRef})
	if err != nil {
		t.Fatal(err)
	}
	client := runApp(t, n, "client", "sleep")
	err = Poll(t.Context(), "nginx to answer", func(ctx context.Context) error {
		got, err := client.Exec(ctx, "/app", "get", "http://"+pod.IPs[0].String()+"/")
		if err != nil {
			return err
		}
		if !strings.Contains(got.Stdout, `"status":200`) || !strings.Contains(got.Stdout, "nginx") {
			return errors.New(got.Stdout + got.Stderr)
		}
		return nil
	})
	if err != nil {
		log, _ := server.Log()
		t.Fatal(err, log)
	}
}
