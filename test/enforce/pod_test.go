// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"path"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/nri"
	"github.com/c8s-dev/c8s/test/stack"
)

const kubelet = "/var/lib/kubelet/pods"

// pod runs a sandbox as a kubelet does: in a cgroup of the pod's own.
func (n *node) pod(t testing.TB, name, entry string, edits ...func(*cri.PodSandboxConfig)) *stack.Pod {
	t.Helper()
	p, err := n.tryPod(t.Context(), name, entry, edits...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (n *node) tryPod(ctx context.Context, name, entry string, edits ...func(*cri.PodSandboxConfig)) (*stack.Pod, error) {
	spec := stack.PodSpec{Name: name, Edit: func(c *cri.PodSandboxConfig) {
		c.Linux.CgroupParent = "/kubepods/pod" + c.Metadata.Uid
		for _, edit := range edits {
			edit(c)
		}
	}}
	if entry != "" {
		spec.Annotations = map[string]string{nri.AnnotationEntry: entry}
	}
	return n.cri.RunPod(ctx, spec)
}

// run starts a container of the test program in a pod.
func (n *node) run(t testing.TB, p *stack.Pod, args ...string) *stack.Container {
	t.Helper()
	c, err := p.Run(t.Context(), stack.ContainerSpec{Image: n.w.app.Ref, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// volume makes one of a pod's volumes with a file in it.
func (n *node) volume(p *stack.Pod, plugin, name string) string {
	n.w.t.Helper()
	dir := path.Join(kubelet, p.Config.Metadata.Uid, "volumes", "kubernetes.io~"+plugin, name)
	n.write(path.Join(dir, "file"), []byte("of "+name))
	return dir
}

// kubeletMounts are what every pod of a cluster gets.
func (n *node) kubeletMounts(p *stack.Pod) []*cri.Mount {
	n.w.t.Helper()
	dir := path.Join(kubelet, p.Config.Metadata.Uid)
	n.write(path.Join(dir, "etc-hosts"), []byte("127.0.0.1 localhost\n"))
	n.write(path.Join(dir, "containers/main/0a1b2c3d"), nil)
	return []*cri.Mount{
		{ContainerPath: "/var/run/secrets/kubernetes.io/serviceaccount", HostPath: n.volume(p, "projected", "kube-api-access-x2k4p"), Readonly: true},
		{ContainerPath: "/etc/hosts", HostPath: path.Join(dir, "etc-hosts")},
		{ContainerPath: "/dev/termination-log", HostPath: path.Join(dir, "containers/main/0a1b2c3d")},
	}
}

// ask has a container talk to an address, once.
func ask(ctx context.Context, from *stack.Container, to netip.Addr) (string, error) {
	got, err := from.Exec(ctx, "/app", "dial", "tcp", netip.AddrPortFrom(to, 9000).String(), "hello")
	if err != nil {
		return "", err
	}
	if got.Code != 0 {
		return "", errors.New(got.Stderr)
	}
	var answer struct{ Answer string }
	err = json.Unmarshal([]byte(got.Stdout), &answer)
	return answer.Answer, err
}

func running(ctx context.Context, c *stack.Container) bool {
	s, err := c.Status(ctx)
	return err == nil && s.State == cri.ContainerState_CONTAINER_RUNNING
}

// info is what only containerd tells of a pod.
type info struct {
	netns string
	pid   int
}

func (n *node) info(t testing.TB, p *stack.Pod) info {
	t.Helper()
	got, err := n.cri.Runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Pid         int
		RuntimeSpec struct {
			Linux struct {
				Namespaces []struct{ Type, Path string }
			}
		}
	}
	if err := json.Unmarshal([]byte(got.Info["info"]), &v); err != nil {
		t.Fatal(err)
	}
	i := info{pid: v.Pid}
	for _, ns := range v.RuntimeSpec.Linux.Namespaces {
		if ns.Type == "network" {
			i.netns = ns.Path
		}
	}
	return i
}
