// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

const (
	maxSigners = 64
	maxPath    = 4096
)

// validateSigners returns the names that images may list.
func (m *Manifest) validateSigners(r *report) map[string]bool {
	const at = "$.signers"
	names, ids := map[string]bool{}, map[Digest]bool{}
	if len(m.Signers) > maxSigners {
		r.add(CodeListTooLong, at, fmt.Sprintf("at most %d keys", maxSigners), fmt.Sprint(len(m.Signers)), "")
		return names
	}
	for i, s := range m.Signers {
		here := elementPath(at, i)
		checkUnique(s.Name, isPrintable, "a name of 1 to 63 printable ASCII characters", here+".name", names, r)
		id, err := s.ID()
		switch {
		case err != nil:
			r.add(CodeSignerKeyInvalid, here+".publicKey", "an Ed25519 or ECDSA P-256 public key", err.Error(), "print one with 'cosign public-key' or 'openssl pkey -pubout'")
		case ids[id]:
			r.add(CodeValueDuplicate, here+".publicKey", "each key once", "a key that is already listed", "remove one of the two")
		}
		ids[id] = true
	}
	return names
}

func (m *Manifest) validateSandboxes(r *report) {
	const at = "$.sandboxes"
	for i := range m.Sandboxes {
		here := elementPath(at, i)
		if s := &m.Sandboxes[i]; s.Signers != nil || s.Repository != "" || s.Run != nil {
			r.add(CodeImageRuleInvalid, here, "name and digest only", "signers, repository or run", "a pod's sandbox runs as its image says")
		}
	}
	validateImages(m.Sandboxes, at, nil, r)
}

func validateImages(images []Image, at string, signers map[string]bool, r *report) {
	seen := map[string]bool{}
	for i := range images {
		image, here := &images[i], elementPath(at, i)
		if !isPrintableUpTo(image.Name, 1024) {
			r.add(CodeNameInvalid, here+".name", "the image's name in printable ASCII", quote(image.Name), "")
		}
		image.validate(here, signers, r)
		rule := canonical(image.canonical())
		if seen[rule] {
			key := ".digest"
			if image.Digest == "" {
				key = ".signers"
			}
			r.add(CodeValueDuplicate, here+key, "each rule once", quote(image.source()), "remove one of the two, or give them different runs")
		}
		seen[rule] = true
	}
}

func (i *Image) validate(at string, signers map[string]bool, r *report) {
	switch {
	case i.Digest != "" && i.Signers != nil:
		r.add(CodeImageRuleInvalid, at, "a digest or signers", "both", "decide for one, or write two rules")
	case i.Signers == nil:
		checkDigest(i.Digest, at+".digest", r)
	}
	each(i.Signers, at+".signers", r, func(name, at string) {
		if !signers[name] {
			r.add(CodeSignerUnknown, at, "the name of a signer of this manifest", quote(name), "add the key to signers")
		}
	})
	if i.Repository != "" && i.Signers == nil {
		r.add(CodeImageRuleInvalid, at+".repository", "signers beside it", "a digest", "a digest needs no repository")
	}
	if i.Repository != "" && !isRepository(i.Repository) {
		r.add(CodeNameInvalid, at+".repository", `a repository like "registry.example/team/app", without tag and digest`, quote(i.Repository), "")
	}
	if i.Run != nil {
		i.Run.validate(at+".run", r)
	}
}

// isRepository wants the spelling that signatures have.
func isRepository(s string) bool {
	if !isPrintableUpTo(s, 512) || strings.ContainsAny(s, " @?#\\") || path.Clean(s) != s || strings.HasPrefix(s, "/") {
		return false
	}
	host, rest, ok := strings.Cut(s, "/")
	return ok && host != "" && !strings.Contains(rest, ":") && strings.ToLower(rest) == rest
}

