// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/policy"
)

const (
	podUID    = "11111111-2222-3333-4444-555555555555"
	sandboxID = "5a4db0"
	own       = "c0ffee"
)

func testNode() *Node {
	return &Node{
		Kubelet: "/var/lib/kubelet", Containerd: []string{"/var/lib/containerd/cri", "/run/containerd/cri"},
		CgroupNamespaces: true,
		OnTmpfs:          func(path string) (bool, error) { return strings.HasSuffix(path, "/fast"), nil },
		Mounts:           func() ([]byte, error) { return os.ReadFile(filepath.Join("testdata", "mountinfo")) },
	}
}

func testPod() Pod {
	return Pod{ContainerID: own, UID: podUID, SandboxID: sandboxID, PID: 4242, Netns: "/var/run/netns/cni-1", Cgroup: "/kubepods/burstable/pod" + podUID, Processes: []uint32{4300}}
}

// ordinary is what containerd makes of a pod without any wish.
func ordinary(t testing.TB) *specs.Spec {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "container.json"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAnOrdinaryContainerHasNothingToRefuse(t *testing.T) {
	s := ordinary(t)
	f := testNode().Container(s, testPod())
	if f.Name != "app" || f.Early || !slices.Equal(f.Args, []string{"/app", "serve"}) || f.Cwd != "/srv" || f.User.UID != 65535 {
		t.Errorf("%+v", f)
	}
	for what, n := range map[string]int{
		"devices": len(f.Devices), "hooks": f.Hooks, "rlimits": len(f.Rlimits), "sysctls": len(f.Sysctls),
		"host namespaces": len(f.HostNamespaces), "other": len(f.Other), "ambient": len(f.Privileges.Ambient),
	} {
		if n != 0 {
			t.Errorf("%d %s: %+v", n, what, f)
		}
	}
	if f.Privileges.AllDevices || !slices.Contains(f.Privileges.MaskedPaths, "/proc/kcore") || !slices.Contains(f.Privileges.Capabilities, "CAP_CHOWN") {
		t.Errorf("privileges: %+v", f.Privileges)
	}
	if f.Seccomp == nil || f.Seccomp.Unconfined || len(f.Seccomp.Open) != 0 {
		t.Errorf("seccomp: %+v", f.Seccomp)
	}
	for _, m := range f.Mounts {
		want := policy.MountRuntime
		if m.Destination == serviceAccountPath {
			want = policy.MountServiceAccount
		}
		if m.Source != want {
			t.Errorf("%+v, want %s", m, want)
		}
		if strings.HasPrefix(m.Destination, "/sys") && !m.ReadOnly {
			t.Errorf("%s writable", m.Destination)
		}
	}
}

func TestWhatAConfigurationAsksForIsAFact(t *testing.T) {
	no := int64(7)
	type facts = policy.ContainerFacts
	has := func(list []string, v string) bool { return slices.Contains(list, v) }
	for name, tc := range map[string]struct {
		change func(*specs.Spec)
		shows  func(facts) bool
	}{
		"device": {func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/sev-guest", Type: "c", Major: 10, Minor: 1}}
		}, func(f facts) bool { return has(f.Devices, "/dev/sev-guest") }},
		"another null device": {func(s *specs.Spec) { s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/null", Type: "b", Major: 8}} }, func(f facts) bool { return has(f.Devices, "/dev/null") }},
		"every device": {func(s *specs.Spec) {
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"})
		}, func(f facts) bool { return f.Privileges.AllDevices }},
		"a device without one": {func(s *specs.Spec) {
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &no, Minor: &no})
		}, func(f facts) bool { return f.Privileges.AllDevices }},
		"hook": {func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/x"}}} }, func(f facts) bool { return f.Hooks == 1 }},
		"start hook": {func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x"}}, Poststop: []specs.Hook{{Path: "/y"}}}
		}, func(f facts) bool { return f.Hooks == 2 }},
		"rlimit":              {func(s *specs.Spec) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE"}} }, func(f facts) bool { return has(f.Rlimits, "RLIMIT_NOFILE") }},
		"sysctl":              {func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.core.somaxconn": "1"} }, func(f facts) bool { return has(f.Sysctls, "net.core.somaxconn") }},
		"capability":          {func(s *specs.Spec) { s.Process.Capabilities.Inheritable = []string{"CAP_SYS_ADMIN"} }, func(f facts) bool { return has(f.Privileges.Capabilities, "CAP_SYS_ADMIN") }},
		"ambient capability":  {func(s *specs.Spec) { s.Process.Capabilities.Ambient = []string{"CAP_CHOWN"} }, func(f facts) bool { return has(f.Privileges.Ambient, "CAP_CHOWN") }},
		"no masked paths":     {func(s *specs.Spec) { s.Linux.MaskedPaths = nil }, func(f facts) bool { return len(f.Privileges.MaskedPaths) == 0 }},
		"no seccomp":          {func(s *specs.Spec) { s.Linux.Seccomp = nil }, func(f facts) bool { return f.Seccomp.Unconfined && len(f.Seccomp.Open) == 6 }},
		"terminal":            {func(s *specs.Spec) { s.Process.Terminal = true }, func(f facts) bool { return f.Terminal }},
		"host pid":            {without(specs.PIDNamespace), func(f facts) bool { return has(f.HostNamespaces, "pid") }},
		"host network":        {without(specs.NetworkNamespace), func(f facts) bool { return has(f.HostNamespaces, "network") }},
		"host ipc":            {without(specs.IPCNamespace), func(f facts) bool { return has(f.HostNamespaces, "ipc") }},
		"host uts":            {without(specs.UTSNamespace), func(f facts) bool { return has(f.HostNamespaces, "uts") }},
		"host cgroups":        {without(specs.CgroupNamespace), func(f facts) bool { return has(f.HostNamespaces, "cgroup") }},
		"host mounts":         {without(specs.MountNamespace), func(f facts) bool { return len(f.Other) == 1 }},
		"another's network":   {joining(specs.NetworkNamespace, "/proc/1/ns/net"), func(f facts) bool { return len(f.Other) == 1 }},
		"another pod's netns": {joining(specs.NetworkNamespace, "/var/run/netns/cni-2"), func(f facts) bool { return len(f.Other) == 1 }},
		"another's processes": {joining(specs.PIDNamespace, "/proc/1/ns/pid"), func(f facts) bool { return len(f.Other) == 1 }},
		"another's mounts":    {joining(specs.MountNamespace, "/proc/4242/ns/mnt"), func(f facts) bool { return len(f.Other) == 1 }},
		"another's users":     {joining(specs.UserNamespace, "/proc/1/ns/user"), func(f facts) bool { return len(f.Other) == 1 }},
		"a namespace twice": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace})
		}, func(f facts) bool { return len(f.Other) == 1 }},
		"clock":                {func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 9}} }, func(f facts) bool { return has(f.Other, "linux.timeOffsets") }},
		"network device":       {func(s *specs.Spec) { s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth9": {}} }, func(f facts) bool { return has(f.Other, "linux.netDevices") }},
		"shared root":          {func(s *specs.Spec) { s.Linux.RootfsPropagation = "rshared" }, func(f facts) bool { return has(f.Other, "linux.rootfsPropagation") }},
		"another pod's cgroup": {func(s *specs.Spec) { s.Linux.CgroupsPath = "/kubepods/burstable/pod1/x" }, func(f facts) bool { return has(f.Other, "linux.cgroupsPath") }},
		"a cgroup above":       {func(s *specs.Spec) { s.Linux.CgroupsPath = "/kubepods/burstable/pod" + podUID + "/../x" }, func(f facts) bool { return has(f.Other, "linux.cgroupsPath") }},
		"no cgroup":            {func(s *specs.Spec) { s.Linux.CgroupsPath = "" }, func(f facts) bool { return has(f.Other, "linux.cgroupsPath") }},
		"virtual machine":      {func(s *specs.Spec) { s.VM = &specs.VM{} }, func(f facts) bool { return has(f.Other, "vm") }},
		"systemd property":     {func(s *specs.Spec) { s.Annotations["org.systemd.property.DeviceAllow"] = "x" }, func(f facts) bool { return len(f.Other) == 1 }},
		"crun's order":         {func(s *specs.Spec) { s.Annotations["run.oci.handler"] = "krun" }, func(f facts) bool { return len(f.Other) == 1 }},
		"system call listener": {func(s *specs.Spec) { s.Linux.Seccomp.ListenerPath = "/run/x" }, func(f facts) bool { return len(f.Other) == 1 && len(f.Seccomp.Open) == 6 }},
		"joined process":       {joining(specs.PIDNamespace, "/proc/4300/ns/pid"), func(f facts) bool { return len(f.Other) == 0 && len(f.HostNamespaces) == 0 }},
	} {
		s := ordinary(t)
		tc.change(s)
		if f := testNode().Container(s, testPod()); !tc.shows(f) {
			t.Errorf("%s is not a fact: %+v", name, f)
		}
	}
}

