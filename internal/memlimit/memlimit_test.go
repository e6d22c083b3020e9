// SPDX-License-Identifier: Apache-2.0

package memlimit

import (
	"math"
	"testing"
	"testing/fstest"
)

func TestLowestLimitCounts(t *testing.T) {
	const cg = "sys/fs/cgroup/"
	for name, tt := range map[string]struct {
		files map[string]string
		soft  int64
		want  int64
	}{
		"nothing can be read":       {nil, math.MaxInt64, math.MaxInt64},
		"no limit":                  {map[string]string{"proc/self/cgroup": "0::/a/b\n", cg + "a/b/memory.max": "max\n"}, math.MaxInt64, math.MaxInt64},
		"its own":                   {map[string]string{"proc/self/cgroup": "0::/a/b\n", cg + "a/b/memory.max": "4096\n"}, math.MaxInt64, 4096},
		"one above":                 {map[string]string{"proc/self/cgroup": "0::/a/b\n", cg + "a/b/memory.max": "max\n", cg + "a/memory.max": "100\n"}, math.MaxInt64, 100},
		"lowest":                    {map[string]string{"proc/self/cgroup": "0::/a/b\n", cg + "a/b/memory.max": "50\n", cg + "a/memory.max": "100\n"}, math.MaxInt64, 50},
		"namespace of its own":      {map[string]string{"proc/self/cgroup": "0::/\n", cg + "memory.max": "77\n"}, math.MaxInt64, 77},
		"both versions are mounted": {map[string]string{"proc/self/cgroup": "3:memory:/x\n0::/a\n", cg + "a/memory.max": "9\n"}, math.MaxInt64, 9},
		"outside of the namespace":  {map[string]string{"proc/self/cgroup": "0::/../../x\n", cg + "x/memory.max": "5\n"}, math.MaxInt64, 5},
		"the runtime's":             {map[string]string{"proc/self/cgroup": "0::/\n", cg + "memory.max": "77\n"}, 10, 10},
		"nonsense":                  {map[string]string{"proc/self/cgroup": "0::/\n", cg + "memory.max": "-1\n"}, 0, math.MaxInt64},
	} {
		root := fstest.MapFS{}
		for file, text := range tt.files {
			root[file] = &fstest.MapFile{Data: []byte(text)}
		}
		if got := Of(root, tt.soft); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
