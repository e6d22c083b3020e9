// SPDX-License-Identifier: Apache-2.0

// Package image says which image a container of containerd really runs.
//
// Its invariant: an image is named by the digest of its config, and only after
// the layers that this config lists were found to be those below the
// container's own snapshot. Names, tags and what the runtime recorded only say
// where to look: they can be moved, and say nothing about what runs.
//
// Every blob is compared with its digest, so a content store that was tampered
// with can make containers fail and nothing else.
package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/c8s-dev/c8s/policy"
)

// Namespace is the containerd namespace of Kubernetes' containers and images.
const Namespace = "k8s.io"

// namespaceHeader carries it in containerd's API.
const namespaceHeader = "containerd-namespace"

const cached = 1024 // documents of each kind

// unpacking are the snapshotters for which containerd unpacks layers itself and
// compares each with the digest in the image's config. Others, which fetch files
// when they are first read, go by what a manifest says about its layers: below a
// chain of the right name there could be anything.
func unpacking(snapshotter string) bool {
	return slices.Contains([]string{"overlayfs", "native", "btrfs", "zfs", "devmapper", "blockfile", "erofs"}, snapshotter)
}

// Resolver asks one containerd. It is safe for concurrent use.
type Resolver struct {
	conn       *grpc.ClientConn // nil when New made it
	containers containersapi.ContainersClient
	content    contentapi.ContentClient
	images     imagesapi.ImagesClient
	snapshots  snapshotsapi.SnapshotsClient
	tasks      tasksapi.TasksClient

	configs   *cache[Config]
	documents *cache[document]
}

// Open returns a resolver for the containerd that listens at a socket, which
// only root may be able to make: what answers there is believed about what
// runs. It connects when first asked, and again when containerd restarts.
func Open(socket string) (*Resolver, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, fmt.Errorf("opening containerd's API at %s: %w", socket, err)
	}
	r := New(conn)
	r.conn = conn
	return r, nil
}

// New returns a resolver that uses a connection of the caller's.
func New(conn grpc.ClientConnInterface) *Resolver {
	return &Resolver{
		containers: containersapi.NewContainersClient(conn), content: contentapi.NewContentClient(conn),
		images: imagesapi.NewImagesClient(conn), snapshots: snapshotsapi.NewSnapshotsClient(conn), tasks: tasksapi.NewTasksClient(conn),
		configs: newCache[Config](cached), documents: newCache[document](cached),
	}
}

// Close ends the connection that Open made.
func (r *Resolver) Close() error {
	if r.conn == nil {
		return nil
	}
	return r.conn.Close()
}

func inNamespace(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, namespaceHeader, Namespace)
}

// Container is what containerd's own records and the snapshot say about a
// container.
type Container struct {
	Image policy.ImageFacts // Digest and Config
	Name  string            // of the image in containerd's record, for people
	Pod   Record            // what the kubelet asked for
}

// Container finds what the container of that id runs. It can be asked once the
// runtime made the record, which is before `runc create`.
func (r *Resolver) Container(ctx context.Context, id string) (Container, error) {
	c, err := r.container(inNamespace(ctx), id)
	if err != nil {
		return Container{}, fmt.Errorf("finding the image of container %.80q: %w", id, err)
	}
	return c, nil
}

func (r *Resolver) container(ctx context.Context, id string) (Container, error) {
	got, err := r.containers.Get(ctx, &containersapi.GetContainerRequest{ID: id})
	if err != nil {
		return Container{}, fmt.Errorf("reading its record: %w", err)
	}
	record := got.GetContainer()
	cri, err := recordOf(id, record.GetExtensions())
	if err != nil {
		return Container{}, fmt.Errorf("reading what the kubelet asked for: %w", err)
	}
	chain, err := r.parent(ctx, record)
	if err != nil {
		return Container{}, err
	}
	config, err := r.matching(ctx, chain, cri.ImageID, record.GetImage())
	if err != nil {
		return Container{}, r.explain(ctx, record.GetSnapshotter(), chain, err)
	}
	return Container{
		Image: policy.ImageFacts{Digest: config.Digest, Config: &config.ImageConfig},
		Name:  record.GetImage(), Pod: cri,
	}, nil
}

