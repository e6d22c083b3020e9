// SPDX-License-Identifier: Apache-2.0

package manifestcmd

import (
	"regexp"
	"slices"
	"strings"

	"github.com/c8s-dev/c8s/policy"
)

// environment is what is known here of the variables that a container's
// arguments may refer to.
type environment struct {
	known   map[string]string
	unknown map[string]bool // set by the cluster
	open    bool            // there may be others
}

// expand replaces $(NAME) as the kubelet does, and names the variables whose
// values only the cluster knows.
func (e environment) expand(s string) (text string, unknown []string) {
	text, names := expand(s, e.known)
	for _, name := range names {
		if e.unknown[name] || e.open || strings.Contains(name, "_SERVICE_") || strings.Contains(name, "_PORT") {
			unknown = append(unknown, name)
		}
	}
	return text, unknown
}

// expand replaces what is known, leaves the rest as it is and names it. $$ is
// one $.
func expand(s string, known map[string]string) (text string, rest []string) {
	var b strings.Builder
	for len(s) > 0 {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			break
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		end := strings.IndexByte(s, ')')
		switch {
		case s[0] == '$':
			b.WriteByte('$')
			s = s[1:]
		case s[0] == '(' && end > 0:
			name := s[1:end]
			if value, ok := known[name]; ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
				rest = append(rest, name)
			}
			s = s[end+1:]
		default:
			b.WriteByte('$')
		}
	}
	return b.String(), rest
}

// literals are the variables whose values the pod states.
func literals(env []kubeEnv) map[string]string {
	known := map[string]string{}
	for _, e := range env {
		if e.ValueFrom.IsZero() {
			known[e.Name] = e.Value
		}
	}
	return known
}

// secretName guesses which values should not be public.
func secretName(name string) bool {
	return regexp.MustCompile(`(?i)(passw|secret|token|credential|api_?key|private)`).MatchString(name)
}

// env lists variables with the values that the pod states; what it takes from
// the cluster's objects may have any.
func (v *deriver) env(r *policy.Run, c placedContainer) environment {
	e := environment{known: map[string]string{}, unknown: map[string]bool{}, open: len(c.EnvFrom) > 0}
	for _, variable := range c.Env {
		rule := policy.EnvRule{Name: variable.Name, Any: true}
		text, unknown := e.expand(variable.Value)
		switch {
		case !variable.ValueFrom.IsZero():
			v.report(levelNote, c.at, "the variable %.60q comes from an object of the cluster: it may have any value", variable.Name)
		case len(unknown) > 0:
			v.report(levelNote, c.at, "the variable %.60q uses %.100s, which only the cluster knows: it may have any value", variable.Name, strings.Join(unknown, ", "))
		case secretName(variable.Name) && text != "":
			v.report(levelWarning, c.at, "the variable %.60q looks like a secret, and manifests are public: it may have any value; list the value if it is none", variable.Name)
		default:
			rule = policy.EnvRule{Name: variable.Name, Value: &text}
		}
		delete(e.known, rule.Name)
		if e.unknown[rule.Name] = rule.Any; !rule.Any {
			e.known[rule.Name] = text
		}
		// The last one of a name counts.
		r.Env = append(slices.DeleteFunc(r.Env, func(o policy.EnvRule) bool { return o.Name == rule.Name }), rule)
	}
	if len(c.EnvFrom) > 0 {
		v.report(levelWarning, c.at, "envFrom sets variables of names that are not known here: list each under run.env, or the container is refused")
	}
	return e
}
