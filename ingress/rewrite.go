// SPDX-License-Identifier: Apache-2.0

package ingress

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/c8s-dev/c8s/ingress/route"
)

// redirect answers with another address for the request.
func redirect(x *exchange, d *route.Redirect) {
	u := url.URL{Scheme: "https", Host: x.in.Host, Path: x.in.URL.Path, RawPath: x.in.URL.RawPath, RawQuery: x.in.URL.RawQuery}
	if d.Scheme != "" {
		u.Scheme = d.Scheme
	}
	if d.Host != "" {
		u.Host = d.Host
	}
	if d.Host != "" || d.Scheme != "" || d.Port != 0 {
		host, _, _ := splitHost(u.Host)
		if u.Host = host; d.Port != 0 && !(d.Port == 443 && u.Scheme == "https") && !(d.Port == 80 && u.Scheme == "http") {
			u.Host = host + ":" + strconv.Itoa(int(d.Port))
		}
	}
	changePath(&u, d.Path, &x.found)
	applyHeaders(x.w.Header(), x.found.Rule.Response)
	x.w.Header().Set("Location", u.String())
	x.w.WriteHeader(d.Status)
}

// changePath replaces the path, or the prefix that matched. Percent-encoding of
// what stays is kept.
func changePath(u *url.URL, c *route.PathChange, f *route.Found) {
	switch {
	case c == nil:
	case c.Full != nil:
		u.Path, u.RawPath = *c.Full, ""
	case c.Prefix != nil && f.Prefix:
		escaped := u.EscapedPath()
		rest := u.Path[min(len(f.Pattern), len(u.Path)):]
		u.Path = join(*c.Prefix, rest)
		u.RawPath = ""
		if raw, ok := afterElements(escaped, strings.Count(f.Pattern, "/")); ok {
			u.RawPath = join((&url.URL{Path: *c.Prefix}).EscapedPath(), raw)
		}
	}
}

func join(prefix, rest string) string {
	p := strings.TrimSuffix(prefix, "/") + rest
	if !strings.HasPrefix(p, "/") {
		return "/" + p
	}
	return p
}

// afterElements is what follows the first n elements of an encoded path.
func afterElements(escaped string, n int) (string, bool) {
	for i := range len(escaped) {
		if escaped[i] != '/' {
			continue
		}
		if n == 0 {
			return escaped[i:], true
		}
		n--
	}
	return "", n == 0
}

func applyHeaders(h http.Header, c *route.Headers) {
	if c == nil {
		return
	}
	for _, name := range c.Remove {
		h.Del(name)
	}
	for _, p := range c.Set {
		h.Set(p.Name, p.Value)
	}
	for _, p := range c.Add {
		h.Add(p.Name, p.Value)
	}
}

// introduce tells the backend who the client is. What clients say about it is
// removed, in every spelling that some backend takes for it, except for what
// trusted ones say.
func (s *Server) introduce(in *http.Request, out http.Header, from netip.Addr) {
	trusted := slices.ContainsFunc(s.cfg.TrustedFor, func(p netip.Prefix) bool { return p.Contains(from) })
	var list, forwarded []string
	if trusted {
		list, forwarded = in.Header["X-Forwarded-For"], in.Header["Forwarded"]
	}
	onlyOthers(out)
	addr := from.String()
	node := addr
	if from.Is6() {
		node = `"[` + node + `]"`
	}
	element := "for=" + node + ";host=" + strconv.Quote(in.Host) + ";proto=https"
	values := []string{extended(list, addr), "https", in.Host, extended(forwarded, element)} // one piece of memory
	for i, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded"} {
		out[name] = values[i : i+1 : i+1]
	}
}

// extended is a list in a header with one element more.
func extended(list []string, with string) string {
	if len(list) == 0 {
		return with
	}
	return strings.Join(list, ", ") + ", " + with
}

// onlyOthers removes what clients say about who they are.
func onlyOthers(h http.Header) {
	for name := range h {
		if saysWho(name) {
			delete(h, name)
		}
	}
}

// saysWho: CGI and what descends from it cannot tell '_' from '-'.
func saysWho(name string) bool {
	switch name[0] { // nearly all end here
	case 'C', 'c', 'F', 'f', 'P', 'p', 'T', 't', 'X', 'x':
	default:
		return false
	}
	n := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch n {
	case "proxy": // CGI makes HTTP_PROXY of it, which libraries obey (CVE-2016-5385)
		return true
	case "forwarded", "x-forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "client-ip", "cf-connecting-ip":
		return true
	}
	return strings.HasPrefix(n, "x-forwarded-") || strings.HasPrefix(n, "c8s-")
}
