// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

const maxImageConfig = 4 << 20 // bytes; registries have smaller limits

// imageConfig is an image's configuration (OCI image specification), whose
// digest is what entries list.
type imageConfig struct {
	Entrypoint []string
	Cmd        []string
	User       string

	digest policy.Digest
}

// readImageConfigs reads arguments IMAGE=FILE.
func readImageConfigs(c *cobra.Command, args []string) (map[string]*imageConfig, error) {
	configs := map[string]*imageConfig{}
	for _, arg := range args {
		image, path, ok := strings.Cut(arg, "=")
		if !ok || image == "" || path == "" || configs[image] != nil {
			return nil, exit.Usage(fmt.Errorf("--image-config must be IMAGE=FILE, once for each image, not %q", arg))
		}
		text, err := desk.ReadInput(c, path, maxImageConfig)
		if err != nil {
			return nil, fmt.Errorf("reading the configuration of %s: %w", image, err)
		}
		if configs[image], err = parseImageConfig(text); err != nil {
			return nil, fmt.Errorf("reading the configuration of %s: %s: %w", image, path, err)
		}
	}
	return configs, nil
}

func parseImageConfig(text []byte) (*imageConfig, error) {
	var doc struct {
		Config imageConfig `json:"config"`
		RootFS *struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if doc.RootFS == nil || len(doc.RootFS.DiffIDs) == 0 {
		return nil, fmt.Errorf("it names no layers: it is not an image's configuration, as 'crane config IMAGE' prints it")
	}
	doc.Config.digest = policy.DigestOf(text)
	return &doc.Config, nil
}

// numericUser is the user's number, or "" where the user is a name.
func (c *imageConfig) numericUser() string {
	user, _, _ := strings.Cut(c.User, ":")
	if user == "" {
		return "0"
	}
	if _, err := strconv.ParseUint(user, 10, 32); err != nil {
		return ""
	}
	return user
}
