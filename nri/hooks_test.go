// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"slices"
	"testing"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/c8s-dev/c8s/nri/facts"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/policy/policytest"
)

func validation(p testPod, c *api.Container, adjust *api.ContainerAdjustment) *api.ValidateContainerAdjustmentRequest {
	return &api.ValidateContainerAdjustmentRequest{Pod: p.nri(), Container: c, Adjust: adjust}
}

func TestContainersGetAProfileThatClosesWhatTheirEntryDoesNotOpen(t *testing.T) {
	for name, sockets := range map[string][]string{"nothing": nil, "vsock": {policy.SocketVsock}} {
		w := newWorld(t, func(m *policy.Manifest) { m.Workloads[0].Images[0].Run = &policy.Run{Sockets: sockets} })
		p := w.announced(podOf("shop"))
		adjust, err := w.e.creating(t.Context(), p.nri(), p.container("c1", policytest.Web))
		if err != nil {
			t.Fatal(err)
		}
		if open := facts.Open(seccompOf(adjust.GetLinux().GetSeccompPolicy())); !slices.Equal(open, sockets) {
			t.Errorf("%s allowed: %v open", name, open)
		}
	}
}

// A profile that the runtime already restricted needs no adjustment that could
// collide with another plugin's.
func TestNothingIsAdjustedWhereEverythingIsAllowed(t *testing.T) {
	w := newWorld(t, func(m *policy.Manifest) { m.Workloads[0].Images[0].Run = &policy.Run{Sockets: policy.SocketKinds()} })
	p := w.announced(podOf("shop"))
	adjust, err := w.e.creating(t.Context(), p.nri(), p.container("c1", policytest.Web))
	if err != nil || adjust != nil {
		t.Errorf("%v, %v", adjust, err)
	}
}

func TestOtherPluginsCannotTakeBackWhatIsDemanded(t *testing.T) {
	linux := func(l *api.LinuxContainerAdjustment) *api.ContainerAdjustment {
		return &api.ContainerAdjustment{Linux: l}
	}
	for name, tc := range map[string]struct {
		adjust *api.ContainerAdjustment
		code   policy.Code
	}{
		"nothing":         {&api.ContainerAdjustment{}, policy.CodeAllowed},
		"limits":          {linux(&api.LinuxContainerAdjustment{Resources: &api.LinuxResources{Memory: &api.LinuxMemory{Limit: api.Int64(1 << 20)}}}), policy.CodeAllowed},
		"arguments":       {&api.ContainerAdjustment{Args: []string{"/bin/sh"}}, policy.CodeArgsNotAllowed},
		"all arguments":   {&api.ContainerAdjustment{Args: []string{"", "/bin/sh"}}, policy.CodeArgsNotAllowed},
		"environment":     {&api.ContainerAdjustment{Env: []*api.KeyValue{{Key: "LD_PRELOAD", Value: "/x"}}}, policy.CodeEnvNotAllowed},
		"another value":   {&api.ContainerAdjustment{Env: []*api.KeyValue{{Key: "MODE", Value: "lax"}}}, policy.CodeEnvNotAllowed},
		"less":            {&api.ContainerAdjustment{Env: []*api.KeyValue{{Key: api.MarkForRemoval("MODE")}}}, policy.CodeEnvMissing},
		"mount":           {&api.ContainerAdjustment{Mounts: []*api.Mount{{Destination: "/x", Type: "bind", Source: "/etc"}}}, policy.CodeMountNotAllowed},
		"mount over":      {&api.ContainerAdjustment{Mounts: []*api.Mount{{Destination: "/proc", Type: "bind", Source: "/etc"}}}, policy.CodeMountNotAllowed},
		"hook":            {&api.ContainerAdjustment{Hooks: &api.Hooks{CreateRuntime: []*api.Hook{{Path: "/x"}}}}, policy.CodeHookNotAllowed},
		"rlimit":          {&api.ContainerAdjustment{Rlimits: []*api.POSIXRlimit{{Type: "RLIMIT_CORE"}}}, policy.CodeRlimitNotAllowed},
		"CDI device":      {&api.ContainerAdjustment{CDIDevices: []*api.CDIDevice{{Name: "example.com/gpu=0"}}}, policy.CodeDeviceNotAllowed},
		"device":          {linux(&api.LinuxContainerAdjustment{Devices: []*api.LinuxDevice{{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232}}}), policy.CodeDeviceNotAllowed},
		"no namespace":    {linux(&api.LinuxContainerAdjustment{Namespaces: []*api.LinuxNamespace{{Type: api.MarkForRemoval("pid")}}}), policy.CodeHostNamespace},
		"other namespace": {linux(&api.LinuxContainerAdjustment{Namespaces: []*api.LinuxNamespace{{Type: "network", Path: "/proc/1/ns/net"}}}), policy.CodeSettingUnknown},
		"sysctl":          {linux(&api.LinuxContainerAdjustment{Sysctl: map[string]string{"net.core.somaxconn": "1"}}), policy.CodeSysctlNotAllowed},
		"network device":  {linux(&api.LinuxContainerAdjustment{NetDevices: map[string]*api.LinuxNetDevice{"eth9": {}}}), policy.CodeSettingUnknown},
		"annotation":      {&api.ContainerAdjustment{Annotations: map[string]string{"run.oci.handler": "krun"}}, policy.CodeSettingUnknown},
		"seccomp":         {linux(&api.LinuxContainerAdjustment{SeccompPolicy: &api.LinuxSeccomp{DefaultAction: string(specs.ActAllow)}}), policy.CodeSocketNotAllowed},
	} {
		w := newWorld(t)
		p := w.announced(podOf("shop"))
		c := p.container("c1", policytest.Web)
		ours, err := w.e.creating(t.Context(), p.nri(), c)
		if err != nil {
			t.Fatal(err)
		}
		all := tc.adjust
		if all.Linux == nil {
			all.Linux = &api.LinuxContainerAdjustment{}
		}
		if all.Linux.SeccompPolicy == nil {
			all.Linux.SeccompPolicy = ours.Linux.SeccompPolicy
		}
		t.Run(name, func(t *testing.T) { wantCode(t, w.e.validate(t.Context(), validation(p, c, all)), tc.code) })
	}
}

