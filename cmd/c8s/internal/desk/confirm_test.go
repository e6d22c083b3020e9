// SPDX-License-Identifier: Apache-2.0

package desk_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// terminal opens a pseudoterminal: what is typed at the first end is read from
// the other.
func terminal(t *testing.T) (typist, tty *os.File) {
	t.Helper()
	typist, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this machine has no pseudoterminals: %v", err)
	}
	t.Cleanup(func() { typist.Close() })
	if err := unix.IoctlSetPointerInt(int(typist.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(typist.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("this machine has no pseudoterminals: %v", err)
	}
	t.Cleanup(func() { tty.Close() })
	return typist, tty
}

func TestConfirmTakesNothingButYes(t *testing.T) {
	for answer, want := range map[string]int{"yes\n": exit.OK, "y\n": exit.Refused, "YES\n": exit.Refused, "\n": exit.Refused, "no\n": exit.Refused} {
		typist, tty := terminal(t)
		var asked bytes.Buffer
		c := &cobra.Command{}
		c.SetIn(tty)
		c.SetErr(&asked)
		if _, err := typist.WriteString(answer); err != nil {
			t.Fatal(err)
		}
		err := desk.Confirm(c, "Publish manifest 2?")
		if exit.Code(err) != want || !strings.Contains(asked.String(), "Publish manifest 2?") {
			t.Errorf("%q: %v after %q", answer, err, asked.String())
		}
	}
}

func TestConfirmNeedsSomebodyToAsk(t *testing.T) {
	c := &cobra.Command{}
	c.SetIn(strings.NewReader("yes\n"))
	if err := desk.Confirm(c, "Publish?"); exit.Code(err) != exit.Misuse || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("without a terminal: %v", err)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c.SetIn(file)
	if err := desk.Confirm(c, "Publish?"); exit.Code(err) != exit.Misuse {
		t.Errorf("from a file: %v", err)
	}
}
