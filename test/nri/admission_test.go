// SPDX-License-Identifier: Apache-2.0

package nri_test

import (
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/nri"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
	stackimage "github.com/c8s-dev/c8s/test/stack/image"
)

func TestAListedPodStartsAndTheMeshHearsOfIt(t *testing.T) {
	n := newNode(t, stack.NodeConfig{})
	d, _ := n.serve(n.manifest())
	events := n.watch(d)
	p := n.pod(stack.PodSpec{Name: "web"})
	c := n.run(p, "main", "sleep")
	e := <-events
	if e.Removed || e.Pod.Name != "web" || e.Pod.Entry != "web" || e.Pod.Netns == "" || len(e.Pod.Addrs) != len(p.IPs) || e.Pod.Addrs[0] != p.IPs[0] {
		t.Errorf("%+v", e)
	}
	if got, err := c.Exec(t.Context(), "/app", "env"); err != nil || got.Code != 0 {
		t.Errorf("a listed process: %+v, %v", got, err)
	}
	_, err := c.Exec(t.Context(), "/app", "read", "/etc/hosts")
	refused(t, err, "exec-not-allowed")
	if err := c.Update(t.Context(), &cri.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}); err != nil {
		t.Errorf("another limit: %v", err)
	}
	refused(t, c.Update(t.Context(), &cri.LinuxContainerResources{Unified: map[string]string{"cgroup.freeze": "1"}}), "update-not-allowed")
	if err := p.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e = <-events; !e.Removed {
		t.Errorf("%+v", e)
	}
}

func TestWhatIsNotListedDoesNotStart(t *testing.T) {
	n := newNode(t, stack.NodeConfig{})
	other, err := n.app.Reconfigure("local.test/other:1", func(c *v1.Config) { c.Env = append(c.Env, "OTHER=1") })
	if err != nil {
		t.Fatal(err)
	}
	n.load(other)
	n.serve(n.manifest())
	p := n.pod(stack.PodSpec{Name: "web"})
	security := func(change func(*cri.LinuxContainerSecurityContext)) func(*cri.ContainerConfig) {
		return func(c *cri.ContainerConfig) { change(c.Linux.SecurityContext) }
	}
	for name, tc := range map[string]struct {
		image  string
		edit   func(*cri.ContainerConfig)
		reason string
	}{
		"another image on the same layers": {image: other.Ref, reason: "image-unlisted"},
		"another command":                  {edit: func(c *cri.ContainerConfig) { c.Args = []string{"run", "/app", "env"} }, reason: "args-not-allowed"},
		"another entrypoint":               {edit: func(c *cri.ContainerConfig) { c.Command = []string{"/app", "env"} }, reason: "args-not-allowed"},
		"a variable":                       {edit: func(c *cri.ContainerConfig) { c.Envs = []*cri.KeyValue{{Key: "GODEBUG", Value: []byte("x=y")}} }, reason: "env-not-allowed"},
		"a working directory":              {edit: func(c *cri.ContainerConfig) { c.WorkingDir = "/proc" }, reason: "cwd-not-allowed"},
		"a path of the node":               {edit: func(c *cri.ContainerConfig) { c.Mounts = []*cri.Mount{{HostPath: "/etc", ContainerPath: "/host"}} }, reason: "mount-not-allowed"},
		"a device": {edit: func(c *cri.ContainerConfig) {
			c.Devices = []*cri.Device{{HostPath: "/dev/kmsg", ContainerPath: "/dev/kmsg", Permissions: "r"}}
		}, reason: "device-not-allowed"},
		"open stdin": {edit: func(c *cri.ContainerConfig) { c.Stdin = true }, reason: "stdin-not-allowed"},
		"a terminal": {edit: func(c *cri.ContainerConfig) { c.Tty = true; c.Stdin = true }, reason: "stdin-not-allowed"},
		"a capability": {edit: security(func(s *cri.LinuxContainerSecurityContext) {
			s.Capabilities = &cri.Capability{AddCapabilities: []string{"NET_ADMIN"}}
		}), reason: "capability-not-allowed"},
		"another user":      {edit: security(func(s *cri.LinuxContainerSecurityContext) { s.RunAsUser = &cri.Int64Value{Value: 4} }), reason: "user-not-allowed"},
		"a group":           {edit: security(func(s *cri.LinuxContainerSecurityContext) { s.SupplementalGroups = []int64{4} }), reason: "group-not-allowed"},
		"nothing masked":    {edit: security(func(s *cri.LinuxContainerSecurityContext) { s.MaskedPaths = nil }), reason: "privileged-not-allowed"},
		"nothing read-only": {edit: security(func(s *cri.LinuxContainerSecurityContext) { s.ReadonlyPaths = nil }), reason: "privileged-not-allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.image == "" {
				tc.image = stackimage.AppRef
			}
			_, err := p.Run(t.Context(), stack.ContainerSpec{Name: strings.ReplaceAll(name, " ", "-"), Image: tc.image, Args: []string{"sleep"}, Edit: tc.edit})
			refused(t, err, tc.reason)
		})
	}
	n.run(p, "listed", "sleep") // the pod is still good
}

