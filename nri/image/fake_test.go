// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"encoding/json"
	"net"
	"path/filepath"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/c8s-dev/c8s/policy"
)

// store is a containerd that has what a test put into it.
type store struct {
	containers map[string]*containersapi.Container
	images     []*imagesapi.Image
	snapshots  map[string]string // parent by name
	blobs      map[policy.Digest][]byte
	tasks      map[string]uint32 // process by container
	reads      int
}

func newStore() *store {
	return &store{containers: map[string]*containersapi.Container{}, snapshots: map[string]string{}, blobs: map[policy.Digest][]byte{}}
}

// serve returns a resolver that asks the store over a socket.
func (s *store) serve(t testing.TB) *Resolver {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	containersapi.RegisterContainersServer(g, containersService{s: s})
	contentapi.RegisterContentServer(g, contentService{s: s})
	imagesapi.RegisterImagesServer(g, imagesService{s: s})
	snapshotsapi.RegisterSnapshotsServer(g, snapshotsService{s: s})
	tasksapi.RegisterTasksServer(g, tasksService{s: s})
	go func() { _ = g.Serve(ln) }()
	t.Cleanup(g.Stop)
	r, err := Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func (s *store) add(b []byte) policy.Digest {
	d := policy.DigestOf(b)
	s.blobs[d] = b
	return d
}

// layer is any valid diff ID.
func layer(name string) policy.Digest { return policy.DigestOf([]byte(name)) }

// config adds the config of an image with these layers.
func (s *store) config(command string, layers ...policy.Digest) policy.Digest {
	return s.addJSON(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Cmd": []string{command}, "Labels": map[string]string{"a": "1", "A": "2"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": layers},
	})
}

func (s *store) manifest(config policy.Digest) policy.Digest {
	return s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": described(ociConfig, config), "layers": []any{}})
}

func (s *store) index(manifests ...policy.Digest) policy.Digest {
	list := []any{}
	for _, m := range manifests {
		list = append(list, described(ociManifest, m))
	}
	return s.addJSON(map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": list})
}

func (s *store) addJSON(v any) policy.Digest {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return s.add(b)
}

func described(mediaType string, d policy.Digest) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": d, "size": 1}
}

func (s *store) image(name, mediaType string, target policy.Digest) {
	s.images = append(s.images, &imagesapi.Image{Name: name, Target: &types.Descriptor{MediaType: mediaType, Digest: string(target)}})
}

// container adds one that runs on a snapshot above parent.
func (s *store) container(id, image, parent string, record any) {
	c := &containersapi.Container{ID: id, Image: image, Snapshotter: "overlayfs", SnapshotKey: "of-" + id}
	if record != nil {
		b, err := json.Marshal(record)
		if err != nil {
			panic(err)
		}
		c.Extensions = map[string]*anypb.Any{containerExtension: {TypeUrl: "x", Value: b}}
	}
	s.containers[id] = c
	s.snapshots["of-"+id] = parent
}

func chainOf(layers ...policy.Digest) string {
	chain, err := chainID(layers)
	if err != nil {
		panic(err)
	}
	return chain
}

// inKubernetes is the check that every call names the namespace.
func inKubernetes(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get(namespaceHeader); len(got) != 1 || got[0] != Namespace {
		return status.Errorf(codes.FailedPrecondition, "namespace %q", got)
	}
	return nil
}

type containersService struct {
	containersapi.UnimplementedContainersServer
	s *store
}

func (c containersService) Get(ctx context.Context, q *containersapi.GetContainerRequest) (*containersapi.GetContainerResponse, error) {
	found, ok := c.s.containers[q.GetID()]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	return &containersapi.GetContainerResponse{Container: found}, inKubernetes(ctx)
}

type imagesService struct {
	imagesapi.UnimplementedImagesServer
	s *store
}

func (i imagesService) List(ctx context.Context, _ *imagesapi.ListImagesRequest) (*imagesapi.ListImagesResponse, error) {
	return &imagesapi.ListImagesResponse{Images: i.s.images}, inKubernetes(ctx)
}

func (i imagesService) Get(ctx context.Context, q *imagesapi.GetImageRequest) (*imagesapi.GetImageResponse, error) {
	for _, img := range i.s.images {
		if img.GetName() == q.GetName() {
			return &imagesapi.GetImageResponse{Image: img}, inKubernetes(ctx)
		}
	}
	return nil, status.Error(codes.NotFound, "no such image")
}

type snapshotsService struct {
	snapshotsapi.UnimplementedSnapshotsServer
	s *store
}

func (n snapshotsService) Stat(ctx context.Context, q *snapshotsapi.StatSnapshotRequest) (*snapshotsapi.StatSnapshotResponse, error) {
	parent, ok := n.s.snapshots[q.GetKey()]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such snapshot")
	}
	return &snapshotsapi.StatSnapshotResponse{Info: &snapshotsapi.Info{Name: q.GetKey(), Parent: parent}}, inKubernetes(ctx)
}

type contentService struct {
	contentapi.UnimplementedContentServer
	s *store
}

func (c contentService) Read(q *contentapi.ReadContentRequest, stream contentapi.Content_ReadServer) error {
	if err := inKubernetes(stream.Context()); err != nil {
		return err
	}
	b, ok := c.s.blobs[policy.Digest(q.GetDigest())]
	if !ok {
		return status.Error(codes.NotFound, "no such blob")
	}
	c.s.reads++
	for len(b) > 0 {
		n := min(len(b), 100)
		if err := stream.Send(&contentapi.ReadContentResponse{Data: b[:n]}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
