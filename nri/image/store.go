// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8s-dev/c8s/policy"
)

// MaxBlob bounds manifests, indexes and configs: registries allow 4 MiB.
const MaxBlob = 8 << 20

const maxDepth = 3 // indexes in indexes

// ErrNotFound says that the node does not have what was asked for.
var ErrNotFound = errors.New("not on this node")

// Manifest is an image manifest on the node, and a name it can be had by.
type Manifest struct {
	Reference string        // "registry.example/app:1"
	Digest    policy.Digest // of the manifest of one platform
	Config    policy.Digest
	Indexes   []policy.Digest // that lead from the reference to it, the outermost first
}

// Config reads the config of that digest from the node's content store.
func (r *Resolver) Config(ctx context.Context, d policy.Digest) (policy.ImageConfig, error) {
	c, err := r.config(inNamespace(ctx), d)
	return c.ImageConfig, err
}

// ManifestsOf returns the manifests on the node that have the config, once for
// every reference by which they are known: what a signature can be about.
func (r *Resolver) ManifestsOf(ctx context.Context, config policy.Digest) ([]Manifest, error) {
	ctx = inNamespace(ctx)
	list, err := r.images.List(ctx, &imagesapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	var found []Manifest
	for _, i := range list.GetImages() {
		// What cannot be read is no manifest of this config, or none that helps.
		manifests, _ := r.manifests(ctx, i.GetTarget())
		for _, m := range manifests {
			if m.Config == config {
				m.Reference = i.GetName()
				found = append(found, m)
			}
		}
	}
	return found, nil
}

// Target returns what the image of that name points at; ok is false when there is
// no such image.
func (r *Resolver) Target(ctx context.Context, name string) (digest policy.Digest, ok bool, err error) {
	got, err := r.images.Get(inNamespace(ctx), &imagesapi.GetImageRequest{Name: name})
	if status.Code(err) == codes.NotFound {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return policy.Digest(got.GetImage().GetTarget().GetDigest()), true, nil
}

// Blob reads a blob of at most limit bytes from the node's content store and
// compares it with its digest. The error is ErrNotFound when it is not there.
func (r *Resolver) Blob(ctx context.Context, d policy.Digest, limit int) ([]byte, error) {
	return r.blob(inNamespace(ctx), d, limit)
}

func (r *Resolver) blob(ctx context.Context, d policy.Digest, limit int) ([]byte, error) {
	if !d.Valid() {
		return nil, fmt.Errorf("%.80q is no SHA-256 digest", d)
	}
	b, err := r.read(ctx, d, limit)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", d, notFound(err))
	}
	if got := policy.DigestOf(b); got != d {
		return nil, fmt.Errorf("reading %s: the content store holds %s under this name", d, got)
	}
	return b, nil
}

func (r *Resolver) read(ctx context.Context, d policy.Digest, limit int) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream when it is not read to its end
	stream, err := r.content.Read(ctx, &contentapi.ReadContentRequest{Digest: string(d)})
	if err != nil {
		return nil, err
	}
	var b []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if b = append(b, part.GetData()...); len(b) > limit {
			return nil, fmt.Errorf("more than %d bytes", limit)
		}
	}
}

func (r *Resolver) config(ctx context.Context, d policy.Digest) (Config, error) {
	if c, ok := r.configs.get(d); ok {
		return c, nil
	}
	b, err := r.blob(ctx, d, MaxBlob)
	if err != nil {
		return Config{}, err
	}
	c, err := parseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("reading the image config %s: %w", d, err)
	}
	c.Digest = d
	r.configs.put(d, c)
	return c, nil
}

// manifests returns the manifests below a target that are on the node: of an
// index usually one platform's. The error tells what could not be read and
// comes beside those that could.
func (r *Resolver) manifests(ctx context.Context, target *types.Descriptor) ([]Manifest, error) {
	w := walk{r: r}
	w.visit(ctx, descriptor{target.GetMediaType(), policy.Digest(target.GetDigest())}, nil)
	return w.found, errors.Join(w.errs...)
}

type walk struct {
	r     *Resolver
	seen  int
	found []Manifest
	errs  []error
}

func (w *walk) visit(ctx context.Context, d descriptor, above []policy.Digest) {
	depth := len(above)
	if w.seen++; depth > maxDepth || w.seen > maxManifests {
		w.errs = append(w.errs, fmt.Errorf("%s: more than %d manifests or %d indexes in each other", d.digest, maxManifests, maxDepth))
		return
	}
	doc, err := w.r.document(ctx, d)
	switch {
	case errors.Is(err, ErrNotFound) && depth > 0: // another platform's
	case err != nil:
		w.errs = append(w.errs, err)
	case doc.config.digest != "":
		w.found = append(w.found, Manifest{Digest: d.digest, Config: doc.config.digest, Indexes: above})
	}
	for _, below := range doc.manifests {
		w.visit(ctx, below, append(slices.Clip(above), d.digest))
	}
}

// document reads an index or manifest. They are kept by digest and by type,
// since the same bytes are judged by what they are called.
func (r *Resolver) document(ctx context.Context, d descriptor) (document, error) {
	key := d.digest + policy.Digest(" "+d.mediaType)
	if doc, ok := r.documents.get(key); ok {
		return doc, nil
	}
	b, err := r.blob(ctx, d.digest, MaxBlob)
	if err != nil {
		return document{}, err
	}
	doc, err := parseDocument(b, d.mediaType)
	if err != nil {
		return document{}, fmt.Errorf("reading the manifest %s: %w", d.digest, err)
	}
	r.documents.put(key, doc)
	return doc, nil
}
