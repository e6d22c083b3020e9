// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/c8s-dev/c8s/nri/cosign"
	"github.com/c8s-dev/c8s/policy"
)

// shelf is a real registry with one image.
type shelf struct {
	repo  name.Repository
	image v1.Image
	img   cosign.Image
	stop  func()
}

func newShelf(t *testing.T) *shelf {
	t.Helper()
	srv := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	repo, err := name.NewRepository(strings.TrimPrefix(srv.URL, "http://") + "/team/app")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(repo.Tag("1"), image); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return &shelf{repo, image, cosign.Image{Repository: repo.Name(), Manifest: policy.Digest(digest.String())}, srv.Close}
}

// attach puts signatures beside the image, as cosign lays them out.
func (s *shelf) attach(t *testing.T, list ...cosign.Signature) v1.Image {
	t.Helper()
	beside := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	var err error
	for _, sig := range list {
		add := mutate.Addendum{Layer: static.NewLayer(sig.Payload, "application/vnd.dev.cosign.simplesigning.v1+json")}
		add.Annotations = map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig.Signature)}
		if beside, err = mutate.Append(beside, add); err != nil {
			t.Fatal(err)
		}
	}
	if err := remote.Write(s.repo.Tag(cosign.TagOf(s.img.Manifest)), beside); err != nil {
		t.Fatal(err)
	}
	return beside
}

// refer has a bundle refer to the image, as cosign 3 does.
func (s *shelf) refer(t *testing.T, bundle cosign.Signature) {
	t.Helper()
	const kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
	subject, err := s.image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	size, err := s.image.Size()
	if err != nil {
		t.Fatal(err)
	}
	about := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), kind)
	about, err = mutate.Append(about, mutate.Addendum{Layer: static.NewLayer(bundle.Payload, kind)})
	if err != nil {
		t.Fatal(err)
	}
	about = mutate.Subject(about, v1.Descriptor{MediaType: types.DockerManifestSchema2, Digest: subject, Size: size}).(v1.Image)
	digest, err := about.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(s.repo.Digest(digest.String()), about); err != nil {
		t.Fatal(err)
	}
}

// clock is moved by tests only.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newClock() *clock { return &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }

func signers(claims []cosign.Claim) string {
	var names []string
	for _, c := range claims {
		names = append(names, string(c.Signer))
	}
	return strings.Join(names, ",")
}

func TestSignaturesInARegistry(t *testing.T) {
	alice, bob, mallory := newPublisher(t, "alice", "ecdsa"), newPublisher(t, "bob", "ed25519"), newPublisher(t, "mallory", "ecdsa")
	keys := []cosign.Key{alice.public(), bob.public()}
	other := policy.DigestOf([]byte("another image"))
	for name, tc := range map[string]struct {
		attach func(t *testing.T, s *shelf)
		want   string
	}{
		"none":             {attach: func(*testing.T, *shelf) {}},
		"under the tag":    {attach: func(t *testing.T, s *shelf) { s.attach(t, alice.simple(t, s.img.Repository, s.img.Manifest)) }, want: "alice"},
		"a referrer":       {attach: func(t *testing.T, s *shelf) { s.refer(t, bob.bundle(t, predicateSign, s.img.Manifest)) }, want: "bob"},
		"of a stranger":    {attach: func(t *testing.T, s *shelf) { s.attach(t, mallory.simple(t, s.img.Repository, s.img.Manifest)) }},
		"of another image": {attach: func(t *testing.T, s *shelf) { s.attach(t, alice.simple(t, s.img.Repository, other)) }},
		"one of several, in both": {attach: func(t *testing.T, s *shelf) {
			s.attach(t, mallory.simple(t, s.img.Repository, s.img.Manifest), alice.simple(t, s.img.Repository, s.img.Manifest))
			s.refer(t, bob.bundle(t, predicateSign, s.img.Manifest))
		}, want: "alice,bob"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			tc.attach(t, s)
			v := cosign.NewVerifier(newClock().now, &cosign.Registry{})
			claims, err := v.Of(t.Context(), s.img, keys)
			if err != nil || signers(claims) != tc.want {
				t.Fatalf("claims %+v, %v; want by %q", claims, err, tc.want)
			}
		})
	}
}

