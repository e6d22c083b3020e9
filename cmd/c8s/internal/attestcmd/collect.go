// SPDX-License-Identifier: Apache-2.0

package attestcmd

import "github.com/spf13/cobra"

func newCollect() *cobra.Command { return &cobra.Command{Use: "collect"} }
