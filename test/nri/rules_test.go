// SPDX-License-Identifier: Apache-2.0

package nri_test

import (
	"fmt"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
	stackimage "github.com/c8s-dev/c8s/test/stack/image"
)

// A rule opens what it names, and only for the entry that has it.
func TestRulesOpenWhatTheyName(t *testing.T) {
	n := newNode(t, stack.NodeConfig{})
	const uid = "0b7e8a52-1d0c-4f60-9a55-7a0f4c1c2d3e"
	folder := "/var/lib/kubelet/pods/" + uid
	if _, err := n.Run(t.Context(), "mkdir", "-p", folder+"/volumes/kubernetes.io~empty-dir/data", folder+"/volumes/kubernetes.io~configmap/cfg"); err != nil {
		t.Fatal(err)
	}
	runs := func(run policy.Run) func(*policy.Manifest) {
		return func(m *policy.Manifest) {
			run.Args = []string{"/app", "sleep"}
			m.Workloads[0].Images[0].Run = &run
		}
	}
	host := func(m *policy.Manifest) { m.Workloads[0].HostNetwork = true }
	mount := func(source, at string) *cri.Mount {
		return &cri.Mount{HostPath: folder + "/volumes/kubernetes.io~" + source, ContainerPath: at, SelinuxRelabel: false}
	}
	edit := func(change func(*cri.ContainerConfig)) func(*cri.ContainerConfig) { return change }
	privileged := func(c *cri.PodSandboxConfig) { c.Linux.SecurityContext.Privileged = true }
	for i, tc := range []struct {
		name string
		rule func(*policy.Manifest)
		pod  stack.PodSpec
		edit func(*cri.ContainerConfig)
	}{
		{"privileged", runs(policy.Run{Privileged: true, Capabilities: nil, Sockets: policy.SocketKinds()}), stack.PodSpec{Edit: privileged}, edit(func(c *cri.ContainerConfig) { c.Linux.SecurityContext.Privileged = true })},
		{"capability", runs(policy.Run{Capabilities: []string{"NET_ADMIN"}}), stack.PodSpec{}, edit(func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.Capabilities = &cri.Capability{AddCapabilities: []string{"NET_ADMIN"}}
		})},
		{"device", runs(policy.Run{Devices: []string{"/dev/kmsg"}}), stack.PodSpec{}, edit(func(c *cri.ContainerConfig) {
			c.Devices = []*cri.Device{{HostPath: "/dev/kmsg", ContainerPath: "/dev/kmsg", Permissions: "r"}}
		})},
		{"volumes", runs(policy.Run{Mounts: []policy.MountRule{{Destination: "/data", Source: policy.MountEmptyDir}, {Destination: "/cfg", Source: policy.MountConfigMap}}}), stack.PodSpec{UID: uid}, edit(func(c *cri.ContainerConfig) {
			c.Mounts = []*cri.Mount{mount("empty-dir/data", "/data"), mount("configmap/cfg", "/cfg")}
		})},
		{"path of the node", runs(policy.Run{Mounts: []policy.MountRule{{Destination: "/host", Source: "/etc/cni", ReadOnly: true}}}), stack.PodSpec{}, edit(func(c *cri.ContainerConfig) {
			c.Mounts = []*cri.Mount{{HostPath: "/etc/cni", ContainerPath: "/host", Readonly: true}}
		})},
		{"environment", runs(policy.Run{Env: []policy.EnvRule{{Name: "MODE", Any: true}}}), stack.PodSpec{}, edit(func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "MODE", Value: []byte("x")}} })},
		{"user", runs(policy.Run{User: "7:7"}), stack.PodSpec{}, edit(func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser, c.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: 7}, &cri.Int64Value{Value: 7}
		})},
		{"terminal", runs(policy.Run{Stdin: true}), stack.PodSpec{}, edit(func(c *cri.ContainerConfig) { c.Stdin, c.Tty = true, true })},
		{"sysctl", runs(policy.Run{Sysctls: []string{"net.core.somaxconn"}}), stack.PodSpec{Edit: func(c *cri.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"net.core.somaxconn": "9"} }}, nil},
		{"the node's network", host, stack.PodSpec{HostNetwork: true}, nil},
		{"the node's processes", runs(policy.Run{HostNamespaces: []string{policy.NamespacePID}}), stack.PodSpec{Edit: func(c *cri.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
		}}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, _ := n.serve(n.manifest(tc.rule))
			defer d.end()
			tc.pod.Name = fmt.Sprintf("pod-%d", i)
			p, err := n.cri.RunPod(t.Context(), tc.pod)
			if err != nil {
				t.Fatal(err)
			}
			c, err := p.Run(t.Context(), stack.ContainerSpec{Image: stackimage.AppRef, Args: []string{"sleep"}, Edit: tc.edit})
			if err != nil {
				t.Fatal(err)
			}
			if s, err := c.Status(t.Context()); err != nil || s.State != cri.ContainerState_CONTAINER_RUNNING {
				t.Errorf("%v, %v", s, err)
			}
			d.Manifest(n.manifest(func(m *policy.Manifest) {
				m.Unlisted = policy.UnlistedCut
				if tc.pod.HostNetwork {
					m.Workloads[0].HostNetwork = true
					m.Workloads[0].Images = m.Workloads[0].Images[1:]
				}
			}))
			_, err = p.Run(t.Context(), stack.ContainerSpec{Name: "again", Image: stackimage.AppRef, Args: []string{"sleep"}, Edit: tc.edit})
			refused(t, err, "refused (")
			if err := p.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
