// SPDX-License-Identifier: Apache-2.0

package enforce_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/c8s-dev/c8s/nri/cosign"
	"github.com/c8s-dev/c8s/policy"
	"github.com/c8s-dev/c8s/test/stack"
	"github.com/c8s-dev/c8s/test/stack/image"
)

// signature is an image's signature as cosign pushes it beside the image.
func signature(t *testing.T, key *ecdsa.PrivateKey, repository, claims string, of *image.Image) *image.Image {
	t.Helper()
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, claims, of.Manifest)
	sum := sha256.Sum256(payload)
	sig := must(ecdsa.SignASN1(rand.Reader, key, sum[:]))
	add := mutate.Addendum{
		Layer:       static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)},
	}
	return must(image.New(repository+":"+cosign.TagOf(policy.Digest(of.Manifest)), must(mutate.Append(empty.Image, add))))
}

// TestSignedImages are listed by who signed them.
func TestSignedImages(t *testing.T) {
	key, mallory := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	const repository = "127.0.0.1:1/team/app" // where nobody listens
	w := newWorld(t, []string{"one"}, func(w *world, m *policy.Manifest) {
		m.Signers = []policy.Signer{policy.Signer(must(policy.NewOperatorKey("team", key.Public())))}
		signed := w.entry("signed", policy.Image{Name: "team", Signers: []string{"team"}, Repository: repository})
		m.Workloads = append(m.Workloads, signed)
	})
	n := w.nodes[0]
	variant := func(label string) *image.Image {
		return must(w.app.Reconfigure(repository+":"+label, func(c *v1.Config) { c.Cmd, c.Labels = []string{"sleep"}, map[string]string{"variant": label} }))
	}
	good, unsigned, forged, elsewhere := variant("good"), variant("unsigned"), variant("forged"), variant("elsewhere")
	n.load(good, unsigned, forged, elsewhere,
		signature(t, key, repository, repository, good),
		signature(t, mallory, repository, repository, forged),
		signature(t, key, repository, "127.0.0.1:1/other/app", elsewhere))
	p := n.pod(t, "signed", "signed")
	for _, tc := range []*image.Image{unsigned, forged, elsewhere} {
		c, err := p.Run(t.Context(), stack.ContainerSpec{Name: "bad", Image: tc.Ref})
		refused(t, tc.Ref, err, "image-unlisted")
		if c != nil {
			if err := c.Remove(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := p.Run(t.Context(), stack.ContainerSpec{Image: good.Ref}); err != nil {
		t.Error(err)
	}
	_, err := p.Run(t.Context(), stack.ContainerSpec{Name: "args", Image: good.Ref, Args: []string{"run", "/app"}})
	refused(t, "a signed image with another command", err, "args-not-allowed")
}