func TestSandboxesThatAreNotListedDoNotStart(t *testing.T) {
	n := newNode(t, stack.NodeConfig{})
	n.serve(n.manifest())
	for name, tc := range map[string]struct {
		spec   stack.PodSpec
		reason string
	}{
		"in the node's network": {stack.PodSpec{HostNetwork: true}, "sandbox-setting"},
		"with the node's processes": {stack.PodSpec{Edit: func(c *cri.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
		}}, "sandbox-setting"},
		"with a sysctl": {stack.PodSpec{Edit: func(c *cri.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"net.core.somaxconn": "9"} }}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tc.spec.Name = "odd"
			p, err := n.cri.RunPod(t.Context(), tc.spec)
			if tc.reason != "" {
				refused(t, err, tc.reason)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.Run(t.Context(), stack.ContainerSpec{Name: "main", Image: stackimage.AppRef, Args: []string{"sleep"}})
			refused(t, err, "sysctl-not-allowed")
		})
	}
}

func TestATagThatMovesAfterAdmissionChangesNothing(t *testing.T) {
	n := newNode(t, stack.NodeConfig{})
	d, _ := n.serve(n.manifest())
	p := n.pod(stack.PodSpec{Name: "web"})
	c := n.run(p, "main", "sleep")
	moved, err := n.app.Reconfigure(stackimage.AppRef, func(c *v1.Config) { c.Labels = map[string]string{"evil": "yes"} })
	if err != nil {
		t.Fatal(err)
	}
	n.load(moved)
	_, err = p.Run(t.Context(), stack.ContainerSpec{Name: "again", Image: stackimage.AppRef, Args: []string{"sleep"}})
	refused(t, err, "image-unlisted", string(digest(moved))[:20])
	d.Manifest(n.manifest()) // judged again, by what it really runs
	if s, err := c.Status(t.Context()); err != nil || s.State != cri.ContainerState_CONTAINER_RUNNING {
		t.Errorf("%v, %v", s, err)
	}
}

func TestPodsKeepToOneEntry(t *testing.T) {
	n := newNode(t, stack.NodeConfig{})
	n.serve(n.manifest(func(m *policy.Manifest) {
		other := m.Workloads[0]
		other.Name, other.Images, other.Exec = "other", []policy.Image{{Name: "app", Digest: digest(n.app), Run: &policy.Run{Args: []string{"/app", "env"}}}}, nil
		m.Workloads = append(m.Workloads, other)
	}))
	p := n.pod(stack.PodSpec{Name: "web"})
	n.run(p, "first", "sleep")
	_, err := p.Run(t.Context(), stack.ContainerSpec{Name: "second", Image: stackimage.AppRef, Args: []string{"env"}})
	refused(t, err, "args-not-allowed")
	n.run(n.pod(stack.PodSpec{Name: "b", Annotations: map[string]string{nri.AnnotationEntry: "other"}}), "main", "env")
	_, err = n.pod(stack.PodSpec{Name: "c", Annotations: map[string]string{nri.AnnotationEntry: "other"}}).Run(t.Context(), stack.ContainerSpec{Image: stackimage.AppRef, Args: []string{"sleep"}})
	refused(t, err, "args-not-allowed")
}
