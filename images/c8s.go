// SPDX-License-Identifier: Apache-2.0

package images

import (
	"fmt"
	"os"
	"path/filepath"
)

// Binaries are the programs in the image of C8s, all in its root folder. The
// node daemon installs the others on its node.
var Binaries = []string{"c8s", "c8s-runtime", "c8s-runtime-alone", "c8s-cni"}

// C8s describes the image of C8s: its static programs out of folder bin and
// nothing else, no shell and no package of a distribution.
func C8s(bin, version, arch string) (Spec, error) {
	spec := Spec{
		Entrypoint: []string{"/c8s"}, WorkingDir: "/", OS: "linux", Architecture: arch,
		Env: []string{"PATH=/"},
		Labels: map[string]string{
			"org.opencontainers.image.title":    "c8s",
			"org.opencontainers.image.version":  version,
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	for _, name := range Binaries {
		data, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			return Spec{}, fmt.Errorf("reading the image's programs: %w", err)
		}
		spec.Files = append(spec.Files, File{Path: "/" + name, Mode: 0o755, Data: data})
	}
	return spec, nil
}