func TestOtherPluginsCannotLoosenOtherContainers(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	c := p.container("c1", policytest.Web)
	ours, err := w.e.creating(t.Context(), p.nri(), c)
	if err != nil {
		t.Fatal(err)
	}
	r := validation(p, c, ours)
	r.Update = []*api.ContainerUpdate{{ContainerId: "c0", Linux: &api.LinuxContainerUpdate{Resources: &api.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}}}}
	wantCode(t, w.e.validate(t.Context(), r), CodeUpdateNotAllowed)
}

func TestUpdatesChangeLimitsOnly(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	w.started(p, "c1", policytest.Web)
	c := p.container("c1", policytest.Web)
	wantCode(t, w.e.update(c, &api.LinuxResources{Memory: &api.LinuxMemory{Limit: api.Int64(1)}, Unified: map[string]string{"memory.high": "1"}}), policy.CodeAllowed)
	wantCode(t, w.e.update(c, &api.LinuxResources{Devices: []*api.LinuxDeviceCgroup{{Allow: true}}}), CodeUpdateNotAllowed)
	wantCode(t, w.e.update(c, &api.LinuxResources{Unified: map[string]string{"cgroup.freeze": "0"}}), CodeUpdateNotAllowed)
	wantCode(t, w.e.update(c, &api.LinuxResources{Unified: map[string]string{"memory.high/../../x": "0"}}), CodeUpdateNotAllowed)
	wantCode(t, w.e.update(p.container("c9", policytest.Web), &api.LinuxResources{}), CodeContainerUnknown)
}

// Without its image a container cannot be judged early, and NRI's word that it
// may go on is not the last one.
func TestRuntimesThatDoNotTellTheImageLeaveTheJudgementToCreate(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	c := p.container("c1", "unlisted")
	c.Image = nil
	adjust, err := w.e.creating(t.Context(), p.nri(), c)
	if err != nil || adjust == nil {
		t.Fatalf("%v, %v", adjust, err)
	}
	wantCode(t, w.create(p, "c1", "unlisted"), policy.CodeImageUnlisted)
}

