// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

// trustFlags name the two files every daemon starts from: who may sign
// manifests, and one manifest they signed.
type trustFlags struct{ operatorsPath, manifestPath string }

type trust struct {
	operators policy.Operators
	manifest  *policy.Signed
}

func (f *trustFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.operatorsPath, "operators", "", "JSON file with the operators' keys and threshold: the trust anchor (required)")
	c.Flags().StringVar(&f.manifestPath, "manifest", "", "operator-signed manifest to start from (required)")
	completeFile(c, "json", "operators", "manifest")
}

// load reads both, and believes the manifest only as the operators' word.
func (f *trustFlags) load() (*trust, error) {
	if err := requireFlag("operators", f.operatorsPath); err != nil {
		return nil, err
	}
	if err := requireFlag("manifest", f.manifestPath); err != nil {
		return nil, err
	}
	operators, err := desk.ReadOperators(f.operatorsPath)
	if err != nil {
		return nil, err
	}
	envelope, err := os.ReadFile(f.manifestPath)
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	manifest, err := policy.Open(envelope, operators)
	if _, bare := policy.Parse(envelope); bare == nil {
		err = desk.Manifests().NotSigned(f.manifestPath)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the manifest %s under the operators of %s: %w", f.manifestPath, f.operatorsPath, err)
	}
	return &trust{operators, manifest}, nil
}