func (run *Run) validate(at string, r *report) {
	if run.Args != nil {
		checkArgs(run.Args, at+".args", r)
	}
	names := map[string]bool{}
	for i := range run.Env {
		run.Env[i].validate(elementPath(at+".env", i), names, r)
	}
	if run.Cwd != "" {
		checkPath(run.Cwd, at+".cwd", r)
	}
	if _, _, ok := parseUser(run.User); run.User != "" && !ok {
		r.add(CodeUserInvalid, at+".user", `"uid" or "uid:gid", decimal`, quote(run.User), "user names are the image's own; write the numbers")
	}
	each(run.Groups, at+".groups", r, func(uint32, string) {})
	destinations := map[string]bool{}
	for i := range run.Mounts {
		run.Mounts[i].validate(elementPath(at+".mounts", i), destinations, r)
	}
	each(run.Devices, at+".devices", r, func(v, at string) { checkPath(v, at, r) })
	each(run.Capabilities, at+".capabilities", r, func(v, at string) {
		if !slices.Contains(defaultCapabilities(), v) && !slices.Contains(otherCapabilities(), v) {
			r.add(CodeCapabilityUnknown, at, `a capability of Linux like "NET_ADMIN"`, quote(v), "without CAP_; for all of them there is privileged")
		}
	})
	words := func(list []string, key string, code Code, words []string) {
		each(list, at+key, r, func(v, at string) { checkWord(v, at, code, r, words...) })
	}
	words(run.HostNamespaces, ".hostNamespaces", CodeNamespaceUnknown, HostNamespaces())
	words(run.Sockets, ".sockets", CodeSocketUnknown, SocketKinds())
	words(run.Rlimits, ".rlimits", CodeRlimitUnknown, rlimitNames())
	each(run.Sysctls, at+".sysctls", r, func(v, at string) {
		if !isPrintableUpTo(v, 256) || strings.ContainsAny(v, " =/") {
			r.add(CodeNameInvalid, at, `a name like "net.core.somaxconn"`, quote(v), "")
		}
	})
}

func (e *EnvRule) validate(at string, seen map[string]bool, r *report) {
	checkUnique(e.Name, isEnvName, "the name of an environment variable: printable ASCII without '='", at+".name", seen, r)
	if (e.Value != nil) == e.Any {
		r.add(CodeEnvRuleInvalid, at, `exactly one of value and "any": true`, "both or none", `"value": "" is the empty value`)
	}
	if e.Value != nil {
		checkText(*e.Value, at+".value", r)
	}
}

func isEnvName(s string) bool { return isPrintableUpTo(s, 256) && !strings.ContainsAny(s, " =") }

func (m *MountRule) validate(at string, seen map[string]bool, r *report) {
	checkPath(m.Destination, at+".destination", r)
	if m.Destination == "/" {
		r.add(CodePathInvalid, at+".destination", "a path below the root", quote("/"), "the root is the image")
	}
	if seen[m.Destination] {
		r.add(CodeValueDuplicate, at+".destination", "each destination once", quote(m.Destination), "remove one of the two")
	}
	seen[m.Destination] = true
	if !slices.Contains(MountKinds(), m.Source) && !isPath(m.Source) {
		r.add(CodeMountSourceUnknown, at+".source", quotedChoice(MountKinds())+", or an absolute path of the node", quote(m.Source), "")
	}
}

// checkArgs: an argv, or "any" alone. An argument may be "any" among others.
func checkArgs(args []string, at string, r *report) {
	needed(len(args), at, "a program with its arguments", fmt.Sprintf("write [%q] to accept every command", Any), r)
	for i, arg := range args {
		checkText(arg, elementPath(at, i), r)
	}
	if len(args) > 0 && args[0] == "" {
		r.add(CodeTextInvalid, at+"[0]", "a program", "an empty text", "")
	}
}

// checkText refuses what no argument can hold, and two characters that JSON
// writers escape or not, so that Workload.Digest has one encoding.
func checkText(s, at string, r *report) {
	if strings.ContainsAny(s, "\x00\u2028\u2029") {
		r.add(CodeTextInvalid, at, "text without NUL, U+2028 and U+2029", "one of them", "")
	}
}

func checkPath(p, at string, r *report) {
	if !isPath(p) {
		r.add(CodePathInvalid, at, "an absolute path without //, . and ..", quote(p), "")
	}
}

func isPath(p string) bool {
	return strings.HasPrefix(p, "/") && len(p) <= maxPath && path.Clean(p) == p && !strings.ContainsAny(p, "\x00\u2028\u2029")
}

// parseUser reads "uid" or "uid:gid"; gid is negative where none is given.
func parseUser(s string) (uid uint32, gid int64, ok bool) {
	user, group, both := strings.Cut(s, ":")
	uid, ok = parseID(user)
	if !both {
		return uid, -1, ok
	}
	g, good := parseID(group)
	return uid, int64(g), ok && good
}

func parseID(s string) (uint32, bool) {
	v, err := strconv.ParseUint(s, 10, 32)
	return uint32(v), err == nil && strconv.FormatUint(v, 10) == s
}

// Validate returns every problem of the run by itself.
func (run *Run) Validate() error {
	r := &report{}
	run.validate("$", r)
	return r.err("checking the run")
}

// Validate returns every problem with the command.
func (e *Exec) Validate() error {
	r := &report{}
	checkArgs(e.Args, "$.args", r)
	return r.err("checking the command")
}
