// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"
	"strings"
)

// publishers finds keys that no image names, and pods that cannot start.
func (l *linter) publishers() {
	used := map[string]bool{}
	for i := range l.m.Workloads {
		for j := range l.m.Workloads[i].Images {
			for _, name := range l.m.Workloads[i].Images[j].Signers {
				used[name] = true
			}
		}
	}
	for _, s := range l.m.Signers {
		if !used[s.Name] {
			l.add(LintUnusedSigner, "signers["+s.Name+"]", SeverityInfo, "no image names the key", "remove it, or list it where its images may run")
		}
	}
	if len(l.m.Workloads) > 0 && len(l.m.Sandboxes) == 0 {
		l.add(LintNoSandbox, "sandboxes", SeverityInfo, "no pod starts on a node that enforces what runs", "list the pause image of the nodes' runtime")
	}
}

// signed: whoever has one of the keys decides what runs, today and tomorrow.
func (l *linter) signed(path string, i *Image) {
	if len(i.Signers) == 0 {
		return
	}
	if len(i.Signers) > 1 {
		l.add(LintAnyKey, path+".signers", SeverityWarning, fmt.Sprintf("any one of %d keys is enough, they do not count together", len(i.Signers)),
			"name one, or list digests where several people must agree: those the operators sign")
	}
	if i.Repository == "" {
		l.add(LintAnyRepository, path+".repository", SeverityWarning, "everything that the key ever signed may run, of every product", "name the repository that the signatures are for")
	}
}

func (l *linter) run(path string, r *Run) {
	if r == nil {
		return
	}
	warn := func(code Code, field, message, remedy string) {
		l.add(code, path+field, SeverityWarning, message, remedy)
	}
	if isAny(r.Args) {
		warn(LintAnyArgs, ".args", "whoever controls the cluster decides which program of the image runs", "list the command line")
	}
	if i := slices.IndexFunc(r.Env, func(e EnvRule) bool { return e.Any && loads(e.Name) }); i >= 0 {
		warn(LintAnyEnv, ".env["+r.Env[i].Name+"]", "the variable can make programs run other code, and may have any value", "list its value")
	} else if n := countAny(r.Env); n > 0 {
		l.add(LintAnyEnv, path+".env", SeverityInfo, fmt.Sprintf("whoever controls the cluster sets %d variables", n), "list the values that matter; they are public, as the manifest is")
	}
	for _, m := range r.Mounts {
		if strings.HasPrefix(m.Source, "/") {
			warn(LintHostPath, ".mounts["+m.Destination+"]", "it sees "+m.Source+" of the node", "for system components only; read-only where that is enough")
		}
	}
	if r.Privileged {
		warn(LintPrivileged, ".privileged", "the container can take over its node, with every pod on it", "list the capabilities and devices it needs")
	}
	if len(r.HostNamespaces) > 0 {
		warn(LintHostNamespace, ".hostNamespaces", "it sees the node's "+strings.Join(r.HostNamespaces, ", "), "for system components only")
	}
	if len(r.Sockets) > 0 {
		warn(LintSockets, ".sockets", "it can open "+strings.Join(r.Sockets, ", ")+", which may go around the mesh", "for system components only")
	}
	if r.Stdin {
		warn(LintStdin, ".stdin", "whoever reaches the kubelet can type into the container", "for interactive use only")
	}
}

func countAny(rules []EnvRule) (n int) {
	for _, e := range rules {
		if e.Any {
			n++
		}
	}
	return n
}

// loads names variables by which common runtimes are told to run code.
func loads(name string) bool {
	return strings.HasPrefix(name, "LD_") || slices.Contains([]string{
		"PATH", "BASH_ENV", "ENV", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "NODE_OPTIONS", "NODE_PATH", "RUBYOPT", "RUBYLIB",
		"PERL5OPT", "PERL5LIB", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "GCONV_PATH", "DOTNET_STARTUP_HOOKS",
	}, name)
}

func (l *linter) exec(path string, list []Exec) {
	for _, e := range list {
		switch {
		case isAny(e.Args):
			l.add(LintExec, path, SeverityWarning, "whoever controls the cluster can run any program of the image in its containers", "list the command lines")
		case e.TTY:
			l.add(LintExec, path+"["+commandLine(e.Args)+"]", SeverityWarning, "it may be used interactively", "without a terminal it is enough for probes")
		}
	}
}

func (l *linter) nodeNetwork(path string, w *Workload) {
	switch {
	case !w.HostNetwork:
	case len(w.Peers.To)+len(w.Peers.From)+len(w.Probes) > 0 || w.HostAccess:
		l.add(LintNodeNetwork, path, SeverityWarning, "peers, probes and hostAccess mean nothing for pods in the node's network", "leave them out")
	default:
		l.add(LintNodeNetwork, path, SeverityInfo, "its pods are outside the mesh: nothing protects their connections", "for system components only")
	}
}
