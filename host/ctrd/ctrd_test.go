// SPDX-License-Identifier: Apache-2.0

package ctrd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"testing"
)

func TestVersions(t *testing.T) {
	for text, want := range map[string]Version{
		"2.4.2": {"2.4.2", 2, 4}, "v2.0.0-rc.1": {"v2.0.0-rc.1", 2, 0}, "1.7.27~ds1": {"1.7.27~ds1", 1, 7},
	} {
		if got, err := parseVersion(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "2", "2.4", "a.b.c", "dev"} {
		if got, err := parseVersion(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
	v := Version{Major: 2, Minor: 3}
	if !v.AtLeast(2, 3) || !v.AtLeast(1, 9) || v.AtLeast(2, 4) || v.AtLeast(3, 0) {
		t.Error("2.3 is not where it belongs in the order")
	}
}

// What containerd 2.4.2 says, cut to what is read.
const (
	verboseRuntimes = `{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"runtimeType":"io.containerd.runc.v2","options":{"BinaryName":"/opt/c8s/bin/c8s-runtime","SystemdCgroup":false}},"other":{"options":null}}}}`
	verboseCNI      = `{"PluginDirs":["/opt/cni/bin"],"Networks":[{"Config":{"Name":"cni-loopback","Plugins":[{"Network":{"type":"loopback"}}]},"IFName":"lo"},` +
		`{"Config":{"Name":"pods","Plugins":[{"Network":{"type":"bridge"}},{"Network":{"type":"c8s-cni"}}]},"IFName":"eth0"}]}`
)

func TestInForceIsWhatContainerdReports(t *testing.T) {
	got, err := parseInForce(map[string]string{"config": verboseRuntimes, "cniconfig": verboseCNI})
	if err != nil {
		t.Fatal(err)
	}
	if got.Runtimes["runc"] != "/opt/c8s/bin/c8s-runtime" || got.Runtimes["other"] != "" || len(got.Runtimes) != 2 {
		t.Errorf("runtimes %v", got.Runtimes)
	}
	if !slices.Equal(got.Network, []string{"bridge", "c8s-cni"}) {
		t.Errorf("network %v", got.Network)
	}
	for name, info := range map[string]map[string]string{
		"nothing": {}, "no runtime": {"config": "{}"}, "no JSON": {"config": "x"}, "a broken network": {"config": verboseRuntimes, "cniconfig": "x"},
	} {
		if _, err := parseInForce(info); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func FuzzInForce(f *testing.F) {
	f.Add(verboseRuntimes, verboseCNI)
	f.Add("{}", "")
	f.Add(`{"containerd":{"runtimes":{"a":null}}}`, `{"Networks":[null]}`)
	f.Fuzz(func(t *testing.T, config, cni string) {
		got, err := parseInForce(map[string]string{"config": config, "cniconfig": cni})
		if err == nil && len(got.Runtimes) == 0 {
			t.Error("no runtime was taken for a configuration")
		}
	})
}

func TestTheImageOfATryIsNobodyElses(t *testing.T) {
	a, err := build("a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := build("b")
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range a {
		sum := sha256.Sum256(part.data)
		if part.Digest != "sha256:"+hex.EncodeToString(sum[:]) || part.Size != len(part.data) {
			t.Errorf("part %d is not what its descriptor says", i)
		}
	}
	if a[0].Digest == b[0].Digest || a[1].Digest == b[1].Digest || a[2].Digest == b[2].Digest {
		t.Error("two tries share content")
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(a[2].data, &manifest); err != nil || manifest.Config != a[1].descriptor || len(manifest.Layers) != 1 || manifest.Layers[0] != a[0].descriptor {
		t.Errorf("the manifest is %s (%v)", a[2].data, err)
	}
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(a[1].data, &config); err != nil || !slices.Equal(config.RootFS.DiffIDs, []string{a[0].Digest}) {
		t.Errorf("the configuration is %s (%v)", a[1].data, err)
	}
}

func TestWhoRefused(t *testing.T) {
	for text, want := range map[string]string{
		`plugin type="c8s-cni" failed (add): c8s-cni: no node daemon of C8s listens`:                                            "c8s-cni",
		`validator "00-default-validator" rejected container adjustment, reason: required plugin "c8s" not present`:             "containerd's validator",
		`failed to get NRI adjustment for container: rpc error: code = Unknown desc = refused (image-unlisted) by the manifest`: "the NRI plugin",
		`OCI runtime create failed: c8s-runtime: refused (image-unlisted)`:                                                      "c8s-runtime",
		`NRI RunPodSandbox failed: ttrpc: closed`:                                                                               "",
		`exec: "/c8s-node-check": no such file or directory`:                                                                    "",
		``: "",
	} {
		if got := (Refused{"x", text}).By(); got != want {
			t.Errorf("%q: %q, expected %q", text, got, want)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	c, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.InForce(t.Context()); !NobodyListens(err) {
		t.Errorf("no socket: %v", err)
	}
	if NobodyListens(errors.New("another")) || NobodyListens(nil) {
		t.Error("any error is taken for it")
	}
}
