// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"fmt"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// BeyondImage says in what a sandbox is more than its image: it is to hold a
// pod's namespaces by the image's own program, and nothing else. It is empty for
// one that is not; whose namespaces it holds is a question of its own.
func BeyondImage(f policy.ContainerFacts) (expected, actual string) {
	config := f.Image.Config
	if config == nil {
		return "an image whose configuration is known", "another"
	}
	if !slices.Equal(f.Args, slices.Concat(config.Entrypoint, config.Cmd)) {
		return "the image's own command line", "another"
	}
	for _, v := range f.Env {
		name, _, _ := strings.Cut(v, "=")
		if name != "PATH" && name != "HOSTNAME" && !slices.Contains(config.Env, v) {
			return "the image's environment", fmt.Sprintf("a variable %.80q", name)
		}
	}
	for _, m := range f.Mounts {
		if m.Source != policy.MountRuntime {
			return "the runtime's own mounts", fmt.Sprintf("%s %.80q at %.80q", m.Source, m.HostPath, m.Destination)
		}
	}
	switch {
	case f.Hooks > 0:
		return "no OCI hook", fmt.Sprint(f.Hooks)
	case len(f.Other) > 0:
		return "settings that rules are about", fmt.Sprintf("%.80q", f.Other[0])
	case len(f.Devices) > 0:
		return "no device", fmt.Sprintf("%.80q", f.Devices[0])
	}
	return "", ""
}
