// SPDX-License-Identifier: Apache-2.0

package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRechainFollowsTheNetworkPlugin(t *testing.T) {
	n := machine(t, ordinary())
	before := tree(t, n)
	install(t, n)
	first, other := "/etc/cni/net.d/10-pods.conflist", "/etc/cni/net.d/05-new.conflist"
	step := func(what string, changed bool, chained ...string) {
		t.Helper()
		got, err := n.Rechain()
		if err != nil {
			t.Fatal(err)
		}
		if got != changed {
			t.Errorf("%s: changed %t, expected %t", what, got, changed)
		}
		for _, file := range []string{first, other} {
			c, err := n.disk.read(file)
			if err != nil {
				t.Fatal(err)
			}
			if is := c != nil && strings.Contains(string(c.data), cniProgName); is != slices.Contains(chained, file) {
				t.Errorf("%s: %s chained: %t", what, file, is)
			}
		}
	}
	step("nothing happened", false, first)
	put(t, n, first, bridgeConf)
	step("it was rewritten", true, first)
	put(t, n, other, strings.Replace(bridgeConf, "pods", "new", 1))
	step("another comes first", true, other)
	if err := os.Remove(filepath.Join(n.Root, other)); err != nil {
		t.Fatal(err)
	}
	step("the other has gone", true, first)
	put(t, n, first, strings.Replace(get(t, n, first), `{
      "type": "portmap"
    },`, "", 1)) // rewritten with what was found, ours included
	step("its owner kept ours", false, first)
	uninstall(t, n)
	after := tree(t, n)
	delete(after, first) // rewritten by its owner, so not what it was
	delete(before, first)
	equal(t, "after uninstalling", after, before)
}

func TestAConfigurationThatItsOwnerRemovedStaysAway(t *testing.T) {
	set := ordinary()
	set["/etc/cni/net.d/05-one.conf"] = `{"cniVersion":"0.3.1","name":"one","type":"ptp"}`
	n := machine(t, set)
	install(t, n)
	if err := os.Remove(filepath.Join(n.Root, "/etc/cni/net.d/05-one.conflist")); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Rechain(); err != nil {
		t.Fatal(err)
	}
	after := tree(t, n)
	if _, there := after["/etc/cni/net.d/05-one.conflist"]; there {
		t.Error("the removed network came back")
	}
	if !strings.Contains(after["/etc/cni/net.d/10-pods.conflist"], cniProgName) {
		t.Error("the next network is not chained")
	}
}

func TestRechainNeedsAnInstallation(t *testing.T) {
	n := machine(t, ordinary())
	before := tree(t, n)
	if _, err := n.Rechain(); err == nil {
		t.Error("a node without C8s was changed")
	}
	equal(t, "after the refusal", tree(t, n), before)
}
