// SPDX-License-Identifier: Apache-2.0

package nri_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/images"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
	stackimage "github.com/c8s-dev/c8s/test/stack/image"
)

// profiles are those that a kubelet asks for.
func profiles() map[string]cri.SecurityProfile_ProfileType {
	return map[string]cri.SecurityProfile_ProfileType{"default": cri.SecurityProfile_RuntimeDefault, "unconfined": cri.SecurityProfile_Unconfined}
}

// kindOf says which kind of manifest's run.sockets each trial of the test
// program belongs to.
var kindOf = map[string]string{
	"vsock": policy.SocketVsock, "packet": policy.SocketPacket, "packet-dgram": policy.SocketPacket, "xdp": policy.SocketXDP,
	"raw": policy.SocketRaw, "raw6": policy.SocketRaw, "bluetooth": policy.SocketRaw, "can": policy.SocketRaw,
	"bpf": policy.SocketBPF, "io_uring": policy.SocketIOUring,
}

func TestContainersMakeNoSocketsPastTheirLink(t *testing.T) {
	n := newNode(t, stack.NodeConfig{})
	d, _ := n.serve(n.manifest())
	for name, profile := range profiles() {
		for _, sockets := range [][]string{nil, {policy.SocketVsock, policy.SocketRaw}, policy.SocketKinds()} {
			d.Manifest(n.manifest(func(m *policy.Manifest) { m.Workloads[0].Images[1].Run.Sockets = sockets }))
			p := n.pod(stack.PodSpec{Name: "probe"})
			c, err := p.Run(t.Context(), stack.ContainerSpec{Image: stackimage.AppRef, Args: []string{"sockets"}, Edit: func(c *cri.ContainerConfig) {
				c.Linux.SecurityContext.Seccomp = &cri.SecurityProfile{ProfileType: profile}
			}})
			if err != nil {
				t.Fatal(err)
			}
			found := n.output(c)
			for _, trial := range []string{"tcp", "tcp6", "udp", "unix", "netlink"} {
				if found[trial] != "ok" {
					t.Errorf("%s, %v: %s is %s", name, sockets, trial, found[trial])
				}
			}
			for trial, kind := range kindOf {
				filtered := slices.Contains([]string{"EPERM", "EAFNOSUPPORT"}, found[trial])
				if !slices.Contains(sockets, kind) && !filtered {
					t.Errorf("%s, %v: %s is %q", name, sockets, trial, found[trial])
				}
			}
			t.Logf("%s, %v: %v", name, sockets, found)
			if err := p.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// 32-bit x86 programs make sockets by socketcall(2), whose arguments a filter
// cannot read: under a profile that allows by list they are killed, under one
// that was unconfined they make none that way.
func TestPrograms32BitMakeNoSocketsPastTheFilter(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("32-bit x86 programs run on amd64 only")
	}
	n := newNode(t, stack.NodeConfig{})
	probe := filepath.Join(t.TempDir(), "probe")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", probe, "github.com/c8s-dev/c8s/test/nri/probe32")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=386", "GOFLAGS=")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	built := must(images.Build(images.Spec{
		OS: "linux", Architecture: "amd64", Entrypoint: []string{"/probe"}, User: "65535:65535",
		Files: []images.File{{Path: "/probe", Mode: 0o755, Data: must(os.ReadFile(probe))}},
	}))
	img := must(stackimage.New("local.test/probe32:1", built))
	n.load(img)
	n.serve(n.manifest(func(m *policy.Manifest) {
		m.Workloads[0].Images = append(m.Workloads[0].Images, policy.Image{Name: "probe", Digest: digest(img)})
	}))
	for name, profile := range profiles() {
		p := n.pod(stack.PodSpec{Name: "probe"})
		c, err := p.Run(t.Context(), stack.ContainerSpec{Image: img.Ref, Edit: func(c *cri.ContainerConfig) {
			c.Linux.SecurityContext.Seccomp = &cri.SecurityProfile{ProfileType: profile}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if profile == cri.SecurityProfile_RuntimeDefault {
			if code, err := c.Wait(t.Context()); err != nil || code == 0 {
				t.Errorf("%s: it ran: exit code %d, %v", name, code, err)
			}
			continue
		}
		found := n.output(c)
		for trial, result := range found {
			if allowed := trial == "socket tcp"; allowed != (result == "ok") {
				t.Errorf("%s: %s is %q", name, trial, result)
			}
		}
	}
}
