// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// runtimePath is the PATH of an image that has none.
const runtimePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment: each variable is a rule's, or else the image's, or else what
// runtime and kubelet add; each that a rule or the image fixes is there.
// Values may be secrets, so no refusal repeats one.
func (s *start) environment() Decision {
	fixed := make(map[string]string, len(s.run.Env)+len(s.c.Image.Config.Env))
	for _, v := range s.c.Image.Config.Env {
		name, value, _ := strings.Cut(v, "=")
		fixed[name] = value
	}
	for _, rule := range s.run.Env {
		if delete(fixed, rule.Name); rule.Value != nil {
			fixed[rule.Name] = *rule.Value
		}
	}
	seen := make(map[string]bool, len(s.c.Env))
	for _, v := range s.c.Env {
		name, value, whole := strings.Cut(v, "=")
		if !whole {
			return s.refuse(CodeEnvNotAllowed, ".env", "variables with a value", quote(name)+" without", "")
		}
		if seen[name] {
			return s.refuse(CodeEnvNotAllowed, ".env", "each variable once", quote(name)+" twice", "which of the two counts is up to the program")
		}
		seen[name] = true
		if want, ok := fixed[name]; ok {
			if value != want {
				return s.refuse(CodeEnvNotAllowed, ".env", quote(name)+" with the listed value, or the image's", quote(name)+" with another value", "list the variable with this value, or with any")
			}
			continue
		}
		if !s.anyValue(name) && !s.ownVariable(name, value) {
			return s.refuse(CodeEnvNotAllowed, ".env", "variables of the image and listed ones", quote(name), "list the variable with its value, or with any")
		}
	}
	var missing []string
	for name := range fixed {
		if !seen[name] {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return s.refuse(CodeEnvMissing, ".env", quote(slices.Min(missing))+" with the listed value, or the image's", "no such variable", "set it, or list it with any")
	}
	return s.allow()
}

func (s *start) anyValue(name string) bool {
	return slices.ContainsFunc(s.run.Env, func(e EnvRule) bool { return e.Any && e.Name == name })
}

// ownVariable reports whether runtime or kubelet add such a variable by
// themselves.
func (s *start) ownVariable(name, value string) bool {
	switch name {
	case "HOSTNAME":
		return isHostname(value)
	case "PATH":
		return value == runtimePath
	case "TERM":
		return s.c.Terminal && value == "xterm"
	}
	service, ok := serviceVariable(name, value)
	return ok && (service == "KUBERNETES" || s.run.ServiceEnv)
}

func isHostname(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(strings.ToLower(label)) {
			return false
		}
	}
	return true
}

// serviceVariable reads a variable that kubelet adds for a Service: exactly its
// shapes of names and values, so that nothing else can be told by them.
func serviceVariable(name, value string) (service string, ok bool) {
	if service, ok = strings.CutSuffix(name, "_SERVICE_HOST"); ok {
		return service, isServiceName(service) && isAddress(value)
	}
	if before, after, found := lastCut(name, "_SERVICE_PORT"); found && (after == "" || after[0] == '_' && isServiceName(after[1:])) {
		return before, isServiceName(before) && isPort(value)
	}
	before, after, found := lastCut(name, "_PORT")
	if rest, isPortSuffix := strings.CutSuffix(name, "_PORT"); isPortSuffix && found {
		// WEB_PORT, or WEB_PORT_80_TCP_PORT
		if service, port, _, of := ofPort(rest); of {
			return service, value == port
		}
		return before, after == "" && isServiceName(before) && isEndpoint(value, "", "")
	}
	for _, part := range []string{"_PROTO", "_ADDR"} {
		if rest, is := strings.CutSuffix(name, part); is {
			service, _, protocol, of := ofPort(rest)
			return service, of && (part == "_PROTO" && value == protocol || part == "_ADDR" && isAddress(value))
		}
	}
	service, port, protocol, of := ofPort(name)
	return service, of && isEndpoint(value, port, protocol)
}

// ofPort reads WEB_PORT_80_TCP.
func ofPort(name string) (service, port, protocol string, ok bool) {
	for _, p := range []string{"tcp", "udp", "sctp"} {
		rest, is := strings.CutSuffix(name, "_"+strings.ToUpper(p))
		if !is {
			continue
		}
		service, port, ok = lastCut(rest, "_PORT_")
		return service, port, p, ok && isServiceName(service) && isPort(port)
	}
	return "", "", "", false
}

func lastCut(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}

// isServiceName: a DNS label in upper case with _ for -.
func isServiceName(s string) bool {
	return isLabel(strings.ToLower(strings.ReplaceAll(s, "_", "-"))) && s == strings.ToUpper(s) && !strings.Contains(s, "-")
}

func isAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == "" && a.String() == s
}

func isPort(s string) bool {
	v, err := strconv.ParseUint(s, 10, 16)
	return err == nil && v > 0 && strconv.FormatUint(v, 10) == s
}

// isEndpoint reads tcp://10.0.0.1:80; an empty port or protocol stands for any.
func isEndpoint(s, port, protocol string) bool {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || protocol != "" && scheme != protocol || !slices.Contains([]string{"tcp", "udp", "sctp"}, scheme) {
		return false
	}
	a, err := netip.ParseAddrPort(rest)
	return err == nil && a.String() == rest && a.Addr().Zone() == "" && a.Port() != 0 && (port == "" || strconv.Itoa(int(a.Port())) == port)
}
