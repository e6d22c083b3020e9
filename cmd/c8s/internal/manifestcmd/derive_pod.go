// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

func (v *deriver) pod(w *policy.Workload, p *kubePodSpec) {
	if p.HostNetwork {
		w.HostNetwork = true
		v.report(levelWarning, "hostNetwork", "a pod in the node's network has no link of its own: it never joins the mesh")
	}
	if p.HostPID {
		v.report(levelWarning, "hostPID", "its containers see every process of the node")
	}
	if p.HostIPC {
		v.report(levelWarning, "hostIPC", "its containers share memory with the node")
	}
	for _, volume := range p.Volumes {
		if volume.HostPath != nil {
			v.report(levelWarning, "volumes["+volume.Name+"]", "it mounts %q of the node", volume.HostPath.Path)
		}
	}
	if len(p.EphemeralContainers) > 0 {
		v.report(levelWarning, "ephemeralContainers", "somebody debugs this pod: the entry would accept the debugger's image for good")
	}
}

func (v *deriver) container(w *policy.Workload, p *kubePodSpec, c placedContainer) {
	v.ports(c)
	for _, probe := range []kubeHandler{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		v.probe(w, p, c, probe)
		literal := literals(c.Env)
		v.exec(w, c, mapped(probe.Exec.Command, func(s string) string { text, _ := expand(s, literal); return text }))
	}
	for _, hook := range []kubeHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
		v.probe(w, p, c, hook)
		v.exec(w, c, hook.Exec.Command)
	}
	if extended := slices.DeleteFunc(slices.Sorted(maps.Keys(c.Resources.Limits)), func(r string) bool { return !strings.Contains(r, "/") }); len(extended) > 0 {
		v.report(levelWarning, c.at, "device plugins add devices, variables and mounts for %s: list them in run, as the first refusal names them", strings.Join(extended, ", "))
	}
}

// probe: the kubelet connects from the node for all forms but exec.
func (v *deriver) probe(w *policy.Workload, p *kubePodSpec, c placedContainer, h kubeHandler) {
	if p.HostNetwork {
		return
	}
	if host := h.HTTPGet.Host + h.TCPSocket.Host; host != "" {
		v.report(levelNote, c.at, "a probe connects to %.100q, not to the pod: the entry says nothing of it", host)
		return
	}
	for _, text := range h.ports() {
		port, err := c.port(text)
		if err != nil || port == 0 {
			v.report(levelWarning, c.at, "a probe has no port that could be listed: %v", err)
			continue
		}
		if !slices.Contains(w.Probes, port) {
			w.Probes = append(w.Probes, port)
			v.report(levelNote, c.at, "the kubelet's probes connect to port %d: the entry lets the kubelet, and nothing else of the node, do so (probes)", port)
		}
	}
}

// exec: probes and hooks that are commands become added processes.
func (v *deriver) exec(w *policy.Workload, c placedContainer, args []string) {
	if len(args) == 0 || slices.ContainsFunc(w.Exec, func(e policy.Exec) bool { return slices.Equal(e.Args, args) }) {
		return
	}
	e := policy.Exec{Args: args}
	if err := e.Validate(); err != nil {
		v.report(levelError, c.at, "a command of the kubelet cannot be listed: %v", err)
		return
	}
	w.Exec = append(w.Exec, e)
	v.report(levelNote, c.at, "the kubelet runs %.200q in it (exec): whoever reaches the kubelet can", args)
}

func mapped(list []string, f func(string) string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = f(s)
	}
	return out
}

func (v *deriver) ports(c placedContainer) {
	var tcp, udp []string
	for _, p := range c.Ports {
		if p.HostPort != 0 {
			v.report(levelWarning, c.at, "host port %d is dropped: add publish to the entry, with the clients' prefixes, if the node should open it (TCP only)", p.HostPort)
		}
		switch {
		case p.ContainerPort == 0:
		case p.Protocol == "" || p.Protocol == "TCP":
			tcp = append(tcp, fmt.Sprint(p.ContainerPort))
		case p.Protocol == "UDP":
			udp = append(udp, fmt.Sprint(p.ContainerPort))
		default:
			v.report(levelWarning, c.at, "port %d/%.10s: only TCP and UDP are carried, the rest is dropped", p.ContainerPort, p.Protocol)
		}
	}
	if len(v.from) > 0 {
		return
	}
	if len(tcp) > 0 {
		v.report(levelNote, c.at, "it listens on %s: nobody may connect before the entry names them (--from NAME:%s)", strings.Join(tcp, ", "), strings.Join(tcp, ","))
	}
	if len(udp) > 0 {
		v.report(levelNote, c.at, "it listens on %s of UDP: nobody may connect before the entry names them (--from NAME:%s/udp)", strings.Join(udp, ", "), strings.Join(udp, ","))
	}
}
