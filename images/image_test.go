// SPDX-License-Identifier: Apache-2.0

package images_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/c8s-dev/c8s/images"
)

func spec() images.Spec {
	return images.Spec{
		Files: []images.File{
			{Path: "/usr/bin/b", Mode: 0o755, Data: []byte("second")},
			{Path: "/a", Mode: 0o644, Data: []byte("first")},
		},
		Entrypoint: []string{"/usr/bin/b"}, Env: []string{"PATH=/usr/bin"}, WorkingDir: "/", OS: "linux", Architecture: "amd64",
		Labels: map[string]string{"one": "1", "two": "2"},
	}
}

func archiveOf(t *testing.T, s images.Spec) []byte {
	t.Helper()
	img, err := images.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := images.WriteArchive(&out, "example.org/app:1", img); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestTheSameFilesGiveTheSameImage(t *testing.T) {
	first := archiveOf(t, spec())
	again := spec()
	slices.Reverse(again.Files)
	if !bytes.Equal(first, archiveOf(t, again)) {
		t.Error("the order in which files are listed changes the image")
	}
	changed := spec()
	changed.Files[0].Data = []byte("other")
	if bytes.Equal(first, archiveOf(t, changed)) {
		t.Error("other files give the same image")
	}
}

// The archive must be what other tools call an OCI layout.
func TestArchiveIsAValidLayout(t *testing.T) {
	dir := t.TempDir()
	r := tar.NewReader(bytes.NewReader(archiveOf(t, spec())))
	for {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, head.Name)
		data, err := io.ReadAll(r)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(content); ; {
		head, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, head.Name)
	}
	if got, want := strings.Join(names, " "), "a usr/ usr/bin/ usr/bin/b"; got != want {
		t.Errorf("the layer holds %q, want %q", got, want)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.Entrypoint[0] != "/usr/bin/b" || config.Architecture != "amd64" || !config.Created.IsZero() && config.Created.Unix() != 0 {
		t.Errorf("config %+v", config)
	}
}

func TestBuildRefusesPathsThatMeanTwoThings(t *testing.T) {
	for _, paths := range [][]string{{"a"}, {"/"}, {"/a/../b"}, {"/a", "/a"}, {"/a/"}} {
		s := images.Spec{}
		for _, p := range paths {
			s.Files = append(s.Files, images.File{Path: p})
		}
		if _, err := images.Build(s); err == nil {
			t.Errorf("%q was accepted", paths)
		}
	}
}
