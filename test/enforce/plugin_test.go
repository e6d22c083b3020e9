// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/c8s-dev/c8s/test/stack"
)

// adjuster is an NRI plugin that changes containers.
type adjuster struct {
	mu     sync.Mutex
	adjust func(*api.ContainerAdjustment)
}

func (a *adjuster) CreateContainer(context.Context, *api.PodSandbox, *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	adj := &api.ContainerAdjustment{}
	if a.adjust != nil {
		a.adjust(adj)
	}
	return adj, nil, nil
}

func (a *adjuster) set(f func(*api.ContainerAdjustment)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.adjust = f
}

// plugin connects an NRI plugin to the node, which is called in the order of
// index.
func (n *node) plugin(t *testing.T, index, name string) *adjuster {
	t.Helper()
	a := &adjuster{}
	s, err := stub.New(a, stub.WithPluginName(name), stub.WithPluginIdx(index), stub.WithSocketPath(n.Path(stack.NRISocket)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		s.Wait()
	})
	n.w.eventually("the plugin "+name+" to be asked", func(context.Context) error {
		if !strings.Contains(n.Containerd().Log(), index+"-"+name+`\" connected and synchronized`) {
			return errors.New("not yet")
		}
		return nil
	})
	return a
}

// TestOtherPluginsAddNothing: what another NRI plugin makes of a container is
// judged like what was asked for, whether it comes before or after.
func TestOtherPluginsAddNothing(t *testing.T) {
	w := newWorld(t, []string{"one"})
	n := w.nodes[0]
	p := n.pod(t, "strict", "strict")
	for _, plugin := range []struct{ index, name string }{{"01", "first"}, {"99", "zz-last"}} {
		a := n.plugin(t, plugin.index, plugin.name)
		for name, tc := range map[string]struct {
			adjust func(*api.ContainerAdjustment)
			want   string
		}{
			"arguments":    {func(a *api.ContainerAdjustment) { a.SetArgs([]string{"/app", "run", "/app"}) }, "args-not-allowed"},
			"all replaced": {func(a *api.ContainerAdjustment) { a.UpdateArgs([]string{"/app", "run", "/app"}) }, "args-not-allowed"},
			"a variable":   {func(a *api.ContainerAdjustment) { a.AddEnv("LD_PRELOAD", "/x") }, "env-not-allowed"},
			"a mount": {func(a *api.ContainerAdjustment) {
				a.AddMount(&api.Mount{Destination: "/app", Type: "bind", Source: "/bin/bash", Options: []string{"rbind"}})
			}, "mount-not-allowed"},
			"a file system": {func(a *api.ContainerAdjustment) {
				a.AddMount(&api.Mount{Destination: "/etc", Type: "overlay", Source: "overlay", Options: []string{"lowerdir=/root:/etc"}})
			}, "mount-not-allowed"},
			"a device": {func(a *api.ContainerAdjustment) {
				a.AddDevice(&api.LinuxDevice{Path: "/dev/null", Type: "c", Major: 10, Minor: 229})
			}, "device-not-allowed"},
			"a hook": {func(a *api.ContainerAdjustment) {
				a.AddHooks(&api.Hooks{CreateRuntime: []*api.Hook{{Path: "/bin/touch", Args: []string{"touch", "/run/hooked"}}}})
			}, ""},
			"the node's network": {func(a *api.ContainerAdjustment) {
				a.AddOrReplaceNamespace(&api.LinuxNamespace{Type: "network", Path: "/proc/1/ns/net"})
			}, ""},
			"the node's processes": {func(a *api.ContainerAdjustment) { a.RemoveNamespace(&api.LinuxNamespace{Type: "pid"}) }, ""},
			"a limit":              {func(a *api.ContainerAdjustment) { a.AddRlimit("RLIMIT_CORE", 1, 1) }, "rlimit-not-allowed"},
			"a sysctl":             {func(a *api.ContainerAdjustment) { a.SetLinuxSysctl("net.ipv4.ip_forward", "1") }, "sysctl-not-allowed"},
			"another cgroup":       {func(a *api.ContainerAdjustment) { a.SetLinuxCgroupsPath("/kubelet/x") }, "cgroupsPath"},
			"no filter": {func(a *api.ContainerAdjustment) {
				a.SetLinuxSeccompPolicy(&api.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW"})
			}, ""},
			"a CDI device":   {func(a *api.ContainerAdjustment) { a.AddCDIDevice(&api.CDIDevice{Name: "x.example/y=0"}) }, ""},
			"another pod's":  {func(a *api.ContainerAdjustment) { a.AddAnnotation("io.kubernetes.cri.sandbox-id", "x") }, ""},
			"a sandbox's":    {func(a *api.ContainerAdjustment) { a.AddAnnotation("io.kubernetes.cri.container-type", "sandbox") }, ""},
			"systemd orders": {func(a *api.ContainerAdjustment) { a.AddAnnotation("org.systemd.property.Delegate", "true") }, "annotations"},
		} {
			t.Run(plugin.name+"/"+name, func(t *testing.T) {
				a.set(tc.adjust)
				c, err := p.Run(t.Context(), stack.ContainerSpec{Name: "adjusted", Image: w.app.Ref, Args: []string{"sleep"}})
				refused(t, name, err, tc.want)
				if c != nil {
					if err := c.Remove(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		a.set(nil)
	}
	if _, err := n.Run(t.Context(), "test", "!", "-e", "/run/hooked"); err != nil {
		t.Error("a hook ran on the node")
	}
	n.run(t, p, "sleep")
}
