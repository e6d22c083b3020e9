// SPDX-License-Identifier: Apache-2.0

// Command build writes the container image of C8s as an OCI archive and prints
// its digests: the config digest is what manifests list.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/c8s-dev/c8s/images"
)

func main() {
	bin := flag.String("bin", "bin", "folder with the programs")
	ref := flag.String("ref", "c8s.dev/c8s:latest", "reference of the image")
	version := flag.String("version", "unknown", "version, for the image's label")
	out := flag.String("out", "bin/c8s-image.tar", "archive to write")
	flag.Parse()
	if err := run(*bin, *ref, *version, *out); err != nil {
		fmt.Fprintln(os.Stderr, "building the image:", err)
		os.Exit(1)
	}
}

func run(bin, ref, version, out string) error {
	spec, err := images.C8s(bin, version, runtime.GOARCH)
	if err != nil {
		return err
	}
	img, err := images.Build(spec)
	if err != nil {
		return err
	}
	manifest, err := img.Digest()
	if err != nil {
		return err
	}
	config, err := img.ConfigName()
	if err != nil {
		return err
	}
	// Beside its place first: a half-written archive must not look like one.
	f, err := os.CreateTemp(filepath.Dir(out), ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := errors.Join(images.WriteArchive(f, ref, img), f.Chmod(0o644), f.Close(), os.Rename(f.Name(), out)); err != nil {
		return err
	}
	fmt.Printf("archive   %s\nreference %s\nmanifest  %s\nconfig    %s\n", out, ref, manifest, config)
	return nil
}