// A PersistentVolume of the plugin "local" is any path of the node, and who
// makes one is the control plane.
func TestLocalVolumesArePathsOfTheNode(t *testing.T) {
	folder := "/var/lib/kubelet/pods/" + podUID
	for source, want := range map[string]string{
		folder + "/volumes/kubernetes.io~local-volume/disk": "/etc",
		folder + "/volumes/kubernetes.io~local-volume/gone": folder + "/volumes/kubernetes.io~local-volume/gone",
		folder + "/volume-subpaths/disk/app/6":              "/etc/ssl",
	} {
		s := ordinary(t)
		s.Mounts = []specs.Mount{{Destination: "/data", Type: "bind", Source: source, Options: []string{"rbind"}}}
		if m := testNode().Container(s, testPod()).Mounts[0]; m.Source != policy.MountHostPath || m.HostPath != want {
			t.Errorf("%s is %q of %q, want the node's %s", source, m.Source, m.HostPath, want)
		}
	}
}

func TestSystemdNamesContainersBesideTheirSlice(t *testing.T) {
	s, pod := ordinary(t), testPod()
	pod.Cgroup = "/kubepods.slice/kubepods-pod1.slice"
	s.Linux.CgroupsPath = "kubepods-pod1.slice:cri-containerd:c0ffee"
	if f := testNode().Container(s, pod); len(f.Other) != 0 {
		t.Errorf("%v", f.Other)
	}
}

