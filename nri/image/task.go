// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"fmt"
	"syscall"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Spec returns the OCI configuration with which containerd made a container:
// the config.json of its bundle, as JSON.
func (r *Resolver) Spec(ctx context.Context, id string) ([]byte, error) {
	got, err := r.containers.Get(inNamespace(ctx), &containersapi.GetContainerRequest{ID: id})
	if err != nil {
		return nil, fmt.Errorf("reading the configuration of container %.80q: %w", id, notFound(err))
	}
	spec := got.GetContainer().GetSpec().GetValue()
	if len(spec) == 0 {
		return nil, fmt.Errorf("reading the configuration of container %.80q: containerd has none", id)
	}
	return spec, nil
}

// Process returns the first process of a container, as the node numbers it. The
// error is ErrNotFound where none runs.
func (r *Resolver) Process(ctx context.Context, id string) (uint32, error) {
	got, err := r.tasks.Get(inNamespace(ctx), &tasksapi.GetRequest{ContainerID: id})
	if err == nil && got.GetProcess().GetPid() == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("asking for the process of container %.80q: %w", id, notFound(err))
	}
	return got.GetProcess().GetPid(), nil
}

// Stop kills every process of a container. The error is ErrNotFound where none
// runs.
func (r *Resolver) Stop(ctx context.Context, id string) error {
	_, err := r.tasks.Kill(inNamespace(ctx), &tasksapi.KillRequest{ContainerID: id, Signal: uint32(syscall.SIGKILL), All: true})
	if err != nil {
		return fmt.Errorf("stopping container %.80q: %w", id, notFound(err))
	}
	return nil
}

func notFound(err error) error {
	if status.Code(err) == codes.NotFound {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
