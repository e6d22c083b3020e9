// SPDX-License-Identifier: Apache-2.0

// Package images builds the container images of C8s itself, and keeps this
// invariant: an image is a function of its files' bytes and its Spec alone.
// The same source gives the same config digest on every machine, so that anybody
// can recompute the digest that a manifest lists. No container engine takes part.
package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is a regular file of an image. Its folders are made with mode 0755.
type File struct {
	Path string // absolute, clean
	Mode int64  // permission bits
	Data []byte
}

// Spec says what an image holds and how it is started.
type Spec struct {
	Files        []File
	Entrypoint   []string
	Cmd          []string
	Env          []string // NAME=value
	User         string   // numeric; empty is root
	WorkingDir   string
	Labels       map[string]string
	OS           string // as GOOS
	Architecture string // as GOARCH
}

// created is the time of everything in an image: one that says when it was
// built could not be built again.
var created = time.Unix(0, 0).UTC()

// Build makes the image: one layer, OCI media types.
func Build(spec Spec) (v1.Image, error) {
	raw, err := layerOf(spec.Files)
	if err != nil {
		return nil, fmt.Errorf("building the image's layer: %w", err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("building the image's layer: %w", err)
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: created}, CreatedBy: "c8s images"}})
	if err != nil {
		return nil, fmt.Errorf("building the image: %w", err)
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("building the image's config: %w", err)
	}
	file = file.DeepCopy()
	file.Created = v1.Time{Time: created}
	file.OS, file.Architecture = spec.OS, spec.Architecture
	file.Config = v1.Config{
		Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, Env: spec.Env, User: spec.User, WorkingDir: spec.WorkingDir, Labels: spec.Labels,
	}
	img, err = mutate.ConfigFile(img, file)
	if err != nil {
		return nil, fmt.Errorf("building the image's config: %w", err)
	}
	return img, nil
}

// layerOf writes the tar archive of files, in the order of their paths.
func layerOf(files []File) ([]byte, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	made := map[string]bool{"/": true}
	for i, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return nil, fmt.Errorf("file %q: its path is not absolute and clean", f.Path)
		}
		if i > 0 && files[i-1].Path == f.Path {
			return nil, fmt.Errorf("file %s is there twice", f.Path)
		}
		if err := addFolders(w, path.Dir(f.Path), made); err != nil {
			return nil, err
		}
		head := &tar.Header{Typeflag: tar.TypeReg, Name: name(f.Path), Mode: f.Mode, Size: int64(len(f.Data)), ModTime: created, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(head); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// addFolders writes dir and what it lies in, each once.
func addFolders(w *tar.Writer, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	if err := addFolders(w, path.Dir(dir), made); err != nil {
		return err
	}
	made[dir] = true
	head := &tar.Header{Typeflag: tar.TypeDir, Name: name(dir) + "/", Mode: 0o755, ModTime: created, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(head); err != nil {
		return fmt.Errorf("folder %s: %w", dir, err)
	}
	return nil
}

// name is a path as layers spell it.
func name(p string) string { return strings.TrimPrefix(p, "/") }
