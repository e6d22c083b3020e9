// SPDX-License-Identifier: Apache-2.0

package front

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const maxAccounts = 1 << 20 // bytes of a passwd or group file

// accounts reads the image's account files from the container's root, on which
// nothing has run and nothing is mounted yet. The image may have made links of
// them: they are followed inside the root only.
func accounts(bundle string, spec []byte) (passwd, group []byte, err error) {
	var s struct {
		Root *struct {
			Path string `json:"path"`
		} `json:"root"`
	}
	if err := json.Unmarshal(spec, &s); err != nil {
		return nil, nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if s.Root == nil || s.Root.Path == "" {
		return nil, nil, errors.New("reading the configuration: it has no root file system")
	}
	path := s.Root.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(bundle, path)
	}
	root, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the root file system %s: %w", path, err)
	}
	defer unix.Close(root)
	if passwd, err = readInside(root, "etc/passwd"); err != nil {
		return nil, nil, err
	}
	group, err = readInside(root, "etc/group")
	return passwd, group, err
}

// readInside returns nil for a file that is not there.
func readInside(root int, name string) ([]byte, error) {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening the image's %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("it is %s, not a file", info.Mode())
	}
	if err != nil {
		return nil, fmt.Errorf("reading the image's %s: %w", name, err)
	}
	b, err := readLimited(f, maxAccounts)
	if err != nil {
		return nil, fmt.Errorf("reading the image's %s: %w", name, err)
	}
	return b, nil
}
