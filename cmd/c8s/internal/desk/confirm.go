// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// Confirm asks on the terminal, and takes nothing but a typed "yes" for an
// answer. Without a terminal nobody can be asked: that takes the flag --yes.
func Confirm(c *cobra.Command, question string) error {
	in, ok := c.InOrStdin().(*os.File)
	if !ok || !isTerminal(in) {
		return exit.Usage(errors.New("there is no terminal to ask on: look at it with --dry-run, then give --yes"))
	}
	if _, err := fmt.Fprintf(c.ErrOrStderr(), "%s Type yes to go on: ", question); err != nil {
		return err
	}
	line, err := bufio.NewReader(in).ReadString('\n')
	if answer := strings.TrimSpace(line); answer != "yes" {
		return errors.Join(fmt.Errorf("the answer was %.40q, not yes: nothing was done", answer), err)
	}
	return nil
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
