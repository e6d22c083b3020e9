// SPDX-License-Identifier: Apache-2.0

package version

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestDescribePrefersTheStampThenTheToolchain(t *testing.T) {
	build := func(main string, kv ...string) *debug.BuildInfo {
		b := &debug.BuildInfo{Main: debug.Module{Version: main}}
		for i := 0; i < len(kv); i += 2 {
			b.Settings = append(b.Settings, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return b
	}
	const commit = "0123456789abcdef0123456789abcdef01234567"
	for _, tc := range []struct {
		name, stamped string
		info          *debug.BuildInfo
		want          string
	}{
		{"stamped", "v1.2.3", build("v9.9.9"), "v1.2.3"},
		{"installed by version", "", build("v1.0.0", "vcs.revision", commit), "v1.0.0"},
		{"built in a checkout", "", build("(devel)", "vcs.revision", commit, "vcs.modified", "false"), "0123456789ab"},
		{"built in a changed checkout", "", build("", "vcs.revision", commit, "vcs.modified", "true"), "0123456789ab-dirty"},
		{"short revision", "", build("", "vcs.revision", "abc"), "abc"},
		{"nothing recorded", "", build("(devel)"), "unknown"},
		{"no build information", "", nil, "unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := describe(tc.stamped, tc.info); got != tc.want {
				t.Errorf("describe = %q, want %q", got, tc.want)
			}
		})
	}
}

func TestStringIsOneLine(t *testing.T) {
	if s := String(); s == "" || strings.ContainsAny(s, "\n\r") {
		t.Errorf("String() = %q", s)
	}
}
