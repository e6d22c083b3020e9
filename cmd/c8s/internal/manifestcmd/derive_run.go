// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// run says what the pod starts the container with beyond its image. config is
// nil where it was not given.
func (v *deriver) run(p *kubePodSpec, c placedContainer, config *imageConfig) *policy.Run {
	r := &policy.Run{
		Cwd: c.WorkingDir, ServiceEnv: p.EnableServiceLinks == nil || *p.EnableServiceLinks,
		Stdin: c.Stdin || c.TTY, Privileged: c.SecurityContext.Privileged,
	}
	env := v.env(r, c)
	v.args(r, c, config, env)
	v.user(r, p, c, config)
	v.mounts(r, p, c)
	v.privileges(r, p, c)
	for _, s := range p.SecurityContext.Sysctls {
		if !slices.Contains(r.Sysctls, s.Name) {
			r.Sysctls = append(r.Sysctls, s.Name)
		}
	}
	// In order, so that containers with the same needs share a rule.
	slices.SortFunc(r.Env, func(a, b policy.EnvRule) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.Mounts, func(a, b policy.MountRule) int { return strings.Compare(a.Destination, b.Destination) })
	slices.Sort(r.Groups)
	slices.Sort(r.Capabilities)
	slices.Sort(r.Sysctls)
	if r.Stdin {
		v.report(levelWarning, c.at, "it has an open stdin or a terminal: whoever reaches the kubelet can type into it")
	}
	if err := r.Validate(); err != nil {
		v.report(levelError, c.at, "it cannot be listed as it is: %v", err)
	}
	return r
}

// args: command replaces entrypoint and command of the image, args alone only
// its command.
func (v *deriver) args(r *policy.Run, c placedContainer, config *imageConfig, env environment) {
	var argv []string
	switch {
	case len(c.Command) > 0:
		argv = slices.Concat(c.Command, c.Args)
	case len(c.Args) == 0:
		return
	case config == nil:
		v.report(levelWarning, c.at, "its args follow the image's entrypoint, which is not known here: the entry has the image's own command line and refuses this one. Give the image's configuration (--image-config), or write run.args")
		return
	default:
		argv = slices.Concat(config.Entrypoint, c.Args)
	}
	for i, arg := range argv {
		text, unknown := env.expand(arg)
		if len(unknown) > 0 {
			v.report(levelWarning, c.at, "an argument uses %s, which only the cluster knows: the entry has it unexpanded and refuses the container. Write run.args as it will be", strings.Join(unknown, ", "))
		}
		argv[i] = text
	}
	if config == nil || !slices.Equal(argv, slices.Concat(config.Entrypoint, config.Cmd)) {
		r.Args = argv
	}
}

func (v *deriver) user(r *policy.Run, p *kubePodSpec, c placedContainer, config *imageConfig) {
	user, group := c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup
	if user == nil {
		user = p.SecurityContext.RunAsUser
	}
	if group == nil {
		group = p.SecurityContext.RunAsGroup
	}
	switch {
	case user != nil && group != nil:
		r.User = fmt.Sprintf("%d:%d", *user, *group)
	case user != nil:
		r.User = strconv.FormatUint(uint64(*user), 10)
	case group != nil && config != nil && config.numericUser() != "":
		r.User = fmt.Sprintf("%s:%d", config.numericUser(), *group)
	case group != nil:
		v.report(levelWarning, c.at, "runAsGroup goes with the image's user, which is not known here: write run.user, as uid:gid")
	case config != nil && config.numericUser() == "":
		v.report(levelWarning, c.at, "the image's user %.60q is a name: where nodes cannot read what it means, write run.user, as uid:gid", config.User)
	}
	groups := p.SecurityContext.SupplementalGroups
	if p.SecurityContext.FSGroup != nil {
		groups = append([]uint32{*p.SecurityContext.FSGroup}, groups...)
	}
	for _, g := range groups {
		if !slices.Contains(r.Groups, g) {
			r.Groups = append(r.Groups, g)
		}
	}
}

func (v *deriver) mounts(r *policy.Run, p *kubePodSpec, c placedContainer) {
	for _, m := range c.VolumeMounts {
		volume, ok := p.volume(m.Name)
		source, readOnly := volume.source()
		if !ok || source == "" {
			v.report(levelWarning, c.at, "the volume %.60q at %.100q has a source that no rule has a word for: the container will be refused", m.Name, m.MountPath)
			continue
		}
		if volume.HostPath != nil && m.SubPath != "" {
			source = path.Join(source, m.SubPath)
		}
		if m.SubPathExpr != "" {
			v.report(levelNote, c.at, "which part of the volume %.60q it mounts is up to the cluster", m.Name)
		}
		if m.MountPropagation == "Bidirectional" && !c.SecurityContext.Privileged {
			v.report(levelWarning, c.at, "only privileged containers may share mounts with the node (%.100q)", m.MountPath)
		}
		if strings.HasPrefix(source, "/") {
			source = path.Clean(source)
		}
		r.Mounts = append(r.Mounts, policy.MountRule{
			Destination: path.Clean(m.MountPath), Source: source, ReadOnly: readOnly || m.ReadOnly,
			// Of a program that works on the node, the node's state must not be taken away.
			Required: strings.HasPrefix(source, "/"),
		})
	}
	if log := c.TerminationMessagePath; log != "" && path.Clean(log) != "/dev/termination-log" {
		v.report(levelWarning, c.at, "a termination log at %.100q could hide a file of the image and is refused: leave terminationMessagePath out", log)
	}
}

func (v *deriver) privileges(r *policy.Run, p *kubePodSpec, c placedContainer) {
	if r.Privileged {
		v.report(levelWarning, c.at, "it is privileged, which gives it the node")
	}
	if c.SecurityContext.ProcMount == "Unmasked" && !r.Privileged {
		v.report(levelWarning, c.at, "an unmasked /proc is for privileged containers only: it will be refused")
	}
	for _, name := range c.SecurityContext.Capabilities.Add {
		name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if name == "ALL" {
			v.report(levelWarning, c.at, "ALL capabilities cannot be listed: add those it needs, or it is refused")
		} else if !slices.Contains(r.Capabilities, name) {
			r.Capabilities = append(r.Capabilities, name)
		}
	}
	if len(r.Capabilities) > 0 {
		v.report(levelWarning, c.at, "it has the capabilities %.200s", strings.Join(r.Capabilities, ", "))
	}
	for _, d := range c.VolumeDevices {
		r.Devices = append(r.Devices, d.DevicePath)
	}
	if len(r.Devices) > 0 {
		v.report(levelWarning, c.at, "it has devices of the node (%.200s)", strings.Join(r.Devices, ", "))
	}
	if p.HostPID {
		r.HostNamespaces = append(r.HostNamespaces, policy.NamespacePID)
	}
	if p.HostIPC {
		r.HostNamespaces = append(r.HostNamespaces, policy.NamespaceIPC)
	}
}
