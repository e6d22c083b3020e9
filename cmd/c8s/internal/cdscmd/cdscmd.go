// SPDX-License-Identifier: Apache-2.0

// Package cdscmd is the operator's side of a CDS: it says what a CDS proves and
// what it does not, and never sends anything secret to one that did not prove
// itself.
package cdscmd

import "github.com/spf13/cobra"

// Commands returns the client-side subcommands of "cds".
func Commands() []*cobra.Command { return []*cobra.Command{newVerify(), newRecovery()} }
