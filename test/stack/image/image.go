// SPDX-License-Identifier: Apache-2.0

// Package image makes the container images that tests run.
//
// Invariant: an image is a function of this repository's source (nginx: of the
// Debian packages), so its digests are the same on every node and in every
// run, and no registry takes part.
package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/c8s-dev/c8s/images"
)

// References of the images made here.
const (
	PauseRef = "local.test/pause:1"
	AppRef   = "local.test/app:1"
	NginxRef = "local.test/nginx:1"
	WebRef   = "local.test/web:1"
)

// Image is an image and the reference it is imported under.
type Image struct {
	Ref      string
	Manifest string   // digest of the manifest, "sha256:…"
	Config   string   // digest of the config: what the image is
	Layers   []string // digests of the layers, uncompressed: diff IDs

	img v1.Image
}

// New names an image.
func New(ref string, img v1.Image) (*Image, error) {
	manifest, err := img.Digest()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	config, err := img.ConfigName()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	i := &Image{Ref: ref, Manifest: manifest.String(), Config: config.String(), img: img}
	for _, layer := range file.RootFS.DiffIDs {
		i.Layers = append(i.Layers, layer.String())
	}
	return i, nil
}

// Image is the image itself.
func (i *Image) Image() v1.Image { return i.img }

// Tag is the same image under another reference; with the reference of
// another image it moves that tag.
func (i *Image) Tag(ref string) *Image {
	other := *i
	other.Ref = ref
	return &other
}

// Reconfigure is an image of the same layers with another config.
func (i *Image) Reconfigure(ref string, edit func(*v1.Config)) (*Image, error) {
	file, err := i.img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", i.Ref, err)
	}
	file = file.DeepCopy()
	edit(&file.Config)
	img, err := mutate.ConfigFile(i.img, file)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return New(ref, img)
}

// Annotate is an image of the same config and layers with another manifest.
func (i *Image) Annotate(ref string, annotations map[string]string) (*Image, error) {
	img, ok := mutate.Annotations(i.img, annotations).(v1.Image)
	if !ok {
		return nil, fmt.Errorf("image %s: annotated it is no image any more", ref)
	}
	return New(ref, img)
}

// Write writes the image as an OCI layout in a tar archive, as containerd
// imports it.
func (i *Image) Write(file string) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("writing image %s: %w", i.Ref, err)
	}
	defer f.Close()
	if err := images.WriteArchive(f, i.Ref, i.img); err != nil {
		return fmt.Errorf("image %s: %w", i.Ref, err)
	}
	return f.Close()
}

// Pause is the image of pods' sandboxes: it sleeps.
func Pause(ctx context.Context) (*Image, error) {
	return fromSource(ctx, PauseRef, "pause", images.Spec{Entrypoint: []string{"/pause"}, User: "65535:65535"})
}

// App is the test program of the folder app; its first argument says what it
// does. It runs as nobody.
func App(ctx context.Context) (*Image, error) {
	return fromSource(ctx, AppRef, "app", images.Spec{Entrypoint: []string{"/app"}, Cmd: []string{"serve"}, User: "65535:65535"})
}

// Web is the web service of the folder web. It runs as nobody.
func Web(ctx context.Context) (*Image, error) {
	return fromSource(ctx, WebRef, "web", images.Spec{Entrypoint: []string{"/web"}, User: "65535:65535"})
}

// fromSource builds the program in a folder below this one into an image.
func fromSource(ctx context.Context, ref, name string, spec images.Spec) (*Image, error) {
	program, err := Program(ctx, "github.com/c8s-dev/c8s/test/stack/image/"+name)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	spec.OS, spec.Architecture = "linux", runtime.GOARCH
	spec.Files = []images.File{{Path: "/" + name, Mode: 0o755, Data: program}}
	img, err := images.Build(spec)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	return New(ref, img)
}

// Program builds a command of this module, without cgo and so that the same
// source gives the same bytes, and returns it.
func Program(ctx context.Context, pkg string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "program-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building %s: %w: %s", pkg, err, text)
	}
	return os.ReadFile(out)
}
