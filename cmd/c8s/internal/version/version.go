// SPDX-License-Identifier: Apache-2.0

// Package version says which source a binary was built from.
//
// Invariant: it never guesses. What the build stamped wins, then what the Go
// toolchain recorded; without either the answer is "unknown".
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// Version is stamped by the Makefile:
//
//	-ldflags "-X github.com/c8s-dev/c8s/cmd/c8s/internal/version.Version=v0.1.0"
//
// It is written by the linker only.
var Version string

// String is one line for people and logs, such as
// "v0.1.0 (go1.26.8 linux/amd64)".
func String() string {
	info, _ := debug.ReadBuildInfo()
	return describe(Version, info) + " (" + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}

// Software is the name of the source alone, in one word.
func Software() string {
	info, _ := debug.ReadBuildInfo()
	return strings.Join(strings.Fields(describe(Version, info)), "-")
}

// describe picks the best available name of the source.
func describe(stamped string, info *debug.BuildInfo) string {
	if stamped != "" {
		return stamped
	}
	if info == nil {
		return "unknown"
	}
	// "go install module@version" records the module version, a build inside a
	// checkout the commit.
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if revision == "" {
		return "unknown"
	}
	revision = revision[:min(len(revision), 12)]
	if strings.EqualFold(settings["vcs.modified"], "true") {
		revision += "-dirty"
	}
	return revision
}
