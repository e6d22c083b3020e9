// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

type (
	facts = policy.ContainerFacts
	mount = policy.MountFacts
)

// webRun is a manifest whose entry web has one rule, with this run.
func webRun(t testing.TB, run *policy.Run) *policy.Manifest {
	t.Helper()
	return policytest.New(t, policytest.With(func(m *policy.Manifest) { m.Workloads[0].Images[0].Run = run })).Manifest
}

func TestAContainerAsItsImageSaysIsAdmitted(t *testing.T) {
	m := webRun(t, nil)
	for name, edit := range map[string]func(c *facts){
		"as it is":           func(*facts) {},
		"fewer capabilities": func(c *facts) { c.Privileges.Capabilities = nil },
		"more is masked":     func(c *facts) { c.Privileges.MaskedPaths = append(c.Privileges.MaskedPaths, "/proc/asound") },
		"all of /proc/sys hidden": func(c *facts) {
			c.Privileges.MaskedPaths, c.Privileges.ReadonlyPaths = append(c.Privileges.MaskedPaths, "/proc/sys"), slices.DeleteFunc(slices.Clone(c.Privileges.ReadonlyPaths), func(p string) bool { return p == "/proc/sys" })
		},
		"no Kubernetes variables": func(c *facts) { c.Env = c.Env[:3] },
		"a low port":              func(c *facts) { c.Sysctls = []string{"net.ipv4.ip_unprivileged_port_start"} },
		"no token":                func(c *facts) { c.Mounts = c.Mounts[:7] },
		"another name":            func(c *facts) { c.Name = "x" },
	} {
		t.Run(name, func(t *testing.T) {
			c := policytest.Container(policytest.Web)
			edit(&c)
			w, image, d := m.Bind(policy.PodFacts{Namespace: "x"}, c)
			wantDecision(t, d, policy.CodeAllowed)
			if w == nil || w.Name != policytest.Web || image == nil || image.Digest != policytest.Digest(policytest.Web) || d.Rule != "workloads[web].images[0]" {
				t.Errorf("bound to %+v by %+v: %v", w, image, d)
			}
			image, d = m.AdmitContainer(w, policy.PodFacts{}, c)
			if !d.Allowed || image == nil {
				t.Errorf("not admitted again: %v", d)
			}
		})
	}
}

// deviation is one thing that a container has and its image does not say, with
// the rule that refuses it and a run that allows it; nil where none can.
type deviation struct {
	name  string
	edit  func(c *facts)
	code  policy.Code
	field string // of run
	allow *policy.Run
}

func value(s string) *string { return &s }

