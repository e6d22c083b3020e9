// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
	"github.com/c8s-dev/c8s/policy"
)

// Operator reads "[NAME=]KEY" as an operator. The name defaults to the file's,
// or to the label of the key on its token.
func (r *Ring) Operator(arg string) (policy.OperatorKey, error) {
	name, ref := splitName(arg)
	public, err := r.Public(ref)
	if err != nil {
		return policy.OperatorKey{}, err
	}
	key, err := policy.NewOperatorKey(name, public)
	if err != nil {
		return policy.OperatorKey{}, fmt.Errorf("reading the public key of %q: %w", name, err)
	}
	return key, nil
}

func splitName(arg string) (name, ref string) {
	if isURI(arg) {
		if u, err := parseURI(arg); err == nil && u.object != "" {
			return u.object, arg
		}
		return "token", arg
	}
	if name, ref, named := strings.Cut(arg, "="); named {
		return name, ref
	}
	return strings.TrimSuffix(strings.TrimSuffix(filepath.Base(arg), PublicSuffix), ".pem"), arg
}

// Trust is the pair of flags that say who is trusted to sign.
type Trust struct {
	operators string
	keys      []string
	threshold int
}

// Register adds the flags to c.
func (t *Trust) Register(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&t.operators, "operators", "", "operators' file, as 'c8s manifest init' writes it")
	f.StringArrayVar(&t.keys, "key", nil, "public key of a trusted operator, as [NAME=]FILE or PKCS#11 URI (may be repeated)")
	f.IntVar(&t.threshold, "threshold", 1, "with --key: how many of them must have signed")
}

// Given reports whether either flag is there.
func (t *Trust) Given() bool { return t.operators != "" || len(t.keys) > 0 }

// Load returns the operators that the flags name.
func (t *Trust) Load(c *cobra.Command, ring *Ring) (policy.Operators, error) {
	if (t.operators == "") == (len(t.keys) == 0) {
		return policy.Operators{}, exit.Usage(errors.New("either --operators or --key is required: who is trusted to sign"))
	}
	if t.operators == "" {
		o := policy.Operators{Threshold: t.threshold}
		for _, arg := range t.keys {
			key, err := ring.Operator(arg)
			if err != nil {
				return o, err
			}
			o.Keys = append(o.Keys, key)
		}
		return o, o.Validate()
	}
	if c.Flags().Changed("threshold") {
		return policy.Operators{}, exit.Usage(errors.New("--threshold goes with --key; the operators' file has its own"))
	}
	return desk.ReadOperators(t.operators)
}
