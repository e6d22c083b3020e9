// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// everyCommand calls look for root and all commands below it.
func everyCommand(root *cobra.Command, look func(*cobra.Command)) {
	look(root)
	for _, c := range root.Commands() {
		everyCommand(c, look)
	}
}

// has reports whether c has the flag, or one of the commands below it, for
// which its help may speak.
func has(c *cobra.Command, flag string) (found bool) {
	everyCommand(c, func(c *cobra.Command) { found = found || c.Flags().Lookup(flag) != nil })
	return found
}

// Who reads of a flag in a command's help looks for it there.
func TestHelpSpeaksOfFlagsThatTheCommandHas(t *testing.T) {
	command := regexp.MustCompile(`(^|[\s(])'[a-z][^']*'`) // whose flags are its own
	named := regexp.MustCompile(`(^|[\s('"])--([a-z0-9][a-z0-9-]*)`)
	root := newRoot()
	root.InitDefaultHelpCmd()
	everyCommand(root, func(c *cobra.Command) {
		texts := []string{c.Long}
		c.Flags().VisitAll(func(f *pflag.Flag) { texts = append(texts, f.Usage) })
		for _, text := range texts {
			for _, m := range named.FindAllStringSubmatch(command.ReplaceAllString(text, ""), -1) {
				if !has(c, m[2]) {
					t.Errorf("%s has no flag --%s: %q", c.CommandPath(), m[2], text)
				}
			}
		}
	})
}

func TestNodeAndIngressCallTheSameThingsTheSame(t *testing.T) {
	usages := map[string]string{}
	commands := []*cobra.Command{newNode(), newIngress(), newStatus(), newFlows(), newIngressStatus(), newIngressReady(), newNodeReady()}
	for _, c := range commands {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			switch f.Name {
			case "instance", "address": // a filter is no address of one's own
				return
			}
			if other, known := usages[f.Name]; known && other != f.Usage {
				t.Errorf("--%s of %s is %q, elsewhere %q", f.Name, c.Name(), f.Usage, other)
			}
			usages[f.Name] = f.Usage
		})
	}
	for _, shared := range []string{"cds", "state-dir", "run-dir", "metrics-address", "drain", "log-level", "tee", "operators", "manifest", "routes", "kubeconfig"} {
		for _, c := range commands[:2] {
			if c.Flags().Lookup(shared) == nil {
				t.Errorf("%s has no --%s", c.Name(), shared)
			}
		}
	}
}

// What is wrong with a flag is said before a daemon is asked, and is not taken
// for its refusal.
func TestWrongFlagsAreWrongUsage(t *testing.T) {
	for _, line := range []string{
		"nothing", "--bogus", "help nothing", "help node nothing", "ingress statsu", "status more", "status -o yaml", "flows more", "flows -n -1", "flows -n 10001", "flows --pod web", "flows --port 65536",
		"node more", "node --drain 5", "node ready more", "node check more", "ingress more", "ingress status -o yaml", "ingress ready more", "version more",
		"ingress --log-level loud", "cds --certificate-life 2h", "receipt more", "curl", "verify https://a https://b", "proxy more",
	} {
		if code := run(t.Context(), strings.Fields(line)); code != exit.Misuse {
			t.Errorf("c8s %s ends with %d, want %d", line, code, exit.Misuse)
		}
	}
}
