// SPDX-License-Identifier: Apache-2.0

package front

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// invocation is what containerd wants of the runtime.
type invocation struct {
	root      string // folder of the runtime's state; its last part is the containerd namespace
	log       string
	logFormat string // "json" or "text"
	command   string // empty for --version and the like

	id      string // of create and exec, as the three below
	bundle  string
	process string
}

func (i invocation) title() string {
	if i.id != "" {
		return i.command + " " + i.id
	}
	if i.command != "" {
		return i.command
	}
	return "reading the command line"
}

// namespace is containerd's, which its shim makes part of the root folder.
func (i invocation) namespace() string { return filepath.Base(i.root) }

// flags says which flags take a value. The names are runc's; what is not here
// is refused, since it could change what starts.
type flags map[string]bool

func globalFlags() flags {
	return flags{"root": true, "log": true, "log-format": true, "rootless": true, "criu": true, "debug": false, "systemd-cgroup": false}
}

func createFlags() flags {
	return flags{"bundle": true, "b": true, "console-socket": true, "pidfd-socket": true, "pid-file": true, "no-pivot": false, "no-new-keyring": false}
}

// execFlags lacks all that says what is started: that is in the process file,
// which was shown to the judge.
func execFlags() flags {
	return flags{"process": true, "p": true, "console-socket": true, "pidfd-socket": true, "pid-file": true, "detach": false, "d": false}
}

// passed are commands that start nothing new.
func passed(command string) bool {
	switch command {
	case "state", "start", "kill", "delete", "ps", "pause", "resume", "update", "events", "features", "list", "spec":
		return true
	}
	return false
}

// refused are commands of runc that are never started, and why.
func refused(command string) string {
	switch command {
	case "run":
		return "refused: it makes and starts in one step what containerd does in two, so nothing of Kubernetes needs it"
	case "checkpoint":
		return "refused: it writes the memory of a confidential container to the disk"
	case "restore":
		return "refused: it starts processes from a memory image that no manifest can name"
	}
	return ""
}

// parse reads a command line as runc would. Forms that two parsers could read
// differently, such as flags behind the id or said twice, are refused. The part
// that was understood is returned with an error too, so that it can be reported
// where the caller looks.
func parse(args []string) (invocation, error) {
	inv := invocation{logFormat: "text"}
	global, rest, err := takeFlags(args, globalFlags())
	inv.root, inv.log = global["root"], global["log"]
	if format, ok := global["log-format"]; ok {
		inv.logFormat = format
	}
	if err != nil {
		if len(args) == 1 && (args[0] == "--version" || args[0] == "-v" || args[0] == "--help" || args[0] == "-h") {
			return inv, nil
		}
		return inv, err
	}
	if inv.logFormat != "text" && inv.logFormat != "json" {
		return inv, fmt.Errorf("log format %.20q is neither text nor json", inv.logFormat)
	}
	if len(rest) == 0 {
		return inv, errors.New("there is no command")
	}
	inv.command, rest = rest[0], rest[1:]
	if why := refused(inv.command); why != "" {
		return inv, errors.New(why)
	}
	switch {
	case inv.command == "create":
		return inv, inv.operands(rest, createFlags(), &inv.bundle, "bundle", "b")
	case inv.command == "exec":
		return inv, inv.operands(rest, execFlags(), &inv.process, "process", "p")
	case passed(inv.command):
		return inv, nil
	}
	return inv, fmt.Errorf("command %.40q is not known", inv.command)
}

// operands reads the flags and the id of create or exec. The file that says
// what is started is named by exactly one of two flags.
func (i *invocation) operands(args []string, known flags, file *string, long, short string) error {
	given, rest, err := takeFlags(args, known)
	if err != nil {
		return err
	}
	if len(rest) != 1 || !validID(rest[0]) {
		return fmt.Errorf("after the flags there must be the container's id alone, got %.200q", rest)
	}
	i.id = rest[0]
	l, hasLong := given[long]
	s, hasShort := given[short]
	if hasLong == hasShort {
		return fmt.Errorf("--%s must be given, once", long)
	}
	if *file = l + s; !filepath.IsAbs(*file) {
		return fmt.Errorf("--%s must be an absolute path, got %.200q", long, *file)
	}
	if !filepath.IsAbs(i.root) {
		return fmt.Errorf("--root must be an absolute path, got %.200q", i.root)
	}
	return nil
}

// takeFlags reads flags up to the first argument that is none.
func takeFlags(args []string, known flags) (given map[string]string, rest []string, err error) {
	given = map[string]string{}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name, value, joined := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(args[0], "-"), "-"), "=")
		takes, ok := known[name]
		if !ok {
			return given, nil, fmt.Errorf("flag %.40q is not known here", args[0])
		}
		if _, twice := given[name]; twice {
			return given, nil, fmt.Errorf("flag --%s is given twice", name)
		}
		args = args[1:]
		switch {
		case !takes && joined:
			return given, nil, fmt.Errorf("flag --%s takes no value", name)
		case takes && !joined:
			if len(args) == 0 || strings.HasPrefix(args[0], "-") {
				return given, nil, fmt.Errorf("flag --%s lacks its value", name)
			}
			value, args = args[0], args[1:]
		}
		given[name] = value
	}
	return given, args, nil
}

// validID is runc's own rule (libcontainer, validateID): the id is a file name.
func validID(id string) bool {
	if id == "" || id == "." || id == ".." || id[0] == '-' || len(id) > 1024 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("_+-.", c) >= 0:
		default:
			return false
		}
	}
	return true
}
