// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"slices"
	"strings"
	"testing"
)

func TestCgroupMountIsFoundInMountinfo(t *testing.T) {
	const hybrid = `24 1 0:22 / /sys rw,nosuid shared:2 - sysfs sysfs rw
30 24 0:26 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
`
	for name, c := range map[string]struct {
		mountinfo string
		want      []string
	}{
		"hybrid":           {hybrid, []string{"/sys/fs/cgroup/unified"}},
		"no optional":      {"30 24 0:26 / /sys/fs/cgroup rw - cgroup2 none rw\n", []string{"/sys/fs/cgroup"}},
		"two optional":     {"30 24 0:26 / /c rw shared:1 master:2 - cgroup2 none rw\n", []string{"/c"}},
		"escaped":          {`30 24 0:26 / /a\040b\134c rw - cgroup2 none rw` + "\n", []string{`/a b\c`}},
		"a part of it":     {"30 24 0:26 /kubepods /sys/fs/cgroup rw - cgroup2 none rw\n", nil},
		"above this root":  {"30 24 0:26 /../.. /host/cgroup rw - cgroup2 none rw\n", nil},
		"named like one":   {"30 24 0:26 / /cgroup2 rw - tmpfs cgroup2 rw\n", nil},
		"cut off":          {"30 24 0:26 / /c rw -\n30 24 0:26\n\n", nil},
		"dash in the path": {"30 24 0:26 / - rw - cgroup2 none rw\n", nil},
	} {
		got, err := cgroupMounts(strings.NewReader(c.mountinfo))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

func TestSliceNamesBecomePaths(t *testing.T) {
	for name, want := range map[string]string{
		"kubepods-besteffort-pod1_2.slice": "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice",
		"kubepods.slice":                   "/kubepods.slice",
		"/kubepods/burstable/pod1":         "/kubepods/burstable/pod1",
		"/a/b-c.slice":                     "/a/b-c.slice",
		"k8s.io":                           "k8s.io",
	} {
		if got := slicePath(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
