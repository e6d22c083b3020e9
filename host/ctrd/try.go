// SPDX-License-Identifier: Apache-2.0

package ctrd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	architecture = runtime.GOARCH
	// tryWithin bounds a try, cleanUpWithin what it takes to remove its traces
	// even when the try was cut short.
	tryWithin     = time.Minute
	cleanUpWithin = 30 * time.Second
)

// Refused is what came of a try.
type Refused struct {
	Step string // at which containerd gave up: "" if it did all
	Text string // what it said
}

// By says which part of C8s refused, or nothing if none of them did.
func (r Refused) By() string {
	for _, part := range [][2]string{
		{"c8s-cni: ", "c8s-cni"},
		{`required plugin "c8s" not present`, "containerd's validator"},
		{"NRI", "the NRI plugin"},
		{"c8s-runtime", "c8s-runtime"},
		{"refused (", "C8s"},
	} {
		if !strings.Contains(r.Text, part[0]) {
			continue
		}
		if part[1] == "the NRI plugin" && !strings.Contains(r.Text, "refused (") {
			continue
		}
		return part[1]
	}
	return ""
}

// Trial is what to have tried.
type Trial struct {
	// Waive is the annotation that waives NRI's validator.
	Waive string
	// Listed are config digests that the manifest lists: one that the node has is
	// tried with a command of our own.
	Listed []string
	Now    func() time.Time
}

// Outcome of a Trial.
type Outcome struct {
	Sandbox  *Refused // nil: not tried
	Unlisted *Refused // nil: not tried, because there was no sandbox
	Waived   *Refused // the same in a pod whose annotations waive NRI's validator
	Command  *Refused // nil: not tried, because the node has no listed image
}

// Try starts a pod, and in it a container of an image that no manifest can list
// and one of a listed image with another command. It removes all of them.
func (c *Client) Try(ctx context.Context, t Trial) (out Outcome, err error) {
	mark := strings.ToLower(rand.Text())
	ref := "c8s.invalid/node-check:" + mark
	ctx, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	clean := func(do func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpWithin)
		defer cancel()
		err = errors.Join(err, do(ctx))
	}
	remove, err := c.importImage(ctx, ref, mark, t.Now())
	if remove != nil {
		defer clean(remove)
	}
	if err != nil {
		return out, err
	}
	pod, waived := sandbox(mark, nil), sandbox(mark+"-waived", map[string]string{t.Waive: "true"})
	for _, p := range []*cri.PodSandboxConfig{pod, waived} {
		defer clean(func(ctx context.Context) error { return c.removePods(ctx, p) })
	}
	id, sandboxed := c.runPod(ctx, pod)
	if out.Sandbox = &sandboxed; sandboxed.Step != "" {
		return out, ctx.Err()
	}
	unlisted := c.start(ctx, id, pod, "unlisted", ref, nil)
	out.Unlisted = &unlisted
	image, err := c.listed(ctx, t.Listed)
	if err != nil {
		return out, err
	}
	if image != "" {
		other := c.start(ctx, id, pod, "command", image, []string{program})
		out.Command = &other
	}
	id, again := c.runPod(ctx, waived)
	if again.Step == "" {
		again = c.start(ctx, id, waived, "unlisted", ref, nil)
	}
	out.Waived = &again
	return out, ctx.Err()
}

func (c *Client) runPod(ctx context.Context, pod *cri.PodSandboxConfig) (id string, r Refused) {
	made, err := c.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return "", Refused{"RunPodSandbox", status.Convert(err).Message()}
	}
	return made.PodSandboxId, Refused{}
}

func sandbox(mark string, annotations map[string]string) *cri.PodSandboxConfig {
	name := "c8s-node-check-" + mark
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "c8s-node-check", Uid: mark},
		Hostname: "c8s-node-check", Annotations: annotations,
		Labels: map[string]string{"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": "c8s-node-check", "io.kubernetes.pod.uid": mark},
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
		}},
	}
}

// start creates and starts a container and says where that ended.
func (c *Client) start(ctx context.Context, id string, pod *cri.PodSandboxConfig, name, image string, command []string) Refused {
	made, err := c.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: id, SandboxConfig: pod,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: image}, Command: command,
			Labels: map[string]string{"io.kubernetes.container.name": name},
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: pod.Linux.SecurityContext.NamespaceOptions, Seccomp: pod.Linux.SecurityContext.Seccomp, NoNewPrivs: true,
			}},
		},
	})
	if err != nil {
		return Refused{"CreateContainer", status.Convert(err).Message()}
	}
	if _, err := c.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		return Refused{"StartContainer", status.Convert(err).Message()}
	}
	return Refused{}
}

// listed finds an image of the node by config digest.
func (c *Client) listed(ctx context.Context, digests []string) (string, error) {
	all, err := c.image.ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return "", fmt.Errorf("listing the node's images: %w", err)
	}
	for _, i := range all.Images {
		if slices.Contains(digests, i.Id) {
			return i.Id, nil
		}
	}
	return "", nil
}

// removePods removes the try's pod with its containers, also one that
// containerd made after the try had given up.
func (c *Client) removePods(ctx context.Context, pod *cri.PodSandboxConfig) error {
	list, err := c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{LabelSelector: pod.Labels}})
	if err != nil {
		return fmt.Errorf("removing the pod of the try: %w", err)
	}
	var errs []error
	for _, p := range list.Items {
		_, stop := c.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.Id})
		_, remove := c.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.Id})
		errs = append(errs, stop, remove)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the pod of the try: %w", err)
	}
	return nil
}
