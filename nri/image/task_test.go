// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
)

type tasksService struct {
	tasksapi.UnimplementedTasksServer
	s *store
}

func (k tasksService) Get(ctx context.Context, q *tasksapi.GetRequest) (*tasksapi.GetResponse, error) {
	pid, ok := k.s.tasks[q.GetContainerID()]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such task")
	}
	return &tasksapi.GetResponse{Process: &task.Process{Pid: pid}}, inKubernetes(ctx)
}

func (k tasksService) Kill(ctx context.Context, q *tasksapi.KillRequest) (*emptypb.Empty, error) {
	if _, ok := k.s.tasks[q.GetContainerID()]; !ok {
		return nil, status.Error(codes.NotFound, "no such task")
	}
	if q.GetContainerID() == "stuck" {
		return nil, status.Error(codes.Internal, "the shim does not answer")
	}
	if q.GetSignal() == 9 && q.GetAll() {
		delete(k.s.tasks, q.GetContainerID())
	}
	return &emptypb.Empty{}, inKubernetes(ctx)
}

func TestStoppedContainersRunNoMore(t *testing.T) {
	s := newStore()
	s.tasks = map[string]uint32{"a": 7, "stuck": 8, "ended": 0}
	r := s.serve(t)
	if pid, err := r.Process(t.Context(), "a"); pid != 7 || err != nil {
		t.Errorf("Process = %d, %v", pid, err)
	}
	if err := r.Stop(t.Context(), "a"); err != nil {
		t.Errorf("Stop: %v", err)
	}
	if err := r.Stop(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("Stop of one that ended: %v", err)
	}
	for _, id := range []string{"a", "ended"} {
		if pid, err := r.Process(t.Context(), id); !errors.Is(err, ErrNotFound) {
			t.Errorf("Process(%s) = %d, %v", id, pid, err)
		}
	}
	if err := r.Stop(t.Context(), "stuck"); err == nil || errors.Is(err, ErrNotFound) {
		t.Error("a container that could not be stopped is reported stopped")
	}
}

func TestSpecIsTheOneContainerdMadeTheContainerWith(t *testing.T) {
	s := newStore()
	s.containers["a"] = &containersapi.Container{ID: "a", Spec: &anypb.Any{Value: []byte(`{"ociVersion":"1"}`)}}
	s.containers["none"] = &containersapi.Container{ID: "none"}
	r := s.serve(t)
	if b, err := r.Spec(t.Context(), "a"); string(b) != `{"ociVersion":"1"}` || err != nil {
		t.Errorf("Spec = %s, %v", b, err)
	}
	for _, id := range []string{"none", "absent"} {
		if b, err := r.Spec(t.Context(), id); err == nil {
			t.Errorf("Spec(%s) = %s", id, b)
		}
	}
}
