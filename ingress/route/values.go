// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

func element(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func within(n, limit int, path string, r *report) {
	if n > limit {
		r.add(path, fmt.Sprintf("at most %d elements", limit), strconv.Itoa(n))
	}
}

func once(v, path string, seen map[string]bool, r *report) {
	if seen[v] {
		r.add(path, "each value once", quote(v)+" again")
	}
	seen[v] = true
}

func span(d, low, high time.Duration, path string, r *report) {
	if d < low || d > high {
		r.add(path, fmt.Sprintf("%s to %s", low, high), d.String())
	}
}

func checkText(s, path, want string, r *report) {
	if s == "" || len(s) > 512 || !httpguts.ValidHeaderFieldValue(s) {
		r.add(path, want, quote(s))
	}
}

func checkHost(name, path string, wild bool, r *report) {
	rest := name
	if wild {
		rest = strings.TrimPrefix(name, "*.")
	}
	if !isHost(rest) {
		r.add(path, `a DNS name in lower case without a final dot, "shop.example"`+wildcards(wild), quote(name))
	}
}

func wildcards(wild bool) string {
	if wild {
		return `, or "*.shop.example" for exactly one label`
	}
	return ""
}

// checkPath wants what a decoded path can be. Dot segments never match: the
// server refuses requests with them.
func checkPath(p, path string, r *report) {
	if !strings.HasPrefix(p, "/") || len(p) > maxText || !httpguts.ValidHeaderFieldValue(p) || HasDots(p) || strings.ContainsAny(p, "?#") {
		r.add(path, "a path that begins with '/', without dot segments, '?' and '#'", quote(p))
	}
}

// HasDots reports whether a path has an element "." or "..", or one that some
// servers read as such. Whoever resolves them sees another path than the routes.
func HasDots(p string) bool {
	if !strings.Contains(p, "/.") && !strings.Contains(p, `\.`) {
		return false
	}
	for s := range strings.FieldsFuncSeq(p, func(c rune) bool { return c == '/' || c == '\\' }) {
		s, _, _ = strings.Cut(s, ";") // path parameters, as Java has them
		if s == "." || s == ".." {
			return true
		}
	}
	return false
}

func checkPairs(list []Pair, path string, header bool, r *report) {
	within(len(list), maxPairs, path, r)
	seen := map[string]bool{}
	for i, p := range list {
		at := element(path, i)
		name := p.Name
		if header {
			name = strings.ToLower(name)
			if !isToken(name) {
				r.add(at+".name", "a header's name", quote(p.Name))
			}
		} else if name == "" || len(name) > maxText {
			r.add(at+".name", "a parameter's name", quote(name))
		}
		once(name, at+".name", seen, r)
		if len(p.Value) > maxText || header && !httpguts.ValidHeaderFieldValue(p.Value) {
			r.add(at+".value", fmt.Sprintf("a value of at most %d bytes without control characters", maxText), quote(p.Value))
		}
	}
}

// checkChange refuses changes of what only the server itself may say: framing,
// who the client is, and who answered; and of what only the two ends may: in
// whose name a request is made, and who may read the answer. Whoever writes
// routes could otherwise have a client's requests land in his own account, or a
// page of his read a browser's answers.
func checkChange(name, path string, r *report) {
	switch n := strings.ToLower(name); {
	case strings.HasPrefix(n, "c8s-"), strings.HasPrefix(n, "x-forwarded-"), strings.HasPrefix(n, "access-control-"):
	case n == "authorization", n == "cookie", n == "set-cookie", n == "origin":
	case n == "host", n == "connection", n == "keep-alive", n == "te", n == "trailer", n == "transfer-encoding", n == "upgrade",
		n == "content-length", n == "expect", n == "forwarded", n == "x-real-ip", n == "signature", n == "signature-input", strings.HasPrefix(n, "proxy-"):
	default:
		return
	}
	r.add(path, "headers that routes may change", quote(name))
}

func isToken(s string) bool { return len(s) <= 256 && httpguts.ValidHeaderFieldName(s) }

// isHost accepts lower-case DNS names of one label and more.
func isHost(s string) bool {
	if len(s) > 253 {
		return false
	}
	last := ""
	for l := range strings.SplitSeq(s, ".") {
		if !isLabel(l) {
			return false
		}
		last = l
	}
	return strings.Trim(last, "0123456789") != "" // else it reads as an address
}

// isLabel follows RFC 1123.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