func without(kind specs.LinuxNamespaceType) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == kind })
	}
}

func joining(kind specs.LinuxNamespaceType, p string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		without(kind)(s)
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind, Path: p})
	}
}

// A pod in the node's network joins its sandbox's namespace by the same path as
// any other pod.
func TestNamespacesOfASandboxInTheNodesNetworkAreTheNodes(t *testing.T) {
	pod := testPod()
	pod.HostNamespaces = []string{policy.NamespaceNetwork, policy.NamespacePID}
	s := ordinary(t)
	joining(specs.PIDNamespace, "/proc/4242/ns/pid")(s)
	f := testNode().Container(s, pod)
	if !slices.Equal(f.HostNamespaces, []string{"network", "pid"}) {
		t.Errorf("host namespaces %v", f.HostNamespaces)
	}
}

func TestConfigurationsThatAreNotUnderstoodAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":       "",
		"no process":    `{"ociVersion":"1.0","root":{"path":"r"},"linux":{}}`,
		"no linux":      `{"process":{"args":["a"],"cwd":"/"},"root":{"path":"r"}}`,
		"a new setting": `{"process":{"args":["a"],"cwd":"/"},"root":{"path":"r"},"linux":{"teleport":true}}`,
		"more":          `{"process":{"args":["a"],"cwd":"/"},"root":{"path":"r"},"linux":{}} {}`,
		"a list":        `[]`,
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestAccountsAreReadAsContainerdDoes(t *testing.T) {
	passwd := "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/false\n# comment\nbroken:x:y:z\ntwice:x:7:7::\ntwice:x:8:8::\n"
	group := "root:x:0:\nweb:x:102:\nlog:x:200:web,root\nadm:x:201:web\nshort:x:9\n"
	u := func(uid, gid uint32, groups ...uint32) *policy.UserFacts {
		return &policy.UserFacts{UID: uid, GID: gid, Groups: groups}
	}
	for user, want := range map[string]*policy.UserFacts{
		"": u(0, 0, 200), "root": u(0, 0, 200), "0": u(0, 0, 200),
		"web": u(101, 102, 200, 201), "101": u(101, 102, 200, 201), "web:log": u(101, 200, 200, 201), "101:5": u(101, 5, 200, 201),
		"65535": u(65535, 0), "65535:65535": u(65535, 65535), "65535:short": u(65535, 9), "twice": u(7, 7),
		"nobody": nil, "web:nogroup": nil, "-1": nil, "4294967296": nil, "broken": nil, "web:": nil,
	} {
		if got := Account(user, []byte(passwd), []byte(group)); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", user, got, want)
		}
	}
	if got := Account("1000", nil, nil); !reflect.DeepEqual(got, u(1000, 0)) {
		t.Errorf("an image without account files: %+v", got)
	}
}

