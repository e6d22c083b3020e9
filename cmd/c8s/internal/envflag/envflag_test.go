// SPDX-License-Identifier: Apache-2.0

package envflag_test

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/envflag"
	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

func TestApplyOwnLeavesTheDaemonsVariablesAlone(t *testing.T) {
	var instance string
	c := &cobra.Command{Use: "ready", RunE: func(c *cobra.Command, _ []string) error {
		return envflag.ApplyOwn(c, []string{"C8S_FLAG_INSTANCE=pod-1", "C8S_FLAG_NODE_ADDRESS=10.0.0.1"})
	}}
	c.Flags().StringVar(&instance, "instance", "", "")
	c.SetArgs(nil)
	if err := c.Execute(); err != nil || instance != "pod-1" {
		t.Errorf("got %q, %v", instance, err)
	}
}

func TestApply(t *testing.T) {
	cases := map[string]struct {
		args, environ []string
		address       string
		uplinks       int
		err           string
	}{
		"nothing set":         {address: "default"},
		"from a variable":     {environ: []string{"C8S_FLAG_NODE_ADDRESS=10.0.0.1", "HOME=/"}, address: "10.0.0.1"},
		"the flag wins":       {args: []string{"--node-address=10.0.0.2"}, environ: []string{"C8S_FLAG_NODE_ADDRESS=10.0.0.1"}, address: "10.0.0.2"},
		"lists":               {environ: []string{"C8S_FLAG_UPLINK=eth0,eth1"}, address: "default", uplinks: 2},
		"an empty value":      {environ: []string{"C8S_FLAG_NODE_ADDRESS="}, address: ""},
		"a misspelt variable": {environ: []string{"C8S_FLAG_NODE_ADRESS=x"}, err: "C8S_FLAG_NODE_ADRESS: there is no flag --node-adress"},
		"a bad value":         {environ: []string{"C8S_FLAG_TABLE=many"}, err: "C8S_FLAG_TABLE: invalid argument"},
		"help is no setting":  {environ: []string{"C8S_FLAG_HELP=true"}, err: "there is no flag --help"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var address string
			var uplinks []string
			c := &cobra.Command{Use: "node", SilenceUsage: true, SilenceErrors: true, RunE: func(c *cobra.Command, _ []string) error {
				return envflag.Apply(c, tc.environ)
			}}
			c.Flags().StringVar(&address, "node-address", "default", "")
			c.Flags().StringSliceVar(&uplinks, "uplink", nil, "")
			c.Flags().Int("table", 1, "")
			c.SetArgs(tc.args)
			err := c.Execute()
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) || exit.Code(err) != exit.Code(exit.Usage(err)) {
					t.Fatalf("error %v, want one with %q and the code of a wrong usage", err, tc.err)
				}
				return
			}
			if err != nil || address != tc.address || len(uplinks) != tc.uplinks {
				t.Errorf("got %q, %q, %v", address, uplinks, err)
			}
		})
	}
}
