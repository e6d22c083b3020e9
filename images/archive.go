// SPDX-License-Identifier: Apache-2.0

package images

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// containerdName is the annotation that names an image for containerd's import.
const containerdName = "io.containerd.image.name"

// WriteArchive writes img as an OCI image layout in a tar archive, with the one
// reference ref. Unlike an archive of docker's format it carries the manifest
// itself, so that the manifest's digest survives the import.
func WriteArchive(w io.Writer, ref string, img v1.Image) error {
	a := &archive{tar: tar.NewWriter(w)}
	a.json("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
	manifest, err := img.RawManifest()
	if err != nil {
		return fmt.Errorf("writing the image archive: %w", err)
	}
	digest, err := img.Digest()
	if err != nil {
		return fmt.Errorf("writing the image archive: %w", err)
	}
	a.json("index.json", v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{
		MediaType: types.OCIManifestSchema1, Digest: digest, Size: int64(len(manifest)),
		Annotations: map[string]string{containerdName: ref, "org.opencontainers.image.ref.name": ref},
	}}})
	a.blob(digest, manifest)
	a.config(img)
	a.layers(img)
	if a.err == nil {
		a.err = a.tar.Close()
	}
	if a.err != nil {
		return fmt.Errorf("writing the image archive: %w", a.err)
	}
	return nil
}

// archive remembers the first error; after it nothing more is written.
type archive struct {
	tar *tar.Writer
	err error
}

func (a *archive) json(name string, v any) {
	raw, err := json.Marshal(v)
	if a.err == nil {
		a.err = err
	}
	a.file(name, raw)
}

func (a *archive) blob(h v1.Hash, raw []byte) { a.file("blobs/"+h.Algorithm+"/"+h.Hex, raw) }

func (a *archive) file(name string, raw []byte) {
	if a.err != nil {
		return
	}
	a.err = a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(raw)), ModTime: created, Format: tar.FormatUSTAR})
	if a.err == nil {
		_, a.err = a.tar.Write(raw)
	}
}

func (a *archive) config(img v1.Image) {
	raw, err := img.RawConfigFile()
	if a.err == nil {
		a.err = err
	}
	h, err := img.ConfigName()
	if a.err == nil {
		a.err = err
	}
	a.blob(h, raw)
}

func (a *archive) layers(img v1.Image) {
	layers, err := img.Layers()
	if a.err == nil {
		a.err = err
	}
	for _, layer := range layers {
		if a.err != nil {
			return
		}
		a.layer(layer)
	}
}

func (a *archive) layer(layer v1.Layer) {
	h, err := layer.Digest()
	if err != nil {
		a.err = err
		return
	}
	r, err := layer.Compressed()
	if err != nil {
		a.err = err
		return
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		a.err = err
		return
	}
	a.blob(h, raw)
}
