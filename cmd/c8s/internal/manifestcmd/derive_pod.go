// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"fmt"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// A note on what follows: whatever the schema cannot say, the control plane
// decides. Each is a warning, so that nobody takes an entry for more than it is.
const undecided = "entries cannot say this yet: whoever controls the cluster can set it"

type placedContainer struct {
	kubeContainer
	at string // containers[web]
}

// all returns every container that a pod can have: each needs a listed image.
func (p *kubePodSpec) all() []placedContainer {
	var all []placedContainer
	for _, list := range []struct {
		name       string
		containers []kubeContainer
	}{{"initContainers", p.InitContainers}, {"containers", p.Containers}, {"ephemeralContainers", p.EphemeralContainers}} {
		for _, c := range list.containers {
			all = append(all, placedContainer{c, fmt.Sprintf("%s[%s]", list.name, c.Name)})
		}
	}
	return all
}

func (v *deriver) pod(p *kubePodSpec) {
	if p.HostNetwork {
		v.report(levelWarning, "hostNetwork", "a pod in the node's network has no link of its own: it never joins the mesh")
	}
	if p.HostPID {
		v.report(levelWarning, "hostPID", "it sees every process of the node; %s", undecided)
	}
	if p.HostIPC {
		v.report(levelWarning, "hostIPC", "it shares memory with the node; %s", undecided)
	}
	for _, volume := range p.Volumes {
		if volume.HostPath != nil {
			v.report(levelWarning, "volumes["+volume.Name+"]", "it mounts %q of the node; %s", volume.HostPath.Path, undecided)
		}
	}
	if len(p.EphemeralContainers) > 0 {
		v.report(levelWarning, "ephemeralContainers", "somebody debugs this pod: the entry would accept the debugger's image for good")
	}
}

func (v *deriver) container(w *policy.Workload, c placedContainer) {
	if c.SecurityContext.Privileged {
		v.report(levelWarning, c.at, "it is privileged, which gives it the node; %s", undecided)
	}
	if add := c.SecurityContext.Capabilities.Add; len(add) > 0 {
		v.report(levelWarning, c.at, "it has the capabilities %s; %s", strings.Join(add, ", "), undecided)
	}
	if len(c.VolumeDevices) > 0 {
		v.report(levelWarning, c.at, "it has devices of the node; %s", undecided)
	}
	if len(c.Command)+len(c.Args) > 0 {
		v.report(levelWarning, c.at, "its command line is not the image's own; %s", undecided)
	}
	if len(c.Env)+len(c.EnvFrom) > 0 {
		v.report(levelWarning, c.at, "its environment is not the image's own; %s", undecided)
	}
	v.ports(c)
	if !w.HostAccess && (c.LivenessProbe.connects() || c.ReadinessProbe.connects() || c.StartupProbe.connects()) {
		w.HostAccess = true
		v.report(levelNote, c.at, "the kubelet's probes connect to it: the entry lets processes of the node do so (hostAccess)")
	}
}

func (v *deriver) ports(c placedContainer) {
	var tcp []string
	for _, p := range c.Ports {
		if p.HostPort != 0 {
			v.report(levelWarning, c.at, "host port %d goes around the mesh and is dropped there", p.HostPort)
		}
		switch {
		case p.Protocol != "" && p.Protocol != "TCP":
			v.report(levelWarning, c.at, "port %d/%.10s: only TCP is carried, the rest is dropped", p.ContainerPort, p.Protocol)
		case p.ContainerPort != 0:
			tcp = append(tcp, fmt.Sprint(p.ContainerPort))
		}
	}
	if len(tcp) > 0 && len(v.from) == 0 {
		v.report(levelNote, c.at, "it listens on %s: nobody may connect before the entry names them (--from NAME:%s)", strings.Join(tcp, ", "), strings.Join(tcp, ","))
	}
}
