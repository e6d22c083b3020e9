// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/c8s-dev/c8s/bpf"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/test/kernels/console"
)

// describe says what the kernel is and what its verifier did with the programs.
func describe(out io.Writer) {
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail
	fmt.Fprintln(out, console.Line{Verb: console.Boot, Text: unix.ByteSliceToString(u.Release[:])})
	for _, f := range loader.Probe() {
		text := "there"
		if !f.Present {
			text = fmt.Sprintf("missing (since %s): %v", f.Since, f.Err)
		}
		fmt.Fprintln(out, console.Line{Verb: console.Info, Name: strings.ReplaceAll(f.Name, " ", "-"), Text: text})
	}
	lsm, err := os.ReadFile("/sys/kernel/security/lsm")
	fmt.Fprintln(out, console.Line{Verb: console.Info, Name: "security-modules", Text: orError(string(lsm), err)})
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"c8s": bpf.LoadC8s, "lsm": bpf.LoadLSM} {
		verified(out, name, load)
	}
}

func orError(s string, err error) string {
	if err != nil {
		return err.Error()
	}
	return s
}

// verified loads one object and reports each program.
func verified(out io.Writer, object string, load func() (*ebpf.CollectionSpec, error)) {
	spec, err := load()
	if err == nil {
		var c *ebpf.Collection
		if c, err = ebpf.NewCollection(spec); err == nil {
			defer c.Close()
			for _, name := range slices.Sorted(maps.Keys(c.Programs)) {
				info, err := c.Programs[name].Info()
				text := ""
				if err == nil {
					n, ok := info.VerifiedInstructions()
					text = strconv.FormatUint(uint64(n), 10)
					if !ok {
						text = "unknown"
					}
				}
				fmt.Fprintln(out, console.Line{Verb: console.Verified, Name: name, Text: orError(text, err)})
			}
			return
		}
	}
	fmt.Fprintln(out, console.Line{Verb: console.Info, Name: object + "-object", Text: fmt.Sprintf("%v", err)})
}
