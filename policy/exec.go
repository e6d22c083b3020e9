// SPDX-License-Identifier: Apache-2.0

package policy

import "slices"

// AdmitExec judges a process that is to be added to a running container of the
// entry. It runs as the container's own process does, or not at all.
func (w *Workload) AdmitExec(e ExecFacts) Decision {
	if w == nil || w.Name == "" {
		return undecided()
	}
	rule := workloadPath(w.Name) + ".exec"
	refuse := func(code Code, expected, actual, remedy string) Decision {
		return Decision{Code: code, Rule: rule, Expected: expected, Actual: actual, Remedy: remedy}
	}
	matches := func(r Exec) bool { return slices.Equal(r.Args, e.Args) || isAny(r.Args) }
	i := slices.IndexFunc(w.Exec, func(r Exec) bool { return matches(r) && (r.TTY || !e.Terminal) })
	switch {
	case len(e.Args) == 0:
		return refuse(CodeExecNotAllowed, "a command", "none", "")
	case i < 0 && slices.ContainsFunc(w.Exec, matches):
		return refuse(CodeExecTerminal, "no terminal", "a terminal", `write "tty": true if one may be open`)
	case i < 0 && len(w.Exec) == 0:
		return refuse(CodeExecNotAllowed, "no added process", commandLine(e.Args), "list the whole argv under exec if it is meant; probes of the kind exec need it")
	case i < 0:
		return refuse(CodeExecNotAllowed, "a listed command", commandLine(e.Args), "list the whole argv under exec if it is meant")
	case len(e.Differs) > 0:
		return refuse(CodeExecNotAllowed, "a process like the container's own", "one with another "+quote(e.Differs[0]), "added processes must not have more than the container")
	}
	return allow(elementPath(rule, i))
}
