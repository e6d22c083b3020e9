// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodSpec says what pod to run. Only the name is needed.
type PodSpec struct {
	Namespace   string // "default" if empty
	Name        string
	UID         string // random if empty
	Labels      map[string]string
	Annotations map[string]string
	HostNetwork bool
	// Edit changes what is sent to containerd, last.
	Edit func(*cri.PodSandboxConfig)
}

// Pod is a running sandbox.
type Pod struct {
	ID     string
	IPs    []netip.Addr // IPv4 first; none on the host's network
	Config *cri.PodSandboxConfig

	cri *CRI
}

// RunPod starts a pod's sandbox.
func (c *CRI) RunPod(ctx context.Context, spec PodSpec) (*Pod, error) {
	cfg := spec.config()
	made, err := c.Runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: cfg})
	if err != nil {
		return nil, fmt.Errorf("running pod %s: %w", spec.Name, err)
	}
	p := &Pod{ID: made.PodSandboxId, Config: cfg, cri: c}
	status, err := p.Status(ctx)
	if err != nil {
		return nil, err
	}
	network := status.GetNetwork()
	ips := []string{network.GetIp()}
	for _, more := range network.GetAdditionalIps() {
		ips = append(ips, more.Ip)
	}
	for _, ip := range ips {
		if addr, err := netip.ParseAddr(ip); err == nil {
			p.IPs = append(p.IPs, addr)
		}
	}
	return p, nil
}

func (spec PodSpec) config() *cri.PodSandboxConfig {
	if spec.Namespace == "" {
		spec.Namespace = "default"
	}
	if spec.UID == "" {
		spec.UID = rand.Text()
	}
	labels := map[string]string{
		"io.kubernetes.pod.name":      spec.Name,
		"io.kubernetes.pod.namespace": spec.Namespace,
		"io.kubernetes.pod.uid":       spec.UID,
	}
	for k, v := range spec.Labels {
		labels[k] = v
	}
	namespaces := &cri.NamespaceOption{Network: cri.NamespaceMode_POD, Pid: cri.NamespaceMode_CONTAINER, Ipc: cri.NamespaceMode_POD}
	if spec.HostNetwork {
		namespaces.Network = cri.NamespaceMode_NODE
	}
	cfg := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: spec.Name, Namespace: spec.Namespace, Uid: spec.UID},
		Hostname:     spec.Name,
		LogDirectory: fmt.Sprintf("/var/log/pods/%s_%s_%s", spec.Namespace, spec.Name, spec.UID),
		Labels:       labels,
		Annotations:  spec.Annotations,
		Linux: &cri.LinuxPodSandboxConfig{
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: namespaces,
				Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
			},
		},
	}
	if spec.HostNetwork {
		cfg.Hostname = ""
	}
	if spec.Edit != nil {
		spec.Edit(cfg)
	}
	return cfg
}

// Status is what containerd says of the pod.
func (p *Pod) Status(ctx context.Context) (*cri.PodSandboxStatus, error) {
	got, err := p.cri.Runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: p.ID})
	if err != nil {
		return nil, fmt.Errorf("asking for pod %s: %w", p.Config.Metadata.Name, err)
	}
	return got.Status, nil
}

// Stop ends the pod's processes and takes its network away.
func (p *Pod) Stop(ctx context.Context) error {
	_, err := p.cri.Runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.ID})
	if err != nil {
		return fmt.Errorf("stopping pod %s: %w", p.Config.Metadata.Name, err)
	}
	return nil
}

// Remove stops the pod and forgets it and its containers.
func (p *Pod) Remove(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	_, err := p.cri.Runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.ID})
	if err != nil {
		return fmt.Errorf("removing pod %s: %w", p.Config.Metadata.Name, err)
	}
	return nil
}
