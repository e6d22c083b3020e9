// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

const (
	modeSecret fs.FileMode = 0o600
	modePublic fs.FileMode = 0o644
)

// writeFile puts data at path completely or not at all. Without force an
// existing file is left alone, also when it appears in the meantime.
func writeFile(path string, data []byte, mode fs.FileMode, force bool) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if rmErr := os.Remove(tmp.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}()
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if force {
		err = os.Rename(tmp.Name(), path)
	} else {
		err = os.Link(tmp.Name(), path) // fails if path exists, which rename does not
	}
	if errors.Is(err, fs.ErrExist) {
		return existsError(path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func existsError(path string) error {
	return fmt.Errorf("writing %s: the file exists; choose another name, or give --force to replace it", path)
}

// checkFree refuses before any work is done; writeFile is what guarantees it.
func checkFree(force bool, paths ...string) error {
	seen := map[string]bool{}
	for _, path := range paths {
		if seen[filepath.Clean(path)] {
			return exit.Usage(fmt.Errorf("%s is named for two outputs", path))
		}
		seen[filepath.Clean(path)] = true
		if _, err := os.Lstat(path); err == nil && !force {
			return existsError(path)
		}
	}
	return nil
}

// emit writes to a file, or to stdout for "-".
func emit(stdout io.Writer, path string, data []byte, force bool) error {
	if path == "-" {
		_, err := stdout.Write(data)
		return err
	}
	return writeFile(path, data, modePublic, force)
}
