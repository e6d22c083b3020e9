// SPDX-License-Identifier: Apache-2.0

package nri

import (
	"context"
	"sync"

	"github.com/containerd/nri/pkg/api"
)

// service answers the runtime's requests of one session. An error refuses; the
// text reaches the kubelet's events.
type service struct {
	p *Plugin
	e *Enforcer

	mu         sync.Mutex // the parts of a synchronization
	pods       []*api.PodSandbox
	containers []*api.Container
}

func subscription() api.EventMask {
	var events api.EventMask
	for _, event := range []api.Event{
		api.Event_RUN_POD_SANDBOX, api.Event_STOP_POD_SANDBOX, api.Event_REMOVE_POD_SANDBOX,
		api.Event_CREATE_CONTAINER, api.Event_VALIDATE_CONTAINER_ADJUSTMENT, api.Event_START_CONTAINER,
		api.Event_UPDATE_CONTAINER, api.Event_STOP_CONTAINER, api.Event_REMOVE_CONTAINER,
	} {
		events.Set(event)
	}
	return events
}

// Configure subscribes. A request that this plugin does not answer is to fail,
// where the runtime knows such a policy (NRI 0.12.4).
func (s *service) Configure(_ context.Context, r *api.ConfigureRequest) (*api.ConfigureResponse, error) {
	s.p.Log.Info("NRI connected", "runtime", r.GetRuntimeName(), "version", r.GetRuntimeVersion(), "nri", r.GetNRIVersion())
	return &api.ConfigureResponse{
		Events: int32(subscription()), FailurePolicy: &api.FailurePolicy{FailRequest: true, KeepConnected: true},
	}, nil
}

// Synchronize comes in parts where there is much.
func (s *service) Synchronize(_ context.Context, r *api.SynchronizeRequest) (*api.SynchronizeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods, s.containers = append(s.pods, r.GetPods()...), append(s.containers, r.GetContainers()...)
	if r.GetMore() {
		return &api.SynchronizeResponse{More: true}, nil
	}
	s.e.synchronize(s.pods, s.containers)
	s.pods, s.containers = nil, nil
	s.p.connected.Store(true)
	return &api.SynchronizeResponse{}, nil
}

func (s *service) RunPodSandbox(ctx context.Context, r *api.RunPodSandboxRequest) (*api.RunPodSandboxResponse, error) {
	return &api.RunPodSandboxResponse{}, s.e.announce(ctx, r.GetPod())
}

func (s *service) StopPodSandbox(_ context.Context, r *api.StopPodSandboxRequest) (*api.StopPodSandboxResponse, error) {
	s.e.gone(r.GetPod().GetId())
	return &api.StopPodSandboxResponse{}, nil
}

func (s *service) RemovePodSandbox(_ context.Context, r *api.RemovePodSandboxRequest) (*api.RemovePodSandboxResponse, error) {
	s.e.gone(r.GetPod().GetId())
	return &api.RemovePodSandboxResponse{}, nil
}

func (s *service) CreateContainer(ctx context.Context, r *api.CreateContainerRequest) (*api.CreateContainerResponse, error) {
	adjust, err := s.e.creating(ctx, r.GetPod(), r.GetContainer())
	return &api.CreateContainerResponse{Adjust: adjust}, err
}

func (s *service) ValidateContainerAdjustment(ctx context.Context, r *api.ValidateContainerAdjustmentRequest) (*api.ValidateContainerAdjustmentResponse, error) {
	if err := s.e.validate(ctx, r); err != nil {
		return &api.ValidateContainerAdjustmentResponse{Reject: true, Reason: err.Error()}, nil
	}
	return &api.ValidateContainerAdjustmentResponse{}, nil
}

func (s *service) StartContainer(ctx context.Context, r *api.StartContainerRequest) (*api.StartContainerResponse, error) {
	return &api.StartContainerResponse{}, s.e.starting(ctx, r.GetContainer())
}

func (s *service) UpdateContainer(_ context.Context, r *api.UpdateContainerRequest) (*api.UpdateContainerResponse, error) {
	return &api.UpdateContainerResponse{}, s.e.update(r.GetContainer(), r.GetLinuxResources())
}

func (s *service) StopContainer(_ context.Context, r *api.StopContainerRequest) (*api.StopContainerResponse, error) {
	s.e.ended(r.GetContainer().GetId())
	return &api.StopContainerResponse{}, nil
}

func (s *service) RemoveContainer(_ context.Context, r *api.RemoveContainerRequest) (*api.RemoveContainerResponse, error) {
	s.e.ended(r.GetContainer().GetId())
	return &api.RemoveContainerResponse{}, nil
}

// StateChange is how runtimes before NRI 0.12 send what has a request of its
// own now.
func (s *service) StateChange(ctx context.Context, r *api.StateChangeEvent) (*api.Empty, error) {
	var err error
	switch r.GetEvent() {
	case api.Event_RUN_POD_SANDBOX:
		err = s.e.announce(ctx, r.GetPod())
	case api.Event_STOP_POD_SANDBOX, api.Event_REMOVE_POD_SANDBOX:
		s.e.gone(r.GetPod().GetId())
	case api.Event_START_CONTAINER:
		err = s.e.starting(ctx, r.GetContainer())
	case api.Event_REMOVE_CONTAINER:
		s.e.ended(r.GetContainer().GetId())
	}
	return &api.Empty{}, err
}

// The rest is not subscribed to.

func (s *service) Shutdown(context.Context, *api.Empty) (*api.Empty, error) { return &api.Empty{}, nil }

func (s *service) UpdatePodSandbox(context.Context, *api.UpdatePodSandboxRequest) (*api.UpdatePodSandboxResponse, error) {
	return &api.UpdatePodSandboxResponse{}, nil
}

func (s *service) PostUpdatePodSandbox(context.Context, *api.PostUpdatePodSandboxRequest) (*api.PostUpdatePodSandboxResponse, error) {
	return &api.PostUpdatePodSandboxResponse{}, nil
}

func (s *service) PostCreateContainer(context.Context, *api.PostCreateContainerRequest) (*api.PostCreateContainerResponse, error) {
	return &api.PostCreateContainerResponse{}, nil
}

func (s *service) PostStartContainer(context.Context, *api.PostStartContainerRequest) (*api.PostStartContainerResponse, error) {
	return &api.PostStartContainerResponse{}, nil
}

func (s *service) PostUpdateContainer(context.Context, *api.PostUpdateContainerRequest) (*api.PostUpdateContainerResponse, error) {
	return &api.PostUpdateContainerResponse{}, nil
}