func TestAddedProcessesMayNotBeMoreThanTheContainersOwn(t *testing.T) {
	s := ordinary(t)
	config, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change  func(*specs.Process)
		differs []string
	}{
		"same":              {func(*specs.Process) {}, nil},
		"with a terminal":   {func(p *specs.Process) { p.Terminal = true; p.Env = append(p.Env, "TERM=xterm") }, nil},
		"fewer rights":      {func(p *specs.Process) { p.Capabilities = nil }, nil},
		"other environment": {func(p *specs.Process) { p.Env = append(p.Env, "LD_PRELOAD=/x") }, []string{"env"}},
		"less environment":  {func(p *specs.Process) { p.Env = nil }, []string{"env"}},
		"terminal variable": {func(p *specs.Process) { p.Env = append(p.Env, "TERM=xterm") }, []string{"env"}},
		"root":              {func(p *specs.Process) { p.User.UID = 0 }, []string{"user"}},
		"group":             {func(p *specs.Process) { p.User.AdditionalGids = []uint32{1} }, []string{"user"}},
		"privileged":        {func(p *specs.Process) { p.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_SYS_ADMIN"}} }, []string{"capabilities"}},
		"elsewhere":         {func(p *specs.Process) { p.Cwd = "/" }, []string{"cwd"}},
		"unconfined":        {func(p *specs.Process) { p.ApparmorProfile = "unconfined" }, []string{"apparmorProfile"}},
		"rlimits":           {func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}} }, []string{"rlimits"}},
	} {
		p := *s.Process
		p.Args = []string{"/bin/check"}
		p.Env = slices.Clone(p.Env)
		tc.change(&p)
		process, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		f, err := Exec(process, config)
		if err != nil || !slices.Equal(f.Differs, tc.differs) || f.Terminal != p.Terminal || f.Args[0] != "/bin/check" {
			t.Errorf("%s: %+v, %v, want %v", name, f, err, tc.differs)
		}
	}
	for name, process := range map[string]string{"no arguments": `{"cwd":"/"}`, "a new setting": `{"args":["a"],"cwd":"/","root":true}`, "nothing": ""} {
		if _, err := Exec([]byte(process), config); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestSandboxesMayNotBeMoreThanTheirImage(t *testing.T) {
	config := policy.ImageConfig{Entrypoint: []string{"/pause"}, Env: []string{"A=b"}}
	plain := func() policy.ContainerFacts {
		return policy.ContainerFacts{
			Image: policy.ImageFacts{Config: &config}, Args: []string{"/pause"}, Env: []string{"A=b", "PATH=/bin"},
			Mounts: []policy.MountFacts{{Destination: "/proc", Source: policy.MountRuntime}},
		}
	}
	if expected, actual := BeyondImage(plain()); expected != "" {
		t.Errorf("a plain one: %s, %s", expected, actual)
	}
	for name, change := range map[string]func(*policy.ContainerFacts){
		"args":    func(f *policy.ContainerFacts) { f.Args = []string{"/bin/sh"} },
		"env":     func(f *policy.ContainerFacts) { f.Env = append(f.Env, "LD_PRELOAD=/x") },
		"mount":   func(f *policy.ContainerFacts) { f.Mounts[0].Source = policy.MountHostPath },
		"hook":    func(f *policy.ContainerFacts) { f.Hooks = 1 },
		"other":   func(f *policy.ContainerFacts) { f.Other = []string{"vm"} },
		"device":  func(f *policy.ContainerFacts) { f.Devices = []string{"/dev/kvm"} },
		"unknown": func(f *policy.ContainerFacts) { f.Image.Config = nil },
	} {
		f := plain()
		change(&f)
		if expected, _ := BeyondImage(f); expected == "" {
			t.Errorf("%s passes", name)
		}
	}
}
