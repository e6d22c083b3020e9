// SPDX-License-Identifier: Apache-2.0

package ctrd

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	namespace     = "k8s.io" // the CRI's in containerd
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
	labelRef      = "containerd.io/gc.ref.content."
	labelExpire   = "containerd.io/gc.expire"
	// leftover bounds how long content lives that a killed check left.
	leftover = 10 * time.Minute
	// program is in the image by name only: it must not come to be started.
	program = "/c8s-node-check"
)

// descriptor is that of the OCI image specification.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

type blob struct {
	descriptor
	data   []byte
	labels map[string]string
}

func newBlob(mediaType string, data []byte) blob {
	sum := sha256.Sum256(data)
	return blob{descriptor{mediaType, "sha256:" + hex.EncodeToString(sum[:]), len(data)}, data, map[string]string{}}
}

// build makes an image of one empty folder that nobody else has: the mark is in
// its configuration, so no manifest can list it, and in its layer, so that two
// tries share no content that one of them removes.
func build(mark string) ([]blob, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "c8s-node-check-" + mark + "/", Mode: 0o755}), w.Close())
	if err != nil {
		return nil, err
	}
	l := newBlob(mediaLayer, layer.Bytes())
	conf, err := json.Marshal(map[string]any{
		"architecture": architecture, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{program}, "Labels": map[string]string{"c8s-node-check": mark}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{l.Digest}},
	})
	if err != nil {
		return nil, err
	}
	c := newBlob(mediaConfig, conf)
	man, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": c.descriptor, "layers": []descriptor{l.descriptor},
	})
	if err != nil {
		return nil, err
	}
	m := newBlob(mediaManifest, man)
	m.labels[labelRef+"config"], m.labels[labelRef+"l.0"] = c.Digest, l.Digest
	return []blob{l, c, m}, nil
}

func inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

// importImage gives containerd an image that it had not, and a function that
// takes it away again. A lease keeps the content until then, also what no image
// refers to yet; it ends by itself if the check is killed.
func (c *Client) importImage(ctx context.Context, ref, mark string, now time.Time) (remove func(context.Context) error, err error) {
	blobs, err := build(mark)
	if err != nil {
		return nil, fmt.Errorf("making an image: %w", err)
	}
	lease := "c8s-node-check-" + mark
	remove = func(ctx context.Context) error {
		ctx = inNamespace(ctx)
		_, image := c.images.Delete(ctx, &images.DeleteImageRequest{Name: ref})
		_, kept := c.leases.Delete(ctx, &leases.DeleteRequest{ID: lease, Sync: true}) // collects the content
		if err := errors.Join(missingIsFine(image), missingIsFine(kept)); err != nil {
			return fmt.Errorf("removing the image %s: %w", ref, err)
		}
		return nil
	}
	_, err = c.leases.Create(inNamespace(ctx), &leases.CreateRequest{
		ID: lease, Labels: map[string]string{labelExpire: now.Add(leftover).UTC().Format(time.RFC3339)},
	})
	if err != nil {
		return remove, fmt.Errorf("importing the image %s: %w", ref, err)
	}
	leased := metadata.AppendToOutgoingContext(inNamespace(ctx), "containerd-lease", lease)
	for _, b := range blobs {
		if err := c.write(leased, b); err != nil {
			return remove, fmt.Errorf("importing the image %s: %w", ref, err)
		}
	}
	m := blobs[len(blobs)-1].descriptor
	_, err = c.images.Create(inNamespace(ctx), &images.CreateImageRequest{Image: &images.Image{
		Name: ref, Target: &types.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(m.Size)},
		Labels: map[string]string{"io.cri-containerd.image": "managed"},
	}})
	if err != nil {
		return remove, fmt.Errorf("importing the image %s: %w", ref, err)
	}
	return remove, c.known(ctx, ref)
}

func missingIsFine(err error) error {
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return err
}

// write stores one blob.
func (c *Client) write(ctx context.Context, b blob) error {
	stream, err := c.content.Write(ctx)
	if err != nil {
		return err
	}
	err = stream.Send(&content.WriteContentRequest{
		Action: content.WriteAction_COMMIT, Ref: "c8s-node-check-" + b.Digest, Total: int64(b.Size), Expected: b.Digest, Data: b.data, Labels: b.labels,
	})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) == codes.AlreadyExists {
		err = nil
	}
	return errors.Join(err, stream.CloseSend())
}

// known waits until the CRI part of containerd, which learns of images by
// events, has this one.
func (c *Client) known(ctx context.Context, ref string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := c.image.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}})
		if err != nil {
			return fmt.Errorf("looking for the image %s: %w", ref, err)
		}
		if s.Image != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for containerd to know the image %s: %w", ref, ctx.Err())
		case <-tick.C:
		}
	}
}
