// SPDX-License-Identifier: Apache-2.0

package nodecmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/host"
	"github.com/c8s-dev/c8s/host/ctrd"
	"github.com/c8s-dev/c8s/loader"
	"github.com/c8s-dev/c8s/nri/gate"
)

// kernel asks the kernel for each feature. One that has a replacement passes
// either way.
func kernel() []host.Finding {
	var all []host.Finding
	for _, f := range loader.Probe() {
		actual := "there"
		if !f.Present {
			actual = fmt.Sprintf("not there: %v", f.Err)
			if !f.Required {
				actual += "; done without"
			}
		}
		all = append(all, host.Judge("kernel: "+f.Name, f.Present || !f.Required, "Linux "+f.Since, actual, "use a newer kernel, or one with this option"))
	}
	return all
}

// cgroup2 finds the mount of the cgroup2 file system: per-container cgroups are
// there, on hybrid machines too.
func cgroup2(mountinfo string) host.Finding {
	const name, expected = "cgroup2", "a mounted cgroup2 file system"
	f, err := os.Open(mountinfo)
	if err != nil {
		return host.Undecided(name, expected, err, "mount the node's /proc below its root")
	}
	defer func() { _ = f.Close() }()
	at, err := cgroup2Mount(f)
	if err != nil {
		return host.Undecided(name, expected, err, "")
	}
	actual := "none"
	if at != "" {
		actual = "at " + at
	}
	return host.Judge(name, at != "", expected, actual, "mount it at /sys/fs/cgroup, or at /sys/fs/cgroup/unified beside version 1")
}

// cgroup2Mount reads proc_pid_mountinfo(5): the type stands behind the dash.
func cgroup2Mount(r io.Reader) (string, error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		before, after, _ := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", s.Err()
}

func daemon(ctx context.Context, socket string) host.Finding {
	const name, expected = "node daemon", "an answer at its gate"
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	err := gate.Client{Path: socket}.Ping(ctx)
	actual := "it answers"
	if err != nil {
		actual = err.Error()
	}
	return host.Judge(name, err == nil, expected, actual, "start 'c8s node' here; until then only containers of entries with \"bootstrap\" start")
}

const everyRuntime = "every runtime behind " + host.RuntimeProg

// carried are guarantees that newer versions of containerd give by themselves.
// With c8s-runtime in place they hold on all versions.
var carried = []struct {
	name         string
	major, minor int
	by           string
}{
	{"a container's image is known by its configuration digest", 2, 4, "NRI says it when the container is created"},
	{"nothing starts without the NRI plugin", 2, 2, "the validator requires it (sandboxes excepted, and waived by an annotation)"},
	// NRI 0.12.4; no release of containerd has it so far.
	{"nothing starts when the NRI plugin hangs or dies within a request", 2, 5, "the plugin's FailurePolicy"},
}

// running asks containerd itself.
func running(ctx context.Context, client *ctrd.Client) []host.Finding {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	const name, expected = "containerd", "2.0 or newer"
	v, err := client.Version(ctx)
	if err != nil {
		return []host.Finding{host.Undecided(name, expected, err, "start containerd, or name its socket with --containerd-socket")}
	}
	all := []host.Finding{host.Judge(name, v.AtLeast(2, 0), expected, v.Text, "install a newer containerd")}
	inForce, err := client.InForce(ctx)
	if err != nil {
		return append(all, host.Undecided("containerd as it runs", everyRuntime, err, ""))
	}
	wrapped := wrappedRuntimes(inForce)
	all = append(all, wrapped, lastPlugin(inForce))
	for _, g := range carried {
		switch {
		case wrapped.Result == host.Pass && v.AtLeast(g.major, g.minor):
			all = append(all, host.Judge(g.name, true, everyRuntime, "c8s-runtime sees to it, and earlier "+g.by, ""))
		case wrapped.Result == host.Pass:
			all = append(all, host.Judge(g.name, true, everyRuntime, "c8s-runtime sees to it; containerd would from "+fmt.Sprintf("%d.%d", g.major, g.minor)+" on", ""))
		default:
			all = append(all, host.Judge(g.name, false, everyRuntime, "c8s-runtime is not in force", remedyRestart))
		}
	}
	return all
}

func wrappedRuntimes(c *ctrd.InForce) host.Finding {
	var bare []string
	for _, name := range slices.Sorted(maps.Keys(c.Runtimes)) {
		if c.Runtimes[name] != host.RuntimeProg {
			bare = append(bare, fmt.Sprintf("%s starts %q", name, c.Runtimes[name]))
		}
	}
	actual := fmt.Sprintf("%d of %d", len(c.Runtimes), len(c.Runtimes))
	if len(bare) > 0 {
		actual = strings.Join(bare, "; ")
	}
	return host.Judge("containerd as it runs", len(bare) == 0, everyRuntime, actual, remedyRestart)
}

func lastPlugin(c *ctrd.InForce) host.Finding {
	const name, expected = "the pods' network as it runs", "c8s-cni as its last plugin"
	if len(c.Network) == 0 {
		return host.Undecided(name, expected, errors.New("containerd has no network for pods"), "install a network plugin")
	}
	last := c.Network[len(c.Network)-1]
	return host.Judge(name, last == cniProgram, expected, strings.Join(c.Network, ", "), "run 'c8s node install' again")
}
