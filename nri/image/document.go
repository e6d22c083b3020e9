// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// The media types of OCI image-spec 1.1 and Docker's registry schema 2.
const (
	ociIndex       = "application/vnd.oci.image.index.v1+json"
	ociManifest    = "application/vnd.oci.image.manifest.v1+json"
	ociConfig      = "application/vnd.oci.image.config.v1+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
)

const (
	maxManifests = 256 // of an index
	maxLayers    = 512
)

// descriptor points at a blob.
type descriptor struct {
	mediaType string
	digest    policy.Digest
}

// document is an index, which has manifests, or a manifest, which has a config.
type document struct {
	manifests []descriptor
	config    descriptor
}

// Config is an image's config.
type Config struct {
	policy.ImageConfig
	Digest policy.Digest
	Chain  string // chain ID of its layers: the name of the snapshot that holds them
}

// parseDocument reads an index or a manifest. Which of the two is said by the
// descriptor that led here, and the document must not say otherwise: one that
// reads as both would be another image to another reader.
func parseDocument(b []byte, mediaType string) (document, error) {
	m, err := members(b, "mediaType", "manifests", "config", "layers", "fsLayers")
	if err != nil {
		return document{}, err
	}
	own, err := value[string](m, "mediaType")
	if err != nil {
		return document{}, err
	}
	if own != "" && own != mediaType {
		return document{}, fmt.Errorf("it is called a %.80q, and calls itself a %.80q", mediaType, own)
	}
	switch mediaType {
	case ociIndex, dockerList:
		if m["config"] != nil || m["layers"] != nil || m["fsLayers"] != nil {
			return document{}, errors.New("it is an index with a manifest's members")
		}
		return parseIndex(m)
	case ociManifest, dockerManifest:
		if m["manifests"] != nil || m["fsLayers"] != nil {
			return document{}, errors.New("it is a manifest with an index's members")
		}
		return parseManifest(m)
	}
	return document{}, fmt.Errorf("media type %.80q is no image", mediaType)
}

func parseIndex(m map[string]json.RawMessage) (document, error) {
	list, err := value[[]json.RawMessage](m, "manifests")
	if err != nil {
		return document{}, err
	}
	if len(list) > maxManifests {
		return document{}, fmt.Errorf("%d manifests are more than %d", len(list), maxManifests)
	}
	var d document
	for _, raw := range list {
		desc, err := parseDescriptor(raw)
		if err != nil {
			return document{}, err
		}
		d.manifests = append(d.manifests, desc)
	}
	return d, nil
}

func parseManifest(m map[string]json.RawMessage) (document, error) {
	config, err := parseDescriptor(m["config"])
	if err != nil {
		return document{}, fmt.Errorf("config: %w", err)
	}
	if config.mediaType != ociConfig && config.mediaType != dockerConfig {
		return document{}, fmt.Errorf("its config is a %.80q: it is an artifact, not an image", config.mediaType)
	}
	return document{config: config}, nil
}

func parseDescriptor(raw json.RawMessage) (descriptor, error) {
	m, err := members(raw, "mediaType", "digest")
	if err != nil {
		return descriptor{}, err
	}
	var d descriptor
	if d.mediaType, err = value[string](m, "mediaType"); err != nil {
		return descriptor{}, err
	}
	if d.digest, err = value[policy.Digest](m, "digest"); err != nil {
		return descriptor{}, err
	}
	if !d.digest.Valid() {
		return descriptor{}, fmt.Errorf("%.80q is no SHA-256 digest", d.digest)
	}
	return d, nil
}

// parseConfig reads an image's config (OCI image-spec, config.md).
func parseConfig(b []byte) (Config, error) {
	root, err := members(b, "config", "rootfs")
	if err != nil {
		return Config{}, err
	}
	var c Config
	if c.ImageConfig, err = parseProcess(root["config"]); err != nil {
		return Config{}, err
	}
	if c.Chain, err = parseLayers(root["rootfs"]); err != nil {
		return Config{}, fmt.Errorf("rootfs: %w", err)
	}
	return c, nil
}

func parseProcess(raw json.RawMessage) (policy.ImageConfig, error) {
	if raw == nil || string(raw) == "null" {
		return policy.ImageConfig{}, nil
	}
	m, err := members(raw, "User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Volumes")
	if err != nil {
		return policy.ImageConfig{}, fmt.Errorf("config: %w", err)
	}
	var c policy.ImageConfig
	var errs [6]error
	c.User, errs[0] = value[string](m, "User")
	c.Env, errs[1] = value[[]string](m, "Env")
	c.Entrypoint, errs[2] = value[[]string](m, "Entrypoint")
	c.Cmd, errs[3] = value[[]string](m, "Cmd")
	c.Cwd, errs[4] = value[string](m, "WorkingDir")
	volumes, err := value[map[string]struct{}](m, "Volumes")
	errs[5] = err
	c.Volumes = slices.Sorted(maps.Keys(volumes))
	return c, errors.Join(errs[:]...)
}

func parseLayers(raw json.RawMessage) (chain string, err error) {
	m, err := members(raw, "type", "diff_ids")
	if err != nil {
		return "", err
	}
	if kind, err := value[string](m, "type"); err != nil || kind != "layers" {
		return "", errors.Join(fmt.Errorf("type is %.80q, not layers", kind), err)
	}
	ids, err := value[[]policy.Digest](m, "diff_ids")
	if err != nil {
		return "", err
	}
	return chainID(ids)
}

// chainID names a stack of layers (OCI image-spec, config.md, "Layer ChainID").
// A stack of none has no name, so that nothing is equal to it.
func chainID(layers []policy.Digest) (string, error) {
	if len(layers) == 0 || len(layers) > maxLayers {
		return "", fmt.Errorf("%d layers, not between 1 and %d", len(layers), maxLayers)
	}
	for _, l := range layers {
		if !l.Valid() {
			return "", fmt.Errorf("layer %.80q is no SHA-256 digest", l)
		}
	}
	chain := layers[0]
	for _, l := range layers[1:] {
		chain = policy.DigestFrom(sha256.Sum256([]byte(string(chain) + " " + string(l))))
	}
	return string(chain), nil
}

// members returns the named members of a JSON object; others are nobody's here.
// A name must stand there once and in exactly this spelling: encoding/json, with
// which the runtime reads, takes other cases for the same, and the last one wins.
func members(b []byte, names ...string) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') || !json.Valid(b) {
		return nil, errors.Join(errors.New("not one JSON object"), err)
	}
	found := make(map[string]json.RawMessage, len(names))
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := t.(string)
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		for _, name := range names {
			if !strings.EqualFold(key, name) {
				continue
			}
			if key != name || found[name] != nil {
				return nil, fmt.Errorf("member %q also is there as %.80q", name, key)
			}
			found[name] = raw
		}
	}
	return found, nil
}

// value decodes a member; one that is absent or null is the zero value.
func value[T any](m map[string]json.RawMessage, name string) (T, error) {
	var v T
	raw := m[name]
	if raw == nil {
		return v, nil
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}
