// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8s-dev/c8s/nri/cosign"
	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

// imported is the image store of a containerd, by name.
type imported struct {
	imagesapi.UnimplementedImagesServer
	targets map[string]policy.Digest
}

func (s *imported) Get(_ context.Context, r *imagesapi.GetImageRequest) (*imagesapi.GetImageResponse, error) {
	d, ok := s.targets[r.GetName()]
	if !ok {
		return nil, status.Error(codes.NotFound, r.GetName())
	}
	return &imagesapi.GetImageResponse{Image: &imagesapi.Image{Name: r.GetName(), Target: &types.Descriptor{Digest: string(d)}}}, nil
}

// Signatures are imported under names as containerd and kubelet spell them.
func TestSignaturesOnTheNodeAreFoundUnderContainerdsNames(t *testing.T) {
	signed, target := policy.DigestOf([]byte("manifest")), policy.DigestOf([]byte("signatures"))
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	imagesapi.RegisterImagesServer(g, &imported{targets: map[string]policy.Digest{
		"docker.io/library/nginx:" + cosign.TagOf(signed):       target,
		"registry.example/team/app:" + cosign.TagOf(signed):     target,
		"index.docker.io.example/nginx:" + cosign.TagOf(signed): target,
	}})
	go func() { _ = g.Serve(ln) }()
	defer g.Stop()
	r, err := image.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, reference := range []string{"docker.io/library/nginx:1", "registry.example/team/app:2", "index.docker.io.example/nginx"} {
		repository, err := cosign.Repository(reference)
		if err != nil {
			t.Fatal(err)
		}
		got, ok, err := cosign.NodeImages{Resolver: r}.Target(t.Context(), repository+":"+cosign.TagOf(signed))
		if err != nil || !ok || got != target {
			t.Errorf("%s: %s, %t, %v", reference, got, ok, err)
		}
	}
	if _, ok, err := (cosign.NodeImages{Resolver: r}).Target(t.Context(), "docker.io/library/other:x"); ok || err != nil {
		t.Errorf("found what is not there: %v", err)
	}
}