func deviations() []deviation {
	env := func(name string) *policy.Run { return &policy.Run{Env: []policy.EnvRule{{Name: name, Any: true}}} }
	add := func(v string) func(c *facts) { return func(c *facts) { c.Env = append(c.Env, v) } }
	mounted := func(m mount) func(c *facts) { return func(c *facts) { c.Mounts = append(c.Mounts, m) } }
	mounts := func(rules ...policy.MountRule) *policy.Run { return &policy.Run{Mounts: rules} }
	without := func(list []string, v string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == v })
	}
	privileged := &policy.Run{Privileged: true}
	return []deviation{
		{"another argument", func(c *facts) { c.Args[2] = "81" }, policy.CodeArgsNotAllowed, "args", &policy.Run{Args: []string{"/bin/web", "--serve", "81"}}},
		{"an argument more", func(c *facts) { c.Args = append(c.Args, "") }, policy.CodeArgsNotAllowed, "args", &policy.Run{Args: []string{policy.Any}}},
		{"no arguments", func(c *facts) { c.Args = nil }, policy.CodeArgsNotAllowed, "args", nil},
		{"another program", func(c *facts) { c.Args = []string{"/bin/sh", "-c", "evil"} }, policy.CodeArgsNotAllowed, "args", &policy.Run{Args: []string{"/bin/sh", "-c", "evil"}}},
		{"the image's arguments in one", func(c *facts) { c.Args = []string{"/bin/web --serve 80"} }, policy.CodeArgsNotAllowed, "args", &policy.Run{Args: []string{policy.Any}}},

		{"a variable more", add("DEBUG=1"), policy.CodeEnvNotAllowed, "env", &policy.Run{Env: []policy.EnvRule{{Name: "DEBUG", Value: value("1")}}}},
		{"a loader's variable", add("LD_PRELOAD=/tmp/x.so"), policy.CodeEnvNotAllowed, "env", env("LD_PRELOAD")},
		{"an empty variable", add("DEBUG="), policy.CodeEnvNotAllowed, "env", env("DEBUG")},
		{"a variable without a value", add("DEBUG"), policy.CodeEnvNotAllowed, "env", nil},
		{"a nameless variable", add("=x"), policy.CodeEnvNotAllowed, "env", nil},
		{"another value", func(c *facts) { c.Env[2] = "MODE=lax" }, policy.CodeEnvNotAllowed, "env", &policy.Run{Env: []policy.EnvRule{{Name: "MODE", Value: value("lax")}}}},
		{"another PATH", func(c *facts) { c.Env[1] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" }, policy.CodeEnvNotAllowed, "env", env("PATH")},
		{"a variable twice", add("MODE=strict"), policy.CodeEnvNotAllowed, "env", nil},
		{"an allowed variable twice", func(c *facts) { c.Env = append(c.Env, "HOSTNAME=b") }, policy.CodeEnvNotAllowed, "env", nil},
		{"a variable less", func(c *facts) { c.Env = slices.Delete(c.Env, 2, 3) }, policy.CodeEnvMissing, "env", env("MODE")},
		{"another case", func(c *facts) { c.Env[2] = "mode=strict" }, policy.CodeEnvNotAllowed, "env", nil},
		{"a host name that is none", func(c *facts) { c.Env[0] = "HOSTNAME=$(id)" }, policy.CodeEnvNotAllowed, "env", env("HOSTNAME")},
		{"a service's variable", add("DB_SERVICE_HOST=10.0.0.9"), policy.CodeEnvNotAllowed, "env", &policy.Run{ServiceEnv: true}},
		{"a service's that says something else", add("CACHE_SERVICE_HOST=evil.example"), policy.CodeEnvNotAllowed, "env", env("CACHE_SERVICE_HOST")},
		{"Kubernetes' that says something else", func(c *facts) { c.Env[3] = "KUBERNETES_SERVICE_HOST=evil.example" }, policy.CodeEnvNotAllowed, "env", env("KUBERNETES_SERVICE_HOST")},
		{"TERM without a terminal", add("TERM=xterm"), policy.CodeEnvNotAllowed, "env", env("TERM")},

		{"another directory", func(c *facts) { c.Cwd = "/tmp" }, policy.CodeCwdNotAllowed, "cwd", &policy.Run{Cwd: "/tmp"}},
		{"an unknown directory", func(c *facts) { c.Cwd = "" }, policy.CodeCwdNotAllowed, "cwd", nil},
		{"root", func(c *facts) { c.User.UID = 0 }, policy.CodeUserNotAllowed, "user", &policy.Run{User: "0:1000"}},
		{"another group", func(c *facts) { c.User.GID = 7 }, policy.CodeUserNotAllowed, "user", &policy.Run{User: "1000:7", Groups: []uint32{1000}}},
		{"a user by number", func(c *facts) { c.User.UID, c.User.GID, c.User.Groups = 7, 0, nil }, policy.CodeUserNotAllowed, "user", &policy.Run{User: "7"}},
		{"a group more", func(c *facts) { c.User.Groups = append(c.User.Groups, 6) }, policy.CodeGroupNotAllowed, "groups", &policy.Run{Groups: []uint32{6}}},
		{"stdin", func(c *facts) { c.Stdin = true }, policy.CodeStdinNotAllowed, "stdin", &policy.Run{Stdin: true}},
		{"a terminal", func(c *facts) { c.Terminal, c.Env = true, append(c.Env, "TERM=xterm") }, policy.CodeStdinNotAllowed, "stdin", &policy.Run{Stdin: true}},

		{"a volume", mounted(mount{Destination: "/tmp", Source: policy.MountEmptyDir}), policy.CodeMountNotAllowed, "mounts", mounts(policy.MountRule{Destination: "/tmp", Source: "emptyDir"})},
		{"a volume over the program", mounted(mount{Destination: "/bin/web", Source: policy.MountConfigMap, ReadOnly: true}), policy.CodeMountNotAllowed, "mounts", mounts(policy.MountRule{Destination: "/bin/web", Source: "configMap", ReadOnly: true})},
		{"a path of the node", mounted(mount{Destination: "/host", Source: policy.MountHostPath, HostPath: "/etc"}), policy.CodeMountNotAllowed, "mounts", mounts(policy.MountRule{Destination: "/host", Source: "/etc"})},
		{"a path of the node that follows it", mounted(mount{Destination: "/host", Source: policy.MountHostPath, HostPath: "/mnt", Propagation: "rslave"}), policy.CodeMountNotAllowed, "mounts", mounts(policy.MountRule{Destination: "/host", Source: "/mnt"})},
		{"a path of the node into it", mounted(mount{Destination: "/host", Source: policy.MountHostPath, HostPath: "/mnt", Propagation: "rshared"}), policy.CodeMountNotAllowed, "mounts", &policy.Run{Privileged: true, Mounts: []policy.MountRule{{Destination: "/host", Source: "/mnt"}}}},
		{"an unknown mount", mounted(mount{Destination: "/x", Source: "nfs"}), policy.CodeMountNotAllowed, "mounts", nil},
		{"a mount of no source", mounted(mount{Destination: "/x"}), policy.CodeMountNotAllowed, "mounts", nil},
		{"a termination log over a file", mounted(mount{Destination: "/bin/web", Source: policy.MountRuntime}), policy.CodeMountNotAllowed, "mounts", nil},
		{"the host's file from elsewhere", func(c *facts) { c.Mounts[4].Source = policy.MountConfigMap }, policy.CodeMountNotAllowed, "mounts", mounts(policy.MountRule{Destination: "/etc/hosts", Source: "configMap"})},
		{"a second mount at a place", mounted(mount{Destination: "/etc/hosts", Source: policy.MountRuntime}), policy.CodeMountNotAllowed, "mounts", nil},
		{"below a volume that others fill", func(c *facts) {
			mounted(mount{Destination: "/data", Source: policy.MountPersistentVolume})(c)
			mounted(mount{Destination: "/data/conf", Source: policy.MountConfigMap})(c)
		}, policy.CodeMountNotAllowed, "mounts", nil},
		{"a token below a volume that others fill", mounted(mount{Destination: "/var", Source: policy.MountCSI}), policy.CodeMountNotAllowed, "mounts", nil},
		{"a writable token", func(c *facts) { c.Mounts[7].ReadOnly = false }, policy.CodeMountNotAllowed, "mounts", nil},
		{"a token elsewhere", func(c *facts) { c.Mounts[7].Destination = "/bin" }, policy.CodeMountNotAllowed, "mounts", nil},
		{"an anonymous volume that the image has not", func(c *facts) { c.Mounts[8].Destination = "/bin" }, policy.CodeMountNotAllowed, "mounts", nil},
		{"writable /sys", func(c *facts) { c.Mounts[3].ReadOnly = false }, policy.CodeMountWritable, "privileged", privileged},
		{"/proc that is shared", func(c *facts) { c.Mounts[0].Propagation = "rshared" }, policy.CodeMountNotAllowed, "mounts", nil},

		{"a device", func(c *facts) { c.Devices = []string{"/dev/kvm"} }, policy.CodeDeviceNotAllowed, "devices", &policy.Run{Devices: []string{"/dev/kvm"}}},
		{"a device of a privileged container", func(c *facts) { c.Devices = []string{"/dev/sda"} }, policy.CodeDeviceNotAllowed, "devices", privileged},
		{"the node's processes", func(c *facts) { c.HostNamespaces = []string{"pid"} }, policy.CodeHostNamespace, "hostNamespaces", &policy.Run{HostNamespaces: []string{"pid"}}},
		{"the node's host name", func(c *facts) { c.HostNamespaces = []string{"uts"} }, policy.CodeHostNamespace, "hostNamespaces", &policy.Run{HostNamespaces: []string{"ipc", "uts"}}},
		{"an unknown namespace", func(c *facts) { c.HostNamespaces = []string{"time"} }, policy.CodeHostNamespace, "hostNamespaces", nil},
		{"a hook", func(c *facts) { c.Hooks = 1 }, policy.CodeHookNotAllowed, "", nil},
		{"something new", func(c *facts) { c.Other = []string{"linux.netDevices"} }, policy.CodeSettingUnknown, "", nil},
		{"a limit", func(c *facts) { c.Rlimits = []string{"RLIMIT_CORE"} }, policy.CodeRlimitNotAllowed, "rlimits", &policy.Run{Rlimits: []string{"RLIMIT_CORE"}}},
		{"a sysctl", func(c *facts) { c.Sysctls = []string{"net.core.somaxconn"} }, policy.CodeSysctlNotAllowed, "sysctls", &policy.Run{Sysctls: []string{"net.core.somaxconn"}}},

		{"an unknown filter", func(c *facts) { c.Seccomp = nil }, policy.CodeSeccompUnknown, "sockets", nil},
		{"no filter", func(c *facts) { c.Seccomp.Unconfined = true }, policy.CodeSocketNotAllowed, "sockets", &policy.Run{Sockets: policy.SocketKinds()}},
		{"an open kind", func(c *facts) { c.Seccomp.Open = []string{"vsock"} }, policy.CodeSocketNotAllowed, "sockets", &policy.Run{Sockets: []string{"vsock"}}},
		{"unknown privileges", func(c *facts) { c.Privileges = nil }, policy.CodePrivilegesUnknown, "privileged", nil},
		{"a capability", func(c *facts) { c.Privileges.Capabilities = []string{"CAP_SYS_ADMIN"} }, policy.CodeCapabilityNotAllowed, "capabilities", &policy.Run{Capabilities: []string{"SYS_ADMIN"}}},
		{"every capability", func(c *facts) { c.Privileges.Capabilities = []string{"CAP_SYS_ADMIN", "CAP_BPF"} }, policy.CodeCapabilityNotAllowed, "capabilities", privileged},
		{"an ambient capability", func(c *facts) { c.Privileges.Ambient = []string{"CAP_NET_RAW"} }, policy.CodeCapabilityNotAllowed, "capabilities", &policy.Run{Capabilities: []string{"NET_RAW"}}},
		{"a capability of another spelling", func(c *facts) { c.Privileges.Capabilities = []string{"cap_chown"} }, policy.CodeCapabilityNotAllowed, "capabilities", privileged},
		{"every device", func(c *facts) { c.Privileges.AllDevices = true }, policy.CodePrivileged, "privileged", privileged},
		{"nothing masked", func(c *facts) { c.Privileges.MaskedPaths = nil }, policy.CodePrivileged, "privileged", privileged},
		{"one path not masked", func(c *facts) { c.Privileges.MaskedPaths = without(c.Privileges.MaskedPaths, "/proc/kcore") }, policy.CodePrivileged, "privileged", privileged},
		{"nothing read-only", func(c *facts) { c.Privileges.ReadonlyPaths = nil }, policy.CodePrivileged, "privileged", privileged},
		{"one path writable", func(c *facts) { c.Privileges.ReadonlyPaths = without(c.Privileges.ReadonlyPaths, "/proc/sys") }, policy.CodePrivileged, "privileged", privileged},
		{"an unknown configuration", func(c *facts) { c.Image.Config = nil }, policy.CodeImageConfigUnknown, "", nil},
	}
}

// Whatever differs from the image's own word is refused by the rule that could
// allow it, and allowed by it.
func TestEachDeviationIsRefusedUnlessItsRuleAllowsIt(t *testing.T) {
	plain := webRun(t, nil)
	for _, dev := range deviations() {
		t.Run(dev.name, func(t *testing.T) {
			c := policytest.Container(policytest.Web)
			dev.edit(&c)
			w, image, d := plain.Bind(policy.PodFacts{}, c)
			wantDecision(t, d, dev.code)
			rule := strings.TrimSuffix("workloads[web].images[0].run."+dev.field, ".")
			if w != nil || image != nil || d.Rule != rule {
				t.Errorf("refused by %q, want %q; %v, %v", d.Rule, rule, w, image)
			}
			if strings.Contains(d.Error(), "evil.example") || strings.Contains(d.Error(), "lax") {
				t.Errorf("the refusal repeats a variable's value: %v", d)
			}
			web, _ := plain.Workload(policytest.Web)
			if _, again := plain.AdmitContainer(web, policy.PodFacts{}, c); again != d {
				t.Errorf("AdmitContainer says %v, Bind %v", again, d)
			}
			if dev.allow == nil {
				return
			}
			_, _, d = webRun(t, dev.allow).Bind(policy.PodFacts{}, c)
			wantDecision(t, d, policy.CodeAllowed)
		})
	}
}

// A run for one thing allows no other.
func TestARunAllowsNothingElse(t *testing.T) {
	same := func(a, b *policy.Run) bool { // of those that allow the same kind of thing
		return a.Privileged || b.Privileged || len(a.Args) > 0 && len(b.Args) > 0 || len(a.Sockets) > 0 && len(b.Sockets) > 0 ||
			a.Stdin && b.Stdin || len(a.Env) > 0 && len(b.Env) > 0 && a.Env[0].Name == b.Env[0].Name
	}
	for _, allowed := range deviations() {
		if allowed.allow == nil {
			continue
		}
		m := webRun(t, allowed.allow)
		for _, other := range deviations() {
			if other.name == allowed.name || other.allow != nil && same(allowed.allow, other.allow) {
				continue
			}
			c := policytest.Container(policytest.Web)
			other.edit(&c)
			if _, _, d := m.Bind(policy.PodFacts{}, c); d.Allowed {
				t.Errorf("what allows %s allows %s", allowed.name, other.name)
			}
		}
	}
}

func TestRulesAreExact(t *testing.T) {
	type tc struct {
		run  policy.Run
		edit func(c *facts)
		code policy.Code
	}
	rule := func(source string, readOnly bool) policy.Run {
		return policy.Run{Mounts: []policy.MountRule{{Destination: "/d", Source: source, ReadOnly: readOnly}}}
	}
	mounted := func(m mount) func(c *facts) {
		m.Destination = "/d"
		return func(c *facts) { c.Mounts = append(c.Mounts, m) }
	}
	volumes := func(at ...string) (run policy.Run) {
		for _, d := range at {
			run.Mounts = append(run.Mounts, policy.MountRule{Destination: d, Source: "persistentVolume"})
		}
		return run
	}
	placed := func(at ...string) func(c *facts) {
		return func(c *facts) {
			c.Mounts = nil
			for _, d := range at {
				c.Mounts = append(c.Mounts, mount{Destination: d, Source: "persistentVolume"})
			}
		}
	}
	mode := policy.Run{Env: []policy.EnvRule{{Name: "A", Value: value("1")}}}
	for name, c := range map[string]tc{
		"beside a volume":             {run: volumes("/data", "/database"), edit: placed("/data", "/database"), code: policy.CodeAllowed},
		"below a volume":              {run: volumes("/data", "/data/base"), edit: placed("/data", "/data/base"), code: policy.CodeMountNotAllowed},
		"below a volume, first":       {run: volumes("/data/base", "/data"), edit: placed("/data/base", "/data"), code: policy.CodeMountNotAllowed},
		"kind of source":              {rule("secret", false), mounted(mount{Source: "configMap"}), policy.CodeMountNotAllowed},
		"path of the node":            {rule("/etc", false), mounted(mount{Source: "hostPath", HostPath: "/etc/ssh"}), policy.CodeMountNotAllowed},
		"path that is no mount of it": {rule("/etc", false), mounted(mount{Source: "emptyDir", HostPath: "/etc"}), policy.CodeMountNotAllowed},
		"word for a path":             {rule("emptyDir", false), mounted(mount{Source: "hostPath", HostPath: "emptyDir"}), policy.CodeMountNotAllowed},
		"read-only":                   {rule("secret", true), mounted(mount{Source: "secret"}), policy.CodeMountWritable},
		"read-only is fine":           {rule("secret", false), mounted(mount{Source: "secret", ReadOnly: true}), policy.CodeAllowed},
		"required and missing":        {policy.Run{Mounts: []policy.MountRule{{Destination: "/d", Source: "/var/lib/x", Required: true}}}, func(*facts) {}, policy.CodeMountMissing},
		"required":                    {policy.Run{Mounts: []policy.MountRule{{Destination: "/d", Source: "secret", Required: true}}}, mounted(mount{Source: "secret"}), policy.CodeAllowed},
		"required and another":        {policy.Run{Mounts: []policy.MountRule{{Destination: "/d", Source: "secret", Required: true}}}, mounted(mount{Source: "emptyDir"}), policy.CodeMountNotAllowed},
		"missing mount is fine":       {rule("secret", true), func(*facts) {}, policy.CodeAllowed},
		"following a volume":          {rule("secret", false), mounted(mount{Source: "secret", Propagation: "rslave"}), policy.CodeMountPropagation},
		"sharing a path":              {rule("/etc", false), mounted(mount{Source: "hostPath", HostPath: "/etc", Propagation: "rshared"}), policy.CodeMountPropagation},
		"unknown propagation":         {rule("/etc", false), mounted(mount{Source: "hostPath", HostPath: "/etc", Propagation: "x"}), policy.CodeMountPropagation},
		"demanded variable missing":   {mode, func(*facts) {}, policy.CodeEnvMissing},
		"demanded variable":           {mode, func(c *facts) { c.Env = append(c.Env, "A=1") }, policy.CodeAllowed},
		"its other value":             {mode, func(c *facts) { c.Env = append(c.Env, "A=2") }, policy.CodeEnvNotAllowed},
		"its longer value":            {mode, func(c *facts) { c.Env = append(c.Env, "A=1=2") }, policy.CodeEnvNotAllowed},
		"the image's command":         {policy.Run{Args: []string{"/x"}}, func(*facts) {}, policy.CodeArgsNotAllowed},
		"any among arguments":         {policy.Run{Args: []string{"/x", "any"}}, func(c *facts) { c.Args = []string{"/x", "y"} }, policy.CodeArgsNotAllowed},
		"the image's user":            {policy.Run{User: "7"}, func(*facts) {}, policy.CodeUserNotAllowed},
		"privileged is not the node":  {policy.Run{Privileged: true}, func(c *facts) { c.HostNamespaces = []string{"pid"} }, policy.CodeHostNamespace},
		"privileged without facts":    {policy.Run{Privileged: true}, func(c *facts) { c.Privileges = nil }, policy.CodePrivilegesUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			f := policytest.Container(policytest.Web)
			c.edit(&f)
			_, _, d := webRun(t, &c.run).Bind(policy.PodFacts{}, f)
			wantDecision(t, d, c.code)
		})
	}
}

