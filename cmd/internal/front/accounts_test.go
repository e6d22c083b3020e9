// SPDX-License-Identifier: Apache-2.0

package front

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

func (n *node) replaceWithFIFO(name string) {
	n.t.Helper()
	os.Remove(n.path(name))
	if err := syscall.Mkfifo(n.path(name), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func TestAccountFilesAreReadInsideTheRootOnly(t *testing.T) {
	for name, tc := range map[string]struct {
		set  func(n *node)
		want string
		ok   bool
	}{
		"as it is":      {func(*node) {}, "root:x:0:0::/:\n", true},
		"absent":        {func(n *node) { os.Remove(n.path("b/rootfs/etc/passwd")) }, "", true},
		"no etc":        {func(n *node) { os.RemoveAll(n.path("b/rootfs/etc")) }, "", true},
		"a link inside": {func(n *node) { n.link("/lib/passwd"); n.write("b/rootfs/lib/passwd", "inside") }, "inside", true},
		"a link out": {func(n *node) {
			n.link("/../../../outside")
			n.write("b/outside", "outside")
			n.write("outside", "outside")
		}, "", true},
		"a link out to our files": {func(n *node) { n.link(n.path("runtime.json")) }, "", true},
		"a loop":                  {func(n *node) { n.link("passwd") }, "", false},
		"a FIFO":                  {func(n *node) { n.replaceWithFIFO("b/rootfs/etc/passwd") }, "", false},
		"huge":                    {func(n *node) { n.write("b/rootfs/etc/passwd", strings.Repeat("x", maxAccounts+1)) }, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			tc.set(n)
			got, _, err := accounts(n.path("b"), []byte(`{"root":{"path":"`+n.path("b/rootfs")+`"}}`))
			if string(got) != tc.want || (err == nil) != tc.ok {
				t.Errorf("read %.80q, %v", got, err)
			}
		})
	}
}

// link makes etc/passwd of the root a link.
func (n *node) link(target string) {
	n.t.Helper()
	os.Remove(n.path("b/rootfs/etc/passwd"))
	if err := os.Symlink(target, n.path("b/rootfs/etc/passwd")); err != nil {
		n.t.Fatal(err)
	}
}
