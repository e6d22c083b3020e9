// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// Destination is the pair of flags that say where a document goes. Commands that
// write one have -o for its file; commands that report have -o for the format.
type Destination struct {
	Path  string // Stdio for standard output
	Force bool
}

// Register adds the flags to a command that edits a file.
func (f *Destination) Register(c *cobra.Command) {
	c.Flags().StringVarP(&f.Path, "out", "o", "", "file for the result, or - for standard output (default: the file itself, unless it is signed)")
	c.Flags().BoolVar(&f.Force, "force", false, "replace the output file if it exists")
}

// RegisterFor adds the flags to a command that writes something new: to standard
// output unless told otherwise.
func (f *Destination) RegisterFor(c *cobra.Command, what string) {
	c.Flags().StringVarP(&f.Path, "out", "o", Stdio, "file for "+what+", or - for standard output")
	c.Flags().BoolVar(&f.Force, "force", false, "replace the output file if it exists")
}

// Target returns where to write what was read from path, and whether a file
// there may be replaced. An unsigned document replaces itself; a signed one
// stays.
func (f *Destination) Target(path string, signed bool) (out string, force bool, err error) {
	same := f.Path == "" || SameFile(f.Path, path)
	switch {
	case path == Stdio && f.Path == "":
		return Stdio, false, nil
	case same && signed:
		return "", false, exit.Usage(fmt.Errorf("%s is signed and stays as it is: name the file of the next version with -o", path))
	case same:
		return path, true, nil
	}
	return f.Path, f.Force, CheckFree(f.Force || f.Path == Stdio, f.Path)
}