// parent returns the name of the snapshot on which the container's own writable
// layer lies: for an unpacked image, the chain of its layers.
func (r *Resolver) parent(ctx context.Context, c *containersapi.Container) (string, error) {
	if c.GetSnapshotKey() == "" || c.GetSnapshotter() == "" {
		return "", errors.New("it has no snapshot: its root file system is from somewhere else than an image")
	}
	if !unpacking(c.GetSnapshotter()) {
		return "", fmt.Errorf("nobody compared the layers of the snapshotter %.80q with the image's config: use overlayfs or another one for which containerd unpacks images", c.GetSnapshotter())
	}
	stat, err := r.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: c.GetSnapshotter(), Key: c.GetSnapshotKey()})
	if err != nil {
		return "", fmt.Errorf("asking the snapshotter %s: %w", c.GetSnapshotter(), err)
	}
	parent := stat.GetInfo().GetParent()
	if parent == "" {
		return "", errors.New("its snapshot has no parent: its root file system is not an image's")
	}
	return parent, nil
}

// matching returns the config whose layers are the chain. Several configs can
// have the same layers; then the recorded one is meant, and the manifest's rules
// on how the process starts tell the rest apart: a process that starts as config
// A says, on the layers of A, is A.
func (r *Resolver) matching(ctx context.Context, chain string, recorded policy.Digest, name string) (Config, error) {
	var tried []error
	try := func(d policy.Digest) (Config, bool) {
		c, err := r.config(ctx, d)
		if err != nil {
			tried = append(tried, err)
			return Config{}, false
		}
		return c, c.Chain == chain
	}
	if recorded != "" {
		if c, ok := try(recorded); ok {
			return c, nil
		}
	}
	images, err := r.imagesToTry(ctx, name)
	if err != nil {
		return Config{}, err
	}
	for _, i := range images {
		manifests, err := r.manifests(ctx, i.GetTarget())
		if err != nil {
			tried = append(tried, fmt.Errorf("image %.80q: %w", i.GetName(), err))
		}
		for _, m := range manifests {
			if c, ok := try(m.Config); ok {
				return c, nil
			}
		}
	}
	return Config{}, &unmatchedError{chain: chain, images: len(images), tried: tried}
}

// imagesToTry returns the images of the node, the one of that name first.
func (r *Resolver) imagesToTry(ctx context.Context, name string) ([]*imagesapi.Image, error) {
	list, err := r.images.List(ctx, &imagesapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	images := list.GetImages()
	for i, candidate := range images {
		if candidate.GetName() == name {
			images[0], images[i] = images[i], images[0]
		}
	}
	return images, nil
}

// unmatchedError says that no image of the node has the container's layers.
type unmatchedError struct {
	chain  string
	images int
	tried  []error
}

func (e *unmatchedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "none of the node's %d images has the layers %s, on which it runs", e.images, e.chain)
	for i, err := range e.tried {
		if i == 3 {
			fmt.Fprintf(&b, "; and %d more", len(e.tried)-i)
			break
		}
		fmt.Fprintf(&b, "; %s", err)
	}
	return b.String()
}

func (e *unmatchedError) Unwrap() []error { return e.tried }

// explain adds the one known cause that is not an attack: containerd copies an
// image for a user namespace when the file system cannot map ids (slow_chown).
// The copy is not taken on trust, because nothing says what it was copied from.
func (r *Resolver) explain(ctx context.Context, snapshotter, chain string, err error) error {
	var unmatched *unmatchedError
	if !errors.As(err, &unmatched) {
		return err
	}
	stat, statErr := r.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: snapshotter, Key: chain})
	below := stat.GetInfo().GetParent()
	if statErr != nil || below == "" {
		return err
	}
	if _, of := r.matching(ctx, below, "", ""); of != nil {
		return err
	}
	return fmt.Errorf("%w; it is a changed copy of the layers %s, as containerd makes for user namespaces with slow_chown: use a file system with id-mapped mounts", err, below)
}
