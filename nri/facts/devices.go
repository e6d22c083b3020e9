// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// device is a device node's numbers.
type device struct {
	kind         string // "c" or "b"
	major, minor int64
}

// everyContainers are the devices that the OCI runtime specification gives to
// every container (config-linux.md, "Default Devices"), and its terminals.
var everyContainers = map[string]device{
	"/dev/null": {"c", 1, 3}, "/dev/zero": {"c", 1, 5}, "/dev/full": {"c", 1, 7},
	"/dev/random": {"c", 1, 8}, "/dev/urandom": {"c", 1, 9}, "/dev/tty": {"c", 5, 0},
	"/dev/console": {"c", 5, 1}, "/dev/ptmx": {"c", 5, 2},
}

const majorPTS = 136 // of terminals in /dev/pts

// devices lists the paths of those that not every container has.
func devices(l *specs.Linux) []string {
	var paths []string
	for _, d := range l.Devices {
		if known, ok := everyContainers[d.Path]; !ok || known != numbers(d) {
			paths = append(paths, d.Path)
		}
	}
	return paths
}

func numbers(d specs.LinuxDevice) device {
	kind := d.Type
	if kind == "u" { // unbuffered, the same as c
		kind = "c"
	}
	return device{kind, d.Major, d.Minor}
}

// allDevices reports whether the cgroup lets the container open a device that
// is neither one of its own nor in every container. Rules that are for making
// nodes only open nothing.
func allDevices(l *specs.Linux) bool {
	if l.Resources == nil {
		return false // runtimes allow the default devices alone
	}
	return slices.ContainsFunc(l.Resources.Devices, func(rule specs.LinuxDeviceCgroup) bool {
		return rule.Allow && rule.Access != "m" && !ownDevice(l, rule)
	})
}

func ownDevice(l *specs.Linux, rule specs.LinuxDeviceCgroup) bool {
	if rule.Major == nil || rule.Type != "c" && rule.Type != "b" {
		return false
	}
	if rule.Minor == nil {
		return rule.Type == "c" && *rule.Major == majorPTS
	}
	is := device{rule.Type, *rule.Major, *rule.Minor}
	for _, known := range everyContainers {
		if known == is {
			return true
		}
	}
	return slices.ContainsFunc(l.Devices, func(d specs.LinuxDevice) bool { return numbers(d) == is })
}
