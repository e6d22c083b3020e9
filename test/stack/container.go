// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerSpec says what container to make. Only the image is needed; the
// rest is as a kubelet sets it for a pod that says nothing more.
type ContainerSpec struct {
	Name    string // "main" if empty
	Image   string // its reference
	Command []string
	Args    []string
	Env     map[string]string
	Mounts  []*cri.Mount
	Labels  map[string]string
	// Edit changes what is sent to containerd, last.
	Edit func(*cri.ContainerConfig)
}

// Container is one that was created.
type Container struct {
	ID     string
	Pod    *Pod
	Config *cri.ContainerConfig
}

// Create makes a container without starting it.
func (p *Pod) Create(ctx context.Context, spec ContainerSpec) (*Container, error) {
	cfg := spec.config(p)
	made, err := p.cri.Runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: p.ID, Config: cfg, SandboxConfig: p.Config,
	})
	if err != nil {
		return nil, fmt.Errorf("creating container %s of pod %s: %w", cfg.Metadata.Name, p.Config.Metadata.Name, err)
	}
	return &Container{ID: made.ContainerId, Pod: p, Config: cfg}, nil
}

// Run creates and starts a container.
func (p *Pod) Run(ctx context.Context, spec ContainerSpec) (*Container, error) {
	c, err := p.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return c, c.Start(ctx)
}

func (spec ContainerSpec) config(p *Pod) *cri.ContainerConfig {
	if spec.Name == "" {
		spec.Name = "main"
	}
	labels := map[string]string{"io.kubernetes.container.name": spec.Name}
	for k, v := range p.Config.Labels {
		labels[k] = v
	}
	for k, v := range spec.Labels {
		labels[k] = v
	}
	cfg := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: spec.Name},
		Image:    &cri.ImageSpec{Image: spec.Image, UserSpecifiedImage: spec.Image},
		Command:  spec.Command,
		Args:     spec.Args,
		Mounts:   spec.Mounts,
		Labels:   labels,
		LogPath:  spec.Name + "_0.log",
		Linux: &cri.LinuxContainerConfig{
			SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: p.Config.Linux.SecurityContext.NamespaceOptions,
				Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
				NoNewPrivs:       true,
				MaskedPaths: []string{
					"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
					"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
					"/sys/devices/virtual/powercap",
				},
				ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			},
		},
	}
	for k, v := range spec.Env {
		cfg.Envs = append(cfg.Envs, &cri.KeyValue{Key: k, Value: []byte(v)})
	}
	if spec.Edit != nil {
		spec.Edit(cfg)
	}
	return cfg
}

func (c *Container) name() string {
	return c.Config.Metadata.Name + " of pod " + c.Pod.Config.Metadata.Name
}

// Start starts the container.
func (c *Container) Start(ctx context.Context) error {
	_, err := c.Pod.cri.Runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.ID})
	if err != nil {
		return fmt.Errorf("starting container %s: %w", c.name(), err)
	}
	return nil
}

// ExecResult is what a process in a container did.
type ExecResult struct {
	Stdout, Stderr string
	Code           int
}

// Exec runs a process in the container. A process that fails is no error.
func (c *Container) Exec(ctx context.Context, argv ...string) (ExecResult, error) {
	got, err := c.Pod.cri.Runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: c.ID, Cmd: argv, Timeout: int64(patience.Seconds())})
	if err != nil {
		return ExecResult{}, fmt.Errorf("running %s in container %s: %w", strings.Join(argv, " "), c.name(), err)
	}
	return ExecResult{string(got.Stdout), string(got.Stderr), int(got.ExitCode)}, nil
}

// Status is what containerd says of the container.
func (c *Container) Status(ctx context.Context) (*cri.ContainerStatus, error) {
	got, err := c.Pod.cri.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: c.ID})
	if err != nil {
		return nil, fmt.Errorf("asking for container %s: %w", c.name(), err)
	}
	return got.Status, nil
}

// Wait waits for the container to end and returns its exit code.
func (c *Container) Wait(ctx context.Context) (int, error) {
	var code int
	err := Poll(ctx, "container "+c.name()+" to end", func(ctx context.Context) error {
		status, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if status.State != cri.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("it is %s", status.State)
		}
		code = int(status.ExitCode)
		return nil
	})
	return code, err
}

// Update changes the container's resources.
func (c *Container) Update(ctx context.Context, r *cri.LinuxContainerResources) error {
	_, err := c.Pod.cri.Runtime.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{ContainerId: c.ID, Linux: r})
	if err != nil {
		return fmt.Errorf("updating container %s: %w", c.name(), err)
	}
	return nil
}

// Stop ends the container, giving it some seconds.
func (c *Container) Stop(ctx context.Context, seconds int64) error {
	_, err := c.Pod.cri.Runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: c.ID, Timeout: seconds})
	if err != nil {
		return fmt.Errorf("stopping container %s: %w", c.name(), err)
	}
	return nil
}

// Remove ends the container and forgets it.
func (c *Container) Remove(ctx context.Context) error {
	_, err := c.Pod.cri.Runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: c.ID})
	if err != nil {
		return fmt.Errorf("removing container %s: %w", c.name(), err)
	}
	return nil
}

// Log is what the container has printed so far.
func (c *Container) Log() (string, error) {
	b, err := os.ReadFile(c.Pod.cri.node.Path(path.Join(c.Pod.Config.LogDirectory, c.Config.LogPath)))
	if err != nil {
		return "", fmt.Errorf("reading the log of container %s: %w", c.name(), err)
	}
	return criLog(string(b)), nil
}

// criLog takes the text out of a log file: lines of time, stream, F or P (the
// line goes on), text.
func criLog(file string) string {
	var b strings.Builder
	for line := range strings.Lines(file) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(fields) < 4 {
			continue
		}
		b.WriteString(fields[3])
		if fields[2] == "F" {
			b.WriteByte('\n')
		}
	}
	return b.String()
}
