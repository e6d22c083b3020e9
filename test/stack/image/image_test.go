// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func app(t *testing.T) *Image {
	t.Helper()
	i, err := App(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestSameSourceSameDigests(t *testing.T) {
	a, b := app(t), app(t)
	if a.Manifest != b.Manifest || a.Config != b.Config || len(a.Layers) != 1 || !slices.Equal(a.Layers, b.Layers) {
		t.Errorf("built twice: %+v and %+v", a, b)
	}
}

func TestVariants(t *testing.T) {
	a := app(t)
	other, err := a.Reconfigure("local.test/app:2", func(c *v1.Config) { c.Cmd = []string{"sleep"} })
	if err != nil {
		t.Fatal(err)
	}
	if other.Config == a.Config || other.Manifest == a.Manifest || !slices.Equal(other.Layers, a.Layers) {
		t.Errorf("reconfigured: %+v of %+v: only the layers should be the same", other, a)
	}
	annotated, err := a.Annotate("local.test/app:3", map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	if annotated.Config != a.Config || annotated.Manifest == a.Manifest {
		t.Errorf("annotated: %+v of %+v: only the manifest should differ", annotated, a)
	}
	tagged := a.Tag("local.test/app:4")
	if tagged.Manifest != a.Manifest || tagged.Ref != "local.test/app:4" || a.Ref != AppRef {
		t.Errorf("tagged: %+v of %+v: only the reference should differ", tagged, a)
	}
}

// What containerd imports must be the very manifest whose digest we say.
func TestWriteKeepsManifest(t *testing.T) {
	a := app(t)
	file := filepath.Join(t.TempDir(), "app.tar")
	if err := a.Write(file); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := a.Image().RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		head, err := r.Next()
		if err != nil {
			t.Fatalf("no manifest in the archive: %v", err)
		}
		if head.Name != "blobs/sha256/"+a.Manifest[len("sha256:"):] {
			continue
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("the manifest is %s (%v), want %s", got, err, want)
		}
		return
	}
}

func TestProgramThatDoesNotExist(t *testing.T) {
	if _, err := Program(t.Context(), "github.com/c8s-dev/c8s/test/stack/image/nothing"); err == nil {
		t.Error("built a program that does not exist")
	}
}
