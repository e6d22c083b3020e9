// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/nri/image"
	"github.com/c8s-dev/c8s/policy"
)

// NodeImages is containerd's image store, as this package asks it.
type NodeImages struct{ *image.Resolver }

// Of names what a signature of a config's image can be about: its manifests, and
// the indexes that lead to them, since publishers sign either.
func (n NodeImages) Of(ctx context.Context, config policy.Digest) ([]Image, error) {
	manifests, err := n.ManifestsOf(ctx, config)
	if err != nil {
		return nil, err
	}
	var images []Image
	for _, m := range manifests {
		if strings.HasPrefix(m.Reference, "sha256:") {
			continue // containerd's own name for the config
		}
		repository, err := Repository(m.Reference)
		if err != nil {
			continue // an import may use any name; nobody signs under this one
		}
		for _, digest := range append([]policy.Digest{m.Digest}, m.Indexes...) {
			if img := (Image{repository, digest}); !slices.Contains(images, img) {
				images = append(images, img)
			}
		}
	}
	return images, nil
}

// Target implements Contents.
func (n NodeImages) Target(ctx context.Context, name string) (policy.Digest, bool, error) {
	if hub, ok := strings.CutPrefix(name, "index.docker.io/"); ok {
		name = "docker.io/" + hub // as containerd spells it
	}
	digest, ok, err := n.Resolver.Target(ctx, name)
	if err != nil {
		return "", false, fmt.Errorf("looking for image %s: %w", name, err)
	}
	return digest, ok, nil
}
