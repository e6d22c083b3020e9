// SPDX-License-Identifier: Apache-2.0

package collateralcmd

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/attest/collateral"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/operatorkey"
	"github.com/c8s-dev/c8s/policy"
)

type sources struct{ cache, dir string }

func (s *sources) register(c *cobra.Command) {
	c.Flags().StringVar(&s.cache, "cache", "", "folder that 'fetch' filled")
	c.Flags().StringVar(&s.dir, "from-dir", "", "folder with files of the vendors; others in it are left out")
}

// items reads the cache, the folder and the files.
func (s *sources) items(c *cobra.Command, files []string) ([]collateral.Item, error) {
	if s.cache == "" && s.dir == "" && len(files) == 0 {
		return nil, exit.Usage(errors.New("name files, --cache or --from-dir"))
	}
	var all []collateral.Item
	if s.cache != "" {
		if _, err := os.Stat(s.cache); err != nil { // opening would make it
			return nil, fmt.Errorf("reading the cache: %w", err)
		}
		store, err := openCache(c, s.cache, collateral.Offline{})
		if err != nil {
			return nil, err
		}
		all = store.Items()
	}
	if s.dir != "" {
		paths, err := collateral.FilesIn(s.dir)
		if err != nil {
			return nil, err
		}
		files = append(slices.Clone(files), collateral.Recognised(paths)...)
	}
	more, err := collateral.ReadItems(files...)
	if err != nil {
		return nil, err
	}
	all = append(all, more...)
	slices.SortStableFunc(all, func(a, b collateral.Item) int { return strings.Compare(a.Request.String(), b.Request.String()) })
	return all, nil
}

type bundleCommand struct {
	from  sources
	keys  []string
	out   string
	force bool
}

func newBundle() *cobra.Command {
	var b bundleCommand
	c := &cobra.Command{
		Use:   "bundle [FILE...] --sign-with KEY --out BUNDLE",
		Short: "Put collateral into one signed file",
		Long: `Writes what a cache, a folder or files hold into one bundle, signed in a DSSE
envelope. Of several items for the same thing the newest is taken. Files may be
bundles themselves.

Keys are PKCS#8 PEM files, Ed25519 or ECDSA P-256, as 'c8s manifest init
--new-key' makes them. The signature says who made the bundle; machines still
check the vendor's signature on every item.`,
		Example: `  c8s collateral bundle --cache ./collateral --sign-with ops.pem --out site.bundle
  c8s collateral bundle tcb_info.json qe_identity.json chain.pem --sign-with ops.pem --out site.bundle`,
		RunE: func(c *cobra.Command, args []string) error { return b.run(c, args) },
	}
	b.from.register(c)
	c.Flags().StringArrayVar(&b.keys, "sign-with", nil, "private key to sign with, a file or PKCS#11 URI (required; may be repeated)")
	c.Flags().StringVarP(&b.out, "out", "o", "", "file for the bundle (required)")
	c.Flags().BoolVar(&b.force, "force", false, "replace the file if it exists")
	return c
}

func (b *bundleCommand) run(c *cobra.Command, files []string) (err error) {
	switch {
	case len(b.keys) == 0:
		return exit.Usage(errors.New("--sign-with is required: the private key that signs the bundle"))
	case b.out == "":
		return exit.Usage(errors.New("--out is required: the file for the bundle"))
	}
	if err := desk.CheckFree(b.force, b.out); err != nil {
		return err
	}
	ring := operatorkey.NewRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	signers, err := ring.Signers(b.keys)
	if err != nil {
		return err
	}
	items, err := b.from.items(c, files)
	if err != nil {
		return err
	}
	now := time.Now()
	text, err := collateral.SealBundle(items, now, signers...)
	if err != nil {
		return err
	}
	if err := desk.WriteFile(b.out, text, desk.ModePublic, b.force); err != nil {
		return err
	}
	bundle, err := collateral.ReadBundle(text)
	if err != nil {
		return err
	}
	stale := 0
	for _, i := range bundle.Items {
		if i.Stale(now) {
			stale++
		}
	}
	_, err = fmt.Fprintf(c.ErrOrStderr(), "bundled %d items, %d of them stale\n", len(bundle.Items), stale)
	return err
}