func TestUsersAndGroups(t *testing.T) {
	account := func(uid, gid uint32, groups ...uint32) *policy.UserFacts {
		return &policy.UserFacts{UID: uid, GID: gid, Groups: groups}
	}
	for name, c := range map[string]struct {
		image, rule string
		account     *policy.UserFacts
		got         policy.UserFacts
		early       bool
		code        policy.Code
	}{
		"nothing said":                     {got: *account(0, 0), code: policy.CodeAllowed},
		"nothing said, with its own group": {got: *account(0, 0, 0), code: policy.CodeAllowed},
		"nothing said, another user":       {got: *account(1, 0), code: policy.CodeUserNotAllowed},
		"number":                           {image: "101", got: *account(101, 0), code: policy.CodeAllowed},
		"number, user's own group":         {image: "101", got: *account(101, 101), code: policy.CodeAllowed},
		"number, another group":            {image: "101", got: *account(101, 6), code: policy.CodeUserNotAllowed},
		"numbers":                          {image: "101:6", got: *account(101, 6), code: policy.CodeAllowed},
		"numbers, group lost":              {image: "101:6", got: *account(101, 0), code: policy.CodeAllowed},
		"numbers of a rule, group lost":    {rule: "101:6", got: *account(101, 0), code: policy.CodeUserNotAllowed},
		"name":                             {image: "nginx", got: *account(101, 101), code: policy.CodeUserUnknown},
		"name of the group":                {image: "101:nginx", got: *account(101, 101), code: policy.CodeUserUnknown},
		"name, rule":                       {image: "nginx", rule: "101:101", got: *account(101, 101), code: policy.CodeAllowed},
		"name, known":                      {image: "nginx", account: account(101, 102, 5), got: *account(101, 102, 5), code: policy.CodeAllowed},
		"name, known, another group":       {image: "nginx", account: account(101, 102), got: *account(101, 0), code: policy.CodeUserNotAllowed},
		"name, known, a group more":        {image: "nginx", account: account(101, 102, 5), got: *account(101, 102, 6), code: policy.CodeGroupNotAllowed},
		"name, early":                      {image: "nginx", got: *account(101, 101), early: true, code: policy.CodeAllowed},
		"number, early, image's groups":    {image: "101", got: *account(101, 7, 3), early: true, code: policy.CodeAllowed},
		"number, early, another user":      {image: "101", got: *account(0, 0), early: true, code: policy.CodeUserNotAllowed},
		"known groups of another user":     {rule: "7:7", account: account(0, 0, 5), got: *account(7, 7, 5), code: policy.CodeGroupNotAllowed},
		"rule of a known user":             {rule: "7", account: account(7, 9), got: *account(7, 9), code: policy.CodeAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			f := policytest.Container(policytest.Web)
			f.Image.Config.User, f.Image.Account, f.User, f.Early = c.image, c.account, c.got, c.early
			_, _, d := webRun(t, &policy.Run{User: c.rule}).Bind(policy.PodFacts{}, f)
			wantDecision(t, d, c.code)
		})
	}
}

