// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/c8s-dev/c8s/policy"
)

// Registry finds signatures where the image came from. It is not trusted: at
// worst it hides signatures.
type Registry struct {
	Keychain  authn.Keychain    // nil: nobody's
	Transport http.RoundTripper // nil: the default
	Insecure  bool              // allow plain HTTP, for tests
}

// Signatures implements Source.
func (r *Registry) Signatures(ctx context.Context, repository string, manifest policy.Digest) ([]Signature, error) {
	var opts []name.Option
	if r.Insecure {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(repository, opts...)
	if err != nil {
		return nil, fmt.Errorf("reading the repository's name: %w", err)
	}
	tagged, tagErr := r.tagged(ctx, repo, manifest)
	bundles, bundleErr := r.referrers(ctx, repo, manifest)
	list := append(tagged, bundles...)
	if len(list) == 0 {
		return nil, errors.Join(tagErr, bundleErr)
	}
	return list, nil
}

func (r *Registry) options(ctx context.Context) []remote.Option {
	opts := []remote.Option{remote.WithContext(ctx)}
	if r.Keychain != nil {
		opts = append(opts, remote.WithAuthFromKeychain(r.Keychain))
	}
	if r.Transport != nil {
		opts = append(opts, remote.WithTransport(r.Transport))
	}
	return opts
}

// tagged reads the signatures under the image's signature tag.
func (r *Registry) tagged(ctx context.Context, repo name.Repository, manifest policy.Digest) ([]Signature, error) {
	return r.read(ctx, repo.Tag(TagOf(manifest)))
}

// referrers reads the bundles that refer to the image.
func (r *Registry) referrers(ctx context.Context, repo name.Repository, manifest policy.Digest) ([]Signature, error) {
	index, err := remote.Referrers(repo.Digest(string(manifest)), r.options(ctx)...)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the referrers: %w", err)
	}
	listed, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("listing the referrers: %w", err)
	}
	var list []Signature
	for _, d := range listed.Manifests {
		if !strings.HasPrefix(d.ArtifactType, bundleFamily) || len(list) >= maxSignatures {
			continue
		}
		more, err := r.read(ctx, repo.Digest(d.Digest.String()))
		if err != nil {
			return list, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// read fetches a manifest and the signatures in it. That there is none is no
// error.
func (r *Registry) read(ctx context.Context, ref name.Reference) ([]Signature, error) {
	got, err := remote.Get(ref, r.options(ctx)...)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetching signatures: %w", err)
	}
	entries, err := signatures(got.Manifest)
	if err != nil {
		return nil, err
	}
	var list []Signature
	for _, e := range entries {
		blob, err := r.blob(ctx, ref.Context(), e.Blob)
		if err != nil {
			return list, err
		}
		list = append(list, Signature{Payload: blob, Signature: e.Signature, Bundle: e.Bundle})
	}
	return list, nil
}

// blob fetches a payload; the library checks it against its digest.
func (r *Registry) blob(ctx context.Context, repo name.Repository, digest policy.Digest) ([]byte, error) {
	layer, err := remote.Layer(repo.Digest(string(digest)), r.options(ctx)...)
	if err != nil {
		return nil, fmt.Errorf("fetching a signature: %w", err)
	}
	content, err := layer.Compressed()
	if err != nil {
		return nil, fmt.Errorf("fetching a signature: %w", err)
	}
	defer content.Close()
	raw, err := io.ReadAll(io.LimitReader(content, maxPayload+1))
	if err != nil {
		return nil, fmt.Errorf("fetching a signature: %w", err)
	}
	if len(raw) > maxPayload {
		return nil, fmt.Errorf("fetching a signature: more than %d bytes", maxPayload)
	}
	if sum, _, err := v1.SHA256(strings.NewReader(string(raw))); err != nil || sum.String() != string(digest) {
		return nil, fmt.Errorf("fetching a signature: its content is not %s", digest)
	}
	return raw, nil
}

// missing reports whether the registry says that there is no such thing.
func missing(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}
