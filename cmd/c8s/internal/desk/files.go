// SPDX-License-Identifier: Apache-2.0

// Package desk is what the operator's commands share: it writes a file
// completely or not at all, and over nothing that exists unless told to.
package desk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// The modes of written files.
const (
	ModeSecret fs.FileMode = 0o600
	ModePublic fs.FileMode = 0o644
)

// Stdio is the file name that means standard input or output.
const Stdio = "-"

// WriteFile puts data at path completely or not at all. Without force an
// existing file is left alone, also when it appears in the meantime.
func WriteFile(path string, data []byte, mode fs.FileMode, force bool) (err error) {
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

// CheckFree refuses before any work is done; WriteFile is what guarantees it.
func CheckFree(force bool, paths ...string) error {
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

// Emit writes to a file, or to stdout for "-".
func Emit(stdout io.Writer, path string, data []byte, force bool) error {
	if path == Stdio {
		_, err := stdout.Write(data)
		return err
	}
	return WriteFile(path, data, ModePublic, force)
}

// SameFile reports whether two arguments name one file, by their spelling.
func SameFile(a, b string) bool {
	return a != Stdio && b != Stdio && filepath.Clean(a) == filepath.Clean(b)
}

// ReadInput reads a file, or standard input for "-".
func ReadInput(c *cobra.Command, path string, limit int64) ([]byte, error) {
	if path == Stdio {
		return readLimited(c.InOrStdin(), limit)
	}
	return ReadFile(path, limit)
}

// ReadFile reads one byte over the limit, so that the parser sees and refuses
// what is too large.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return readLimited(f, limit)
}

func readLimited(in io.Reader, limit int64) ([]byte, error) {
	return io.ReadAll(io.LimitReader(in, limit+1))
}
