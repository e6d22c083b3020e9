// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// imageFlags describe rules for images that share a run.
type imageFlags struct {
	images     []string
	configs    []string
	signers    []string
	repository string

	run                      string
	args, env, anyEnv, mount []string
	serviceEnv               bool
	user                     string
}

func (f *imageFlags) register(c *cobra.Command) {
	l := c.Flags()
	l.StringArrayVar(&f.images, "image", nil, "image as NAME@sha256:DIGEST, the digest of its configuration (may be repeated)")
	l.StringArrayVar(&f.configs, "image-config", nil, "image as NAME=FILE with its configuration, as 'crane config' prints it (may be repeated)")
	l.StringArrayVar(&f.signers, "signer", nil, "instead of images: whatever this publisher signed (may be repeated: any of them)")
	l.StringVar(&f.repository, "repository", "", "with --signer: the repository that signatures must name")
	l.StringVar(&f.run, "run", "", "file with the rules' run as JSON, or -; the flags below add to it")
	l.StringArrayVar(&f.args, "arg", nil, "command line instead of the image's: the program, then its arguments, each with --arg; 'any' alone: every one")
	l.StringArrayVar(&f.env, "env", nil, "environment variable that must be set, as NAME=VALUE; the value is public (may be repeated)")
	l.StringArrayVar(&f.anyEnv, "any-env", nil, "name of an environment variable that may have any value (may be repeated)")
	l.BoolVar(&f.serviceEnv, "service-env", false, "allow the variables that Kubernetes adds for Services")
	l.StringArrayVar(&f.mount, "mount", nil, "volume as PATH=KIND[:ro] (emptyDir, configMap, ...) or PATH=/path/of/the/node[:ro] (may be repeated)")
	l.StringVar(&f.user, "user", "", "user instead of the image's, as UID or UID:GID")
}

// given reports whether the flags describe anything.
func (f *imageFlags) given() bool {
	return len(f.images)+len(f.configs)+len(f.signers)+len(f.args)+len(f.env)+len(f.anyEnv)+len(f.mount) > 0 ||
		f.repository+f.run+f.user != "" || f.serviceEnv
}

func (f *imageFlags) rules(c *cobra.Command) ([]policy.Image, error) {
	images, err := parseImages(f.images)
	if err != nil {
		return nil, err
	}
	configs, err := readImageConfigs(c, f.configs)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(configs)) {
		images = append(images, policy.Image{Name: name, Digest: configs[name].digest})
	}
	switch {
	case len(f.signers) > 0:
		name := f.repository
		if name == "" {
			name = "anything"
		}
		images = append(images, policy.Image{Name: name, Signers: f.signers, Repository: f.repository})
	case f.repository != "":
		return nil, exit.Usage(errors.New("--repository goes with --signer"))
	}
	if len(images) == 0 {
		return nil, exit.Usage(errors.New("--image, --image-config or --signer is required"))
	}
	run, err := f.readRun(c)
	if err != nil {
		return nil, err
	}
	for i := range images {
		images[i].Run = run
	}
	return images, nil
}

// readRun returns nil where nothing more than the image's own is allowed.
func (f *imageFlags) readRun(c *cobra.Command) (*policy.Run, error) {
	var run policy.Run
	if f.run != "" {
		text, err := desk.ReadInput(c, f.run, policy.MaxPayload)
		if err != nil {
			return nil, fmt.Errorf("reading the run: %w", err)
		}
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		err = dec.Decode(&run)
		if err == nil && dec.More() {
			err = errors.New("something follows it")
		}
		if err != nil {
			return nil, fmt.Errorf("reading the run: %s must be one JSON object, as an image's \"run\" in a manifest: %w", f.run, err)
		}
	}
	if len(f.args) > 0 {
		run.Args = f.args
	}
	for _, arg := range f.env {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, exit.Usage(fmt.Errorf("--env must be NAME=VALUE, or use --any-env %s", arg))
		}
		run.Env = append(run.Env, policy.EnvRule{Name: name, Value: &value})
	}
	for _, name := range f.anyEnv {
		run.Env = append(run.Env, policy.EnvRule{Name: name, Any: true})
	}
	for _, arg := range f.mount {
		path, source, ok := strings.Cut(arg, "=")
		source, readOnly := strings.CutSuffix(source, ":ro")
		if !ok || source == "" {
			return nil, exit.Usage(fmt.Errorf("--mount must be PATH=KIND[:ro] like /tmp=emptyDir, not %q", arg))
		}
		run.Mounts = append(run.Mounts, policy.MountRule{Destination: path, Source: source, ReadOnly: readOnly})
	}
	run.ServiceEnv = run.ServiceEnv || f.serviceEnv
	if f.user != "" {
		run.User = f.user
	}
	if f.run == "" && len(f.args)+len(f.env)+len(f.anyEnv)+len(f.mount) == 0 && f.user == "" && !f.serviceEnv {
		return nil, nil
	}
	return &run, nil
}
