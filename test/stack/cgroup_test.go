// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"slices"
	"testing"
)

func TestParseHierarchies(t *testing.T) {
	const controllers = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t2\t1\ncpuacct\t1\t2\t1\nmemory\t2\t2\t1\n"
	const (
		unified = "30 20 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
		pure    = "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
		cpu     = "31 20 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
		memory  = "32 20 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
		systemd = "33 20 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
		part    = "34 20 0:28 /docker/x /mnt/x rw - cgroup cgroup rw,memory\n"
		other   = "35 20 0:30 / /tmp rw - tmpfs tmpfs rw\n"
	)
	for _, tc := range []struct {
		name, mounts string
		want         []hierarchy
	}{
		{"none", other, nil},
		{"pure", other + pure, []hierarchy{{"/sys/fs/cgroup", true, ""}}},
		{"hybrid, the unified one first", cpu + memory + systemd + unified, []hierarchy{
			{"/sys/fs/cgroup/unified", true, ""},
			{"/sys/fs/cgroup/cpu,cpuacct", false, "cpu,cpuacct"},
			{"/sys/fs/cgroup/memory", false, "memory"},
			{"/sys/fs/cgroup/systemd", false, "none,name=systemd"},
		}},
		{"mounted twice, and in part", unified + memory + memory + part, []hierarchy{
			{"/sys/fs/cgroup/unified", true, ""}, {"/sys/fs/cgroup/memory", false, "memory"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := parseHierarchies(tc.mounts, controllers); !slices.Equal(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}