func TestNRIRefusesEarly(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	for name, tc := range map[string]struct {
		change func(*api.Container)
		code   policy.Code
	}{
		"unlisted":       {func(c *api.Container) { c.Image.ConfigDigest = string(policytest.Digest("unlisted")) }, policy.CodeImageUnlisted},
		"no such image":  {func(c *api.Container) { c.Image.ConfigDigest = string(policytest.Digest("lost")) }, CodeImageUnknown},
		"command":        {func(c *api.Container) { c.Args = []string{"/bin/sh"} }, policy.CodeArgsNotAllowed},
		"running one":    {func(c *api.Container) { c.Id = "c0" }, CodeContainerUnknown},
		"digest of text": {func(c *api.Container) { c.Image.ConfigDigest = "latest" }, CodeImageUnknown},
	} {
		w.e.gone(p.id)
		w.announced(p)
		w.started(p, "c0", side)
		c := p.container("c1", policytest.Web)
		tc.change(c)
		_, err := w.e.creating(t.Context(), p.nri(), c)
		t.Run(name, func(t *testing.T) { wantCode(t, err, tc.code) })
	}
}

// NRI does not say that there is a terminal.
func TestAContainerWithATerminalIsKnownByItsVariable(t *testing.T) {
	for stdin, code := range map[bool]policy.Code{true: policy.CodeAllowed, false: policy.CodeStdinNotAllowed} {
		w := newWorld(t, func(m *policy.Manifest) { m.Workloads[0].Images[0].Run = &policy.Run{Stdin: stdin} })
		p := w.announced(podOf("shop"))
		c := p.container("c1", policytest.Web)
		c.Env = append(c.Env, "TERM=xterm")
		_, err := w.e.creating(t.Context(), p.nri(), c)
		wantCode(t, err, code)
	}
}

func TestContainersNobodyAskedAboutAreJudgedBeforeTheyStart(t *testing.T) {
	w := newWorld(t)
	p := w.announced(podOf("shop"))
	w.runtime.container(p, "c1", policytest.Web, p.spec(policytest.Web))
	wantCode(t, w.e.starting(t.Context(), p.container("c1", policytest.Web)), policy.CodeAllowed)
	bad := p.spec(side)
	bad.Linux.MaskedPaths = nil
	w.runtime.container(p, "c2", side, bad)
	wantCode(t, w.e.starting(t.Context(), p.container("c2", side)), policy.CodePrivileged)
	wantCode(t, w.e.starting(t.Context(), podOf("other").container("c3", side)), CodePodUnknown)
}

func TestSandboxesNobodyAskedAboutAreJudgedWhenAnnounced(t *testing.T) {
	w := newWorld(t)
	p, q := podOf("shop"), podOf("shell")
	w.runtime.sandbox(p)
	wantCode(t, w.e.announce(t.Context(), p.nri()), policy.CodeAllowed)
	w.runtime.sandbox(q)
	w.runtime.set(func() { w.runtime.specs[q.id].Process.Args = []string{"/bin/sh"} })
	wantCode(t, w.e.announce(t.Context(), q.nri()), CodeSandboxSetting)
	wantCode(t, w.create(q, "c1", policytest.Web), CodePodUnknown)
	w.e.Manifest(nil)
	wantCode(t, w.e.announce(t.Context(), podOf("late").nri()), CodeManifestMissing)
}

func TestOnlyACgroupThatBearsThePodsUIDIsThePods(t *testing.T) {
	for parent, want := range map[string]string{
		"/kubepods/burstable/poduid-1": "/kubepods/burstable/poduid-1", "kubepods-burstable-poduid_1.slice": "kubepods-burstable-poduid_1.slice",
		"/kubepods": "", "": "", "/": "", "/kubepods/poduid-2": "", "/kubepods/poduid-1/x": "",
	} {
		if got := podCgroup(&api.PodSandbox{Uid: "uid-1", Linux: &api.LinuxPodSandbox{CgroupParent: parent}}); got != want {
			t.Errorf("%q: %q, want %q", parent, got, want)
		}
	}
}
