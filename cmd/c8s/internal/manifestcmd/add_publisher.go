// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

func newAddSigner() *cobra.Command {
	var f desk.Destination
	var name, key string
	c := &cobra.Command{
		Use:   "add-signer MANIFEST --name NAME --key FILE",
		Short: "Name a publisher of images by its key",
		Long: `Adds the public key of somebody who signs images with cosign. By itself it allows
nothing: an image's rule lists the name ('add-image --signer'), and then whoever
has the private key decides what runs there.

` + editInputs,
		Example: `  c8s manifest add-signer manifest.json --name vendor --key cosign.pub
  c8s manifest add-image manifest.json --workload web --signer vendor --repository registry.example.org/shop/web`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if name == "" || key == "" {
				return exit.Usage(errors.New("--name and --key are required"))
			}
			d, err := openDraft(c, args[0])
			if err != nil {
				return err
			}
			ring := operatorkey.NewRing(c)
			defer func() { err = errors.Join(err, ring.Close()) }()
			public, err := ring.Public(key)
			if err != nil {
				return fmt.Errorf("reading the publisher's key: %w", err)
			}
			described, err := policy.NewOperatorKey(name, public)
			if err != nil {
				return fmt.Errorf("reading the publisher's key: %s: %w", key, err)
			}
			d.manifest.Signers = append(d.manifest.Signers, policy.Signer(described))
			return d.save(c, &f)
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the publisher, for people and for images' rules (required)")
	c.Flags().StringVar(&key, "key", "", "file with the public key (PEM), or PKCS#11 URI (required)")
	f.Register(c)
	return c
}

func newAddSandbox() *cobra.Command {
	var f desk.Destination
	var flags imageFlags
	c := &cobra.Command{
		Use:   "add-sandbox MANIFEST --image NAME@sha256:DIGEST",
		Short: "Let the nodes' runtime use a pause image",
		Long: `Adds the image that a pod's sandbox is made from, by the digest of its
configuration. On a node that enforces what runs, no pod starts without.

` + editInputs,
		Example: `  crane config registry.k8s.io/pause:3.10 >pause.json
  c8s manifest add-sandbox manifest.json --image-config registry.k8s.io/pause:3.10=pause.json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			images, err := flags.rules(c)
			if err != nil {
				return err
			}
			d, err := openDraft(c, args[0])
			if err != nil {
				return err
			}
			d.manifest.Sandboxes = append(d.manifest.Sandboxes, images...)
			return d.save(c, &f)
		},
	}
	c.Flags().StringArrayVar(&flags.images, "image", nil, "image as NAME@sha256:DIGEST (may be repeated)")
	c.Flags().StringArrayVar(&flags.configs, "image-config", nil, "image as NAME=FILE with its configuration (may be repeated)")
	f.Register(c)
	return c
}