type verifyCommand struct {
	keys      []string
	threshold int
	output    desk.Output
}

func newVerify() *cobra.Command {
	var v verifyCommand
	c := &cobra.Command{
		Use:   "verify BUNDLE --key KEY...",
		Short: "Check who signed a bundle",
		Long: `Checks that enough of the trusted keys signed the bundle, and that each item is
what it is said to be. The vendors' signatures and dates are checked when
evidence is verified; items that are stale by now are pointed out.

Exit codes: 0 signed and whole, 1 not, 2 wrong usage.`,
		Example: `  c8s collateral verify site.bundle --key ops.pem.pub
  c8s collateral verify site.bundle --key alice.pub --key bob.pub --threshold 2 -o json`,
		Args: desk.UsageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error { return v.run(c, args[0]) },
	}
	c.Flags().StringArrayVar(&v.keys, "key", nil, "trusted public key, as [NAME=]FILE or PKCS#11 URI (required; may be repeated)")
	c.Flags().IntVar(&v.threshold, "threshold", 1, "how many of the keys must have signed")
	v.output.Register(c)
	return c
}

func (v *verifyCommand) run(c *cobra.Command, path string) (err error) {
	if len(v.keys) == 0 {
		return exit.Usage(errors.New("--key is required: who is trusted to sign"))
	}
	if v.threshold < 1 || v.threshold > len(v.keys) {
		return exit.Usage(fmt.Errorf("--threshold must be from 1 to the number of keys, %d", len(v.keys)))
	}
	ring := operatorkey.NewRing(c)
	defer func() { err = errors.Join(err, ring.Close()) }()
	trusted := policy.Operators{Threshold: v.threshold}
	for _, arg := range v.keys {
		key, err := ring.Operator(arg)
		if err != nil {
			return err
		}
		trusted.Keys = append(trusted.Keys, key)
	}
	text, err := readFile(path, collateral.MaxBundle)
	if err != nil {
		return fmt.Errorf("reading the bundle: %w", err)
	}
	b, err := collateral.OpenBundle(text, trusted)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	rows := rowsOf(b.Items, time.Now())
	if v.output.JSON() {
		return desk.WriteJSON(c.OutOrStdout(), struct {
			Created time.Time                 `json:"created"`
			Signers []string                  `json:"signers"`
			Ignored []policy.IgnoredSignature `json:"ignored"`
			Items   []row                     `json:"items"`
		}{b.Created, b.Signers, append([]policy.IgnoredSignature{}, b.Ignored...), rows})
	}
	_, _ = fmt.Fprintf(c.OutOrStdout(), "verified: %d items of %s\nsigners:  %s\n", len(rows), b.Created.Format(time.RFC3339), strings.Join(b.Signers, ", "))
	return writeRows(c.OutOrStdout(), rows)
}

type showCommand struct {
	from   sources
	output desk.Output
}

func newShow() *cobra.Command {
	var s showCommand
	c := &cobra.Command{
		Use:   "show [FILE...]",
		Short: "List collateral with its dates, and what is stale",
		Long: `Lists what bundles, files of the vendors, a folder of them or a cache hold.
Nothing is verified: use 'verify' to learn who signed a bundle.`,
		Example: `  c8s collateral show site.bundle
  c8s collateral show --cache ./collateral -o json`,
		RunE: func(c *cobra.Command, args []string) error { return s.run(c, args) },
	}
	s.from.register(c)
	s.output.Register(c)
	return c
}

func (s *showCommand) run(c *cobra.Command, files []string) error {
	items, err := s.from.items(c, files)
	if err != nil {
		return err
	}
	return write(c, s.output, rowsOf(items, time.Now()))
}