func TestEarlyFactsMayLackWhatFinalOnesHave(t *testing.T) {
	m := webRun(t, nil)
	early := policytest.Container(policytest.Web)
	early.Early, early.Cwd, early.Privileges, early.Seccomp = true, "", nil, nil
	w, _, d := m.Bind(policy.PodFacts{}, early)
	wantDecision(t, d, policy.CodeAllowed)
	early.Early = false
	if _, d := m.AdmitContainer(w, policy.PodFacts{}, early); d.Allowed {
		t.Error("final facts that lack as much are admitted")
	}
	for name, edit := range map[string]func(c *facts){
		"directory":    func(c *facts) { c.Cwd = "/tmp" },
		"filter":       func(c *facts) { c.Seccomp = &policy.SeccompFacts{Unconfined: true} },
		"capabilities": func(c *facts) { c.Privileges.Capabilities = []string{"CAP_SYS_ADMIN"} },
		"arguments":    func(c *facts) { c.Args = nil },
		"image":        func(c *facts) { c.Image.Config = nil },
	} {
		c := policytest.Container(policytest.Web)
		c.Early = true
		edit(&c)
		if _, d := m.AdmitContainer(w, policy.PodFacts{}, c); d.Allowed {
			t.Errorf("%s: what is known is not judged", name)
		}
	}
}

func BenchmarkAdmitContainer(b *testing.B) {
	m := policytest.New(b, policytest.With(func(m *policy.Manifest) {
		run := policy.Run{ServiceEnv: true}
		for i := range 10 {
			d := "/data/" + string(rune('a'+i))
			run.Mounts = append(run.Mounts, policy.MountRule{Destination: d, Source: policy.MountEmptyDir})
		}
		m.Workloads[0].Images[0].Run = &run
	})).Manifest
	c := policytest.Container(policytest.Web)
	for _, name := range []string{"DB", "CACHE", "AUTH", "MAIL", "SEARCH"} {
		c.Env = append(c.Env, name+"_SERVICE_HOST=10.96.0.7", name+"_SERVICE_PORT=80", name+"_PORT_80_TCP=tcp://10.96.0.7:80")
	}
	for i := range 10 {
		c.Mounts = append(c.Mounts, mount{Destination: "/data/" + string(rune('a'+i)), Source: policy.MountEmptyDir})
	}
	w, _, d := m.Bind(policy.PodFacts{}, c)
	if !d.Allowed {
		b.Fatal(d)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, d := m.AdmitContainer(w, policy.PodFacts{}, c); !d.Allowed {
			b.Fatal(d)
		}
	}
}
