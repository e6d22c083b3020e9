// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// requestTimeout is how long containerd waits for a plugin. All requests share
// one lock there, so a plugin that hangs delays every pod by this.
const requestTimeout = "5s"

// dropIn writes what C8s adds to containerd's configuration. Its version is the
// main file's: 2.0 to 2.2 take the version of the last file for that of all, and
// 2.3 refuses a drop-in that is newer.
func (o *containerd) dropIn(handlers []handler) []byte {
	section := sectionCRI
	if o.version == 2 {
		section = sectionCRIv2
	}
	var b strings.Builder
	fmt.Fprintf(&b, `# Written by 'c8s node install', removed by 'c8s node uninstall'. Do not edit.
version = %d
`, o.version)
	for _, h := range handlers {
		at := fmt.Sprintf("plugins.%s.containerd.runtimes.%s", quote(section), quote(h.name))
		if !h.typed {
			fmt.Fprintf(&b, "\n[%s]\n  runtime_type = %s\n", at, quote(shimRunc))
		}
		fmt.Fprintf(&b, "\n[%s.options]\n  BinaryName = %s\n", at, quote(RuntimeProg))
	}
	fmt.Fprintf(&b, `
[plugins.%[1]s]
  disable = false
  disable_connections = false
  plugin_request_timeout = %[2]s

# c8s-runtime is what refuses; this refuses earlier. Seccomp adjustments stay
# allowed, because c8s makes one.
[plugins.%[1]s.default_validator]
  enable = true
  required_plugins = [%[3]s]
  tolerate_missing_plugins_annotation = %[4]s
  reject_oci_hook_adjustment = true
  reject_namespace_adjustment = true
`, quote(sectionNRI), quote(requestTimeout), strings.Join(o.requiredPlugins(), ", "), quote(TolerateAnnotation))
	return []byte(b.String())
}

// requiredPlugins are the operator's own and C8s, since containerd does not
// merge lists inside a section.
func (o *containerd) requiredPlugins() []string {
	names := []string{quote(PluginName)}
	all, _ := table(o.nri, "default_validator")["required_plugins"].([]any)
	for _, v := range all {
		if s, ok := v.(string); ok && !slices.Contains(names, quote(s)) {
			names = append(names, quote(s))
		}
	}
	return names
}

// quote writes a TOML basic string, whose escapes contain JSON's.
func quote(s string) string {
	text, _ := json.Marshal(s) // cannot fail for a string
	return string(text)
}