// A signature that was once found outlives the registry; that there was none is
// soon asked again.
func TestVerifierRemembers(t *testing.T) {
	alice, bob := newPublisher(t, "alice", "ecdsa"), newPublisher(t, "bob", "ecdsa")
	s, c := newShelf(t), newClock()
	v := cosign.NewVerifier(c.now, &cosign.Registry{})
	of := func(p publisher) (string, error) {
		claims, err := v.Of(t.Context(), s.img, []cosign.Key{p.public()})
		return signers(claims), err
	}
	if got, err := of(alice); err != nil || got != "" {
		t.Fatalf("before anybody signed: %q, %v", got, err)
	}
	s.attach(t, alice.simple(t, s.img.Repository, s.img.Manifest))
	if got, err := of(alice); err != nil || got != "" {
		t.Fatalf("right after, the answer is still remembered: %q, %v", got, err)
	}
	c.at = c.at.Add(time.Minute)
	if got, err := of(alice); err != nil || got != "alice" {
		t.Fatalf("a minute later: %q, %v", got, err)
	}
	s.stop()
	c.at = c.at.Add(time.Hour)
	if got, err := of(alice); err != nil || got != "alice" {
		t.Errorf("with the registry gone: %q, %v", got, err)
	}
	if got, err := of(bob); err == nil {
		t.Errorf("bob's signature cannot be known, but: %q", got)
	}
	c.at = c.at.Add(48 * time.Hour)
	if got, err := of(alice); err == nil {
		t.Errorf("after two days without the registry: %q", got)
	}
}

// contents is an image store with what was imported into it.
type contents struct {
	targets map[string]policy.Digest
	blobs   map[policy.Digest][]byte
	err     error
}

func (c contents) Target(_ context.Context, name string) (policy.Digest, bool, error) {
	d, ok := c.targets[name]
	return d, ok, c.err
}

func (c contents) Blob(_ context.Context, digest policy.Digest, limit int) ([]byte, error) {
	raw, ok := c.blobs[digest]
	if !ok || len(raw) > limit {
		return nil, errors.New("no such content")
	}
	return raw, nil
}

func TestSignaturesOnTheNode(t *testing.T) {
	alice := newPublisher(t, "alice", "ecdsa")
	s := newShelf(t)
	sig := alice.simple(t, s.img.Repository, s.img.Manifest)
	beside := s.attach(t, sig)
	s.stop() // the node has no way to the registry
	raw, err := beside.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	store := contents{
		targets: map[string]policy.Digest{s.img.Repository + ":" + cosign.TagOf(s.img.Manifest): policy.DigestOf(raw)},
		blobs:   map[policy.Digest][]byte{policy.DigestOf(raw): raw, policy.DigestOf(sig.Payload): bytes.Clone(sig.Payload)},
	}
	keys := []cosign.Key{alice.public()}
	claims, err := cosign.NewVerifier(newClock().now, &cosign.Local{Contents: store}, &cosign.Registry{}).Of(t.Context(), s.img, keys)
	if err != nil || signers(claims) != "alice" {
		t.Fatalf("claims %+v, %v", claims, err)
	}
	delete(store.blobs, policy.DigestOf(sig.Payload))
	if claims, err := cosign.NewVerifier(newClock().now, &cosign.Local{Contents: store}).Of(t.Context(), s.img, keys); err == nil {
		t.Errorf("with a payload missing: %+v", claims)
	}
	store.err = errors.New("the store is away")
	if claims, err := cosign.NewVerifier(newClock().now, &cosign.Local{Contents: store}).Of(t.Context(), s.img, keys); err == nil {
		t.Errorf("with the store away: %+v", claims)
	}
}

func TestOfEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	block := make(chan struct{})
	t.Cleanup(func() { close(block) })
	v := cosign.NewVerifier(newClock().now, source(func() { <-block }))
	if _, err := v.Of(ctx, cosign.Image{Repository: "a.b/c", Manifest: policy.DigestOf(nil)}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

type source func()

func (s source) Signatures(context.Context, string, policy.Digest) ([]cosign.Signature, error) {
	s()
	return nil, nil
}
