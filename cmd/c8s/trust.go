// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/policy"
)

// trustFlags name the two files every daemon starts from: who may sign
// manifests, and one manifest they signed.
type trustFlags struct{ operatorsPath, manifestPath string }

type trust struct {
	operators policy.Operators
	envelope  []byte
}

func (f *trustFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.operatorsPath, "operators", "", "JSON file with the operators' keys and threshold: the trust anchor (required)")
	c.Flags().StringVar(&f.manifestPath, "manifest", "", "operator-signed manifest to start from (required)")
}

func (f *trustFlags) load() (*trust, error) {
	if err := requireFlag("operators", f.operatorsPath); err != nil {
		return nil, err
	}
	if err := requireFlag("manifest", f.manifestPath); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(f.operatorsPath)
	if err != nil {
		return nil, fmt.Errorf("reading the operators: %w", err)
	}
	var t trust
	if err := json.Unmarshal(raw, &t.operators); err != nil {
		return nil, fmt.Errorf("parsing the operators in %s: %w", f.operatorsPath, err)
	}
	if t.envelope, err = os.ReadFile(f.manifestPath); err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	return &t, nil
}
