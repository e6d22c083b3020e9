// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/c8s-dev/c8s/nri"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
	"github.com/c8s-dev/c8s/test/stack/image"
)

// security is a container's security context, which stack fills in.
func security(c *cri.ContainerConfig) *cri.LinuxContainerSecurityContext {
	return c.Linux.SecurityContext
}

func envs(pairs ...string) func(*cri.ContainerConfig) {
	return func(c *cri.ContainerConfig) {
		for i := 0; i < len(pairs); i += 2 {
			c.Envs = append(c.Envs, &cri.KeyValue{Key: pairs[i], Value: []byte(pairs[i+1])})
		}
	}
}

// TestNothingElseStarts asks containerd, as a kubelet would that follows a
// hostile API server, for every container that the manifest does not list.
func TestNothingElseStarts(t *testing.T) {
	w := newWorld(t, []string{"one"}, func(w *world, m *policy.Manifest) {
		volumes := w.entry("volumes", w.rule("sleep"))
		volumes.Images[0].Run.Mounts = []policy.MountRule{
			{Destination: "/data", Source: policy.MountEmptyDir},
			{Destination: "/conf", Source: policy.MountConfigMap, ReadOnly: true},
			{Destination: "/claim", Source: policy.MountPersistentVolume},
			{Destination: "/claim/conf", Source: policy.MountConfigMap},
		}
		m.Workloads = append(m.Workloads, volumes)
	})
	n := w.nodes[0]
	other := must(w.app.Reconfigure("local.test/other:1", func(c *v1.Config) { c.Labels = map[string]string{"of": "somebody"} }))
	preload := must(w.app.Reconfigure("local.test/preload:1", func(c *v1.Config) { c.Env = []string{"LD_PRELOAD=/data/x.so"} }))
	n.load(other, preload)

	strict, volumes := n.pod(t, "strict", "strict"), n.pod(t, "volumes", "volumes")
	at := func(source, destination string) func(*cri.ContainerConfig) {
		return func(c *cri.ContainerConfig) {
			c.Mounts = append(c.Mounts, &cri.Mount{HostPath: source, ContainerPath: destination})
		}
	}
	emptyDir, configMap := n.volume(volumes, "empty-dir", "data"), n.volume(volumes, "configmap", "conf")
	ofStrict := n.volume(strict, "empty-dir", "data")
	n.write(path.Join(kubelet, volumes.Config.Metadata.Uid, "containers/main/0a1b2c3d"), nil)
	must(n.Run(t.Context(), "mkdir", "-p", n.localVolume(volumes)))
	must(n.Run(t.Context(), "mount", "--bind", "/etc", n.localVolume(volumes)))
	claim := n.volume(volumes, "nfs", "claim")
	must(n.Run(t.Context(), "ln", "-s", "/etc", path.Join(claim, "conf")))

	for name, tc := range map[string]struct {
		pod  *stack.Pod
		edit func(*cri.ContainerConfig)
		want []string
	}{
		"other config, same layers":     {strict, func(c *cri.ContainerConfig) { c.Image.Image = other.Ref }, []string{"image-unlisted", other.Config}},
		"environment in another config": {strict, func(c *cri.ContainerConfig) { c.Image.Image = preload.Ref }, []string{"image-unlisted"}},
		"another image":                 {strict, func(c *cri.ContainerConfig) { c.Image.Image = w.pause.Ref }, []string{"image-unlisted"}},
		"arguments":                     {strict, func(c *cri.ContainerConfig) { c.Args = []string{"run", "/app", "env"} }, []string{"args-not-allowed"}},
		"no arguments":                  {strict, func(c *cri.ContainerConfig) { c.Args = nil }, []string{"args-not-allowed"}},
		"one argument more":             {strict, func(c *cri.ContainerConfig) { c.Args = []string{"sleep", ""} }, []string{"args-not-allowed"}},
		"two arguments in one":          {strict, func(c *cri.ContainerConfig) { c.Command, c.Args = []string{"/app sleep"}, nil }, []string{"args-not-allowed"}},
		"command":                       {strict, func(c *cri.ContainerConfig) { c.Command, c.Args = []string{"/proc/self/exe"}, []string{"sleep"} }, []string{"args-not-allowed"}},
		"variable":                      {strict, envs("MODE", "debug"), []string{"env-not-allowed"}},
		"LD_PRELOAD":                    {strict, envs("LD_PRELOAD", "/dev/shm/x.so"), []string{"env-not-allowed"}},
		"PATH":                          {strict, envs("PATH", "/dev/shm"), []string{"env-not-allowed"}},
		"a name with an equals sign":    {strict, envs("HOSTNAME=a\nLD_PRELOAD", "/x"), []string{"env-not-allowed"}},
		"Service variable":              {strict, envs("WEB_SERVICE_HOST", "10.0.0.1"), []string{"env-not-allowed"}},
		"working directory":             {strict, func(c *cri.ContainerConfig) { c.WorkingDir = "/dev/shm" }, []string{"cwd-not-allowed"}},
		"root":                          {strict, func(c *cri.ContainerConfig) { security(c).RunAsUser = &cri.Int64Value{} }, []string{"user-not-allowed"}},
		"root by name":                  {strict, func(c *cri.ContainerConfig) { security(c).RunAsUsername = "0" }, []string{"user-not-allowed"}},
		"another group": {strict, func(c *cri.ContainerConfig) {
			security(c).RunAsUser, security(c).RunAsGroup = &cri.Int64Value{Value: 65535}, &cri.Int64Value{Value: 6}
		}, []string{"user-not-allowed"}},
		"groups":                     {strict, func(c *cri.ContainerConfig) { security(c).SupplementalGroups = []int64{0} }, []string{"group-not-allowed"}},
		"the node's root":            {strict, at("/", "/host"), []string{"mount-not-allowed", "hostPath"}},
		"containerd's socket":        {strict, at(stack.ContainerdSocket, "/run/containerd.sock"), []string{"mount-not-allowed"}},
		"the gate":                   {strict, at(runDir, runDir), []string{"mount-not-allowed"}},
		"a volume not listed":        {strict, at(ofStrict, "/data"), []string{"mount-not-allowed"}},
		"over the program":           {strict, at(ofStrict, "/app"), []string{"mount-not-allowed"}},
		"over /proc":                 {strict, at("/proc", "/proc"), []string{"mount-not-allowed"}},
		"over /etc/hosts":            {strict, at("/etc/hosts", "/etc/hosts"), []string{"mount-not-allowed"}},
		"dots to the program":        {strict, at(ofStrict, "/dev/shm/../../app"), []string{"mount-not-allowed"}},
		"listed, elsewhere":          {volumes, at(emptyDir, "/app"), []string{"mount-not-allowed"}},
		"listed, of another kind":    {volumes, at(emptyDir, "/conf"), []string{"mount-not-allowed"}},
		"listed, of another pod":     {volumes, at(ofStrict, "/data"), []string{"mount-not-allowed"}},
		"listed, by dots":            {volumes, at(emptyDir+"/../../../../../../../etc", "/data"), []string{"mount-not-allowed"}},
		"a folder beside the volume": {volumes, at(path.Dir(emptyDir), "/data"), []string{"mount-not-allowed"}},
		"a folder in the volume":     {volumes, at(emptyDir+"/file", "/data"), []string{"mount-not-allowed"}},
		"listed read-only":           {volumes, at(configMap, "/conf"), []string{"mount-writable"}},
		"twice at a place":           {volumes, func(c *cri.ContainerConfig) { at(emptyDir, "/data")(c); at(emptyDir, "/data/")(c) }, nil},
		"a claim of the node's /etc": {volumes, at(n.localVolume(volumes), "/claim"), []string{"mount-not-allowed", `the node's "/etc"`}},
		"through a claim's link":     {volumes, func(c *cri.ContainerConfig) { at(claim, "/claim")(c); at(configMap, "/claim/conf")(c) }, []string{"mount-not-allowed", "below"}},
		"termination log": {
			volumes, at(path.Join(kubelet, volumes.Config.Metadata.Uid, "containers/main/0a1b2c3d"), "/app"),
			[]string{"mount-not-allowed"},
		},
		"shared mount": {volumes, func(c *cri.ContainerConfig) {
			at(emptyDir, "/data")(c)
			c.Mounts[0].Propagation = cri.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}, nil},
		"device": {strict, func(c *cri.ContainerConfig) {
			c.Devices = []*cri.Device{{HostPath: "/dev/fuse", ContainerPath: "/dev/null2", Permissions: "rwm"}}
		}, []string{"device-not-allowed"}},
		"device under a known name": {strict, func(c *cri.ContainerConfig) {
			c.Devices = []*cri.Device{{HostPath: "/dev/fuse", ContainerPath: "/dev/null", Permissions: "rwm"}}
		}, nil},
		"CDI device": {strict, func(c *cri.ContainerConfig) {
			c.CDIDevices = []*cri.CDIDevice{{Name: "vendor.example/gpu=0"}}
		}, nil},
		"capability": {strict, func(c *cri.ContainerConfig) {
			security(c).Capabilities = &cri.Capability{AddCapabilities: []string{"NET_ADMIN"}}
		}, []string{"capability-not-allowed"}},
		"all capabilities": {strict, func(c *cri.ContainerConfig) {
			security(c).Capabilities = &cri.Capability{AddCapabilities: []string{"ALL"}}
		}, []string{"capability-not-allowed"}},
		"the node's IPC": {strict, func(c *cri.ContainerConfig) {
			security(c).NamespaceOptions = &cri.NamespaceOption{Ipc: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}
		}, nil},
		"nothing hidden":      {strict, func(c *cri.ContainerConfig) { security(c).MaskedPaths = nil }, []string{"privileged"}},
		"nothing protected":   {strict, func(c *cri.ContainerConfig) { security(c).ReadonlyPaths = nil }, []string{"privileged"}},
		"open stdin":          {strict, func(c *cri.ContainerConfig) { c.Stdin = true }, []string{"stdin-not-allowed"}},
		"stdin once":          {strict, func(c *cri.ContainerConfig) { c.Stdin, c.StdinOnce = true, true }, []string{"stdin-not-allowed"}},
		"terminal":            {strict, func(c *cri.ContainerConfig) { c.Tty = true }, []string{"stdin-not-allowed"}},
		"privileged":          {strict, func(c *cri.ContainerConfig) { security(c).Privileged = true }, nil},
		"a bootstrap entry's": {strict, func(c *cri.ContainerConfig) { c.Args = []string{"serve"} }, []string{"args-not-allowed"}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tc.pod.Run(t.Context(), stack.ContainerSpec{Name: "bad", Image: w.app.Ref, Args: []string{"sleep"}, Edit: tc.edit})
			refused(t, name, err, tc.want...)
			if c != nil {
				if err := c.Remove(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("what containerd passes over", func(t *testing.T) {
		c, err := strict.Run(t.Context(), stack.ContainerSpec{Name: "apart", Image: w.app.Ref, Args: []string{"sleep"}, Edit: func(c *cri.ContainerConfig) {
			security(c).NamespaceOptions = &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_NODE}
			security(c).Capabilities = &cri.Capability{AddAmbientCapabilities: []string{"NET_RAW"}}
		}})
		if err != nil {
			t.Fatal(err)
		}
		task := strings.Fields(must(n.Run(t.Context(), "sh", "-c", "ctr -n k8s.io tasks ls | grep "+c.ID)))[1]
		for _, ns := range []string{"net", "pid", "ipc", "uts", "mnt"} {
			if must(os.Readlink("/proc/"+task+"/ns/"+ns)) == must(os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", n.Pid(), ns))) {
				t.Errorf("the container is in the node's %s namespace", ns)
			}
		}
		if s := string(must(os.ReadFile("/proc/" + task + "/status"))); !strings.Contains(s, "CapAmb:\t0000000000000000") {
			t.Errorf("it has ambient capabilities: %s", s)
		}
		if err := c.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	})
	// What was refused has left the pods as they were.
	n.run(t, strict, "sleep")
	if _, err := volumes.Run(t.Context(), stack.ContainerSpec{Image: w.app.Ref, Args: []string{"sleep"}, Edit: at(emptyDir, "/data")}); err != nil {
		t.Error(err)
	}
	_, err := strict.Run(t.Context(), stack.ContainerSpec{Name: "second", Image: w.app.Ref, Args: []string{"serve"}})
	refused(t, "a container of another entry", err, "args-not-allowed")
}

func (n *node) localVolume(p *stack.Pod) string {
	return path.Join(kubelet, p.Config.Metadata.Uid, "volumes/kubernetes.io~local-volume/disk")
}

// TestPodsAsAWhole are refusals of sandboxes, and of pods by what they say of
// themselves.
func TestPodsAsAWhole(t *testing.T) {
	w := newWorld(t, []string{"one"})
	n := w.nodes[0]
	in := func(c *cri.PodSandboxConfig) *cri.LinuxSandboxSecurityContext { return c.Linux.SecurityContext }
	for name, tc := range map[string]struct {
		entry string
		edit  func(*cri.PodSandboxConfig)
		want  []string
	}{
		"the node's processes": {"strict", func(c *cri.PodSandboxConfig) { in(c).NamespaceOptions.Pid = cri.NamespaceMode_NODE }, []string{"pid"}},
		"the node's IPC":       {"strict", func(c *cri.PodSandboxConfig) { in(c).NamespaceOptions.Ipc = cri.NamespaceMode_NODE }, []string{"ipc"}},
		"the node's network": {"strict", func(c *cri.PodSandboxConfig) {
			c.Hostname, in(c).NamespaceOptions.Network = "", cri.NamespaceMode_NODE
		}, []string{"host-network"}},
		"privileged":              {"strict", func(c *cri.PodSandboxConfig) { in(c).Privileged = true }, nil},
		"sysctl":                  {"strict", func(c *cri.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"} }, []string{"sysctl-not-allowed"}},
		"another entry":           {"web", nil, []string{"args-not-allowed"}},
		"no such entry":           {"admin", nil, []string{"admin"}},
		"a bootstrap entry":       {"c8s-node", nil, []string{"host-network"}},
		"an entry by its label":   {"", func(c *cri.PodSandboxConfig) { c.Labels[nri.AnnotationEntry] = "strict" }, []string{"workload-ambiguous"}},
		"tolerating the plugin":   {"web", tolerate, []string{"args-not-allowed"}},
		"posing as a sandbox":     {"web", func(c *cri.PodSandboxConfig) { c.Annotations["io.kubernetes.cri.container-type"] = "sandbox" }, []string{"args-not-allowed"}},
		"posing as another pod":   {"web", func(c *cri.PodSandboxConfig) { c.Annotations["io.kubernetes.cri.sandbox-id"] = "x" }, []string{"args-not-allowed"}},
		"untrusted":               {"strict", func(c *cri.PodSandboxConfig) { c.Annotations["io.kubernetes.cri.untrusted-workload"] = "true" }, []string{"untrusted"}},
		"order by the annotation": {"web", func(c *cri.PodSandboxConfig) { c.Annotations["run.oci.keep_original_groups"] = "1" }, []string{"args-not-allowed"}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := n.tryPod(t.Context(), strings.ReplaceAll(name, " ", "-"), tc.entry, func(c *cri.PodSandboxConfig) {
				if c.Annotations == nil {
					c.Annotations = map[string]string{}
				}
				if tc.edit != nil {
					tc.edit(c)
				}
			})
			if err == nil {
				_, err = p.Run(t.Context(), stack.ContainerSpec{Image: w.app.Ref, Args: []string{"sleep"}, Edit: func(c *cri.ContainerConfig) {
					security(c).Privileged = in(p.Config).Privileged
				}})
			}
			refused(t, name, err, tc.want...)
			if p != nil {
				if err := p.Remove(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("another runtime class", func(t *testing.T) {
		_, err := n.cri.Runtime.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{RuntimeHandler: "plain", Config: &cri.PodSandboxConfig{
			Metadata: &cri.PodSandboxMetadata{Name: "class", Namespace: "default", Uid: "class"}, Linux: &cri.LinuxPodSandboxConfig{},
		}})
		refused(t, "a runtime class that is not there", err, "plain")
	})
	t.Run("another pause image", func(t *testing.T) {
		evil := must(w.pause.Reconfigure(image.PauseRef, func(c *v1.Config) { c.Env = []string{"LD_PRELOAD=/x"} }))
		n.load(evil)
		defer n.load(w.pause)
		_, err := n.tryPod(t.Context(), "pause", "strict")
		refused(t, "another pause image", err, "sandbox-unlisted", evil.Config)
	})
}

func tolerate(c *cri.PodSandboxConfig) {
	c.Annotations["c8s.dev/tolerate-missing-plugin"] = "true"
}

// TestWhatRunsIsNotLoosened are attempts on a container that runs as listed.
func TestWhatRunsIsNotLoosened(t *testing.T) {
	w := newWorld(t, []string{"one"}, func(w *world, m *policy.Manifest) {
		m.Workloads[2].Exec = []policy.Exec{{Args: []string{"/app", "env"}}}
		m.Workloads[1].Images = append(m.Workloads[1].Images, policy.Image{Name: "moved", Digest: "sha256:" + policy.Digest(strings.Repeat("0", 64))})
	})
	n := w.nodes[0]
	p := n.pod(t, "strict", "strict")
	c := n.run(t, p, "sleep")

	t.Run("sockets", func(t *testing.T) {
		probe, err := p.Run(t.Context(), stack.ContainerSpec{Name: "sockets", Image: w.app.Ref, Args: []string{"sockets"}, Edit: func(c *cri.ContainerConfig) {
			security(c).Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if code, err := probe.Wait(t.Context()); err != nil || code != 0 {
			t.Fatalf("it ended with %d, %v", code, err)
		}
		var found map[string]string
		if err := json.Unmarshal([]byte(must(probe.Log())), &found); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"raw", "raw6", "packet", "packet-dgram", "xdp", "vsock", "bluetooth", "can", "bpf", "io_uring"} {
			if r := found[kind]; r != "EPERM" && r != "EAFNOSUPPORT" {
				t.Errorf("unconfined, %s: %q", kind, r)
			}
		}
		if found["tcp"] != "ok" || found["udp"] != "ok" {
			t.Errorf("ordinary sockets: %v", found)
		}
	})
	t.Run("exec", func(t *testing.T) {
		if got, err := c.Exec(t.Context(), "/app", "env"); err != nil || got.Code != 0 {
			t.Errorf("a listed exec: %+v, %v", got, err)
		}
		_, err := c.Exec(t.Context(), "/app", "run", "/app")
		refused(t, "another command", err, "exec-not-allowed")
		_, err = c.Exec(t.Context(), "app", "env")
		refused(t, "the same, otherwise spelled", err, "exec-not-allowed")
		out, err := n.Run(t.Context(), "script", "-qec", "ctr -n k8s.io tasks exec --tty --exec-id x "+c.ID+" /app env", "/dev/null")
		refused(t, "with a terminal: "+out, err, "exec-terminal")
	})
	t.Run("update", func(t *testing.T) {
		if err := c.Update(t.Context(), &cri.LinuxContainerResources{CpuShares: 512}); err != nil {
			t.Errorf("a limit: %v", err)
		}
		err := c.Update(t.Context(), &cri.LinuxContainerResources{Unified: map[string]string{"../x/cgroup.procs": "1"}})
		refused(t, "a file of another cgroup", err)
	})
	t.Run("a tag that moves", func(t *testing.T) {
		evil := must(w.app.Reconfigure(image.AppRef, func(c *v1.Config) { c.Labels = map[string]string{"is": "evil"} }))
		before, err := p.Create(t.Context(), stack.ContainerSpec{Name: "before", Image: w.app.Ref, Args: []string{"sleep"}})
		if err != nil {
			t.Fatal(err)
		}
		n.load(evil)
		defer n.load(w.app)
		if err := before.Start(t.Context()); err != nil {
			t.Errorf("what was created before: %v", err)
		}
		_, err = p.Run(t.Context(), stack.ContainerSpec{Name: "after", Image: w.app.Ref, Args: []string{"sleep"}})
		refused(t, "what is under the tag now", err, "image-unlisted", evil.Config)
	})
}
