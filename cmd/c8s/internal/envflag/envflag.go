// SPDX-License-Identifier: Apache-2.0

// Package envflag lets a daemon's flags come from its environment, so that
// every pod of a DaemonSet has the same command line. A flag that is given wins;
// a variable that names no flag is an error, never ignored.
package envflag

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

// prefix begins the names of all variables that are flags. Kubernetes makes up
// variables too, such as C8S_CDS_PORT for a Service c8s-cds: they must not match.
const prefix = "C8S_FLAG_"

// Note is the paragraph for the help of commands that call Apply, with one of
// their flags as an example.
func Note(flag string) string {
	variable := prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	return fmt.Sprintf(`Every flag may also come from the environment: %s is
--%s. A flag on the command line wins. In a pod, the manifest's env
rules say which of these variables the control plane may set.`, variable, flag)
}

// Apply sets the flags of c that were not given from environ, a list as
// os.Environ returns it.
func Apply(c *cobra.Command, environ []string) error {
	return apply(c, environ, func(string) bool { return true })
}

// ApplyOwn is Apply for a command that runs in a daemon's environment: what
// names a flag of the daemon alone is no error.
func ApplyOwn(c *cobra.Command, environ []string) error {
	return apply(c, environ, func(name string) bool { return c.Flags().Lookup(name) != nil })
}

func apply(c *cobra.Command, environ []string, concerns func(flag string) bool) error {
	var errs []error
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, prefix)
		if !ours || !concerns(flagName(name)) {
			continue
		}
		if err := set(c.Flags(), flagName(name), value); err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", variable, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return exit.Usage(err)
	}
	return nil
}

func flagName(variable string) string {
	return strings.ToLower(strings.ReplaceAll(variable, "_", "-"))
}

func set(flags *pflag.FlagSet, name, value string) error {
	f := flags.Lookup(name)
	switch {
	case f == nil || name == "help":
		return fmt.Errorf("there is no flag --%s", name)
	case f.Changed:
		return nil
	}
	return flags.Set(name, value)
}
