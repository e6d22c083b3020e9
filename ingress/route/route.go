// SPDX-License-Identifier: Apache-2.0

// Package route says which backends a request leads to, and keeps this
// invariant: the answer depends on the routes alone, never on the order in
// which somebody listed objects, and what it names is a hint. Whether a host
// may lead to whoever answers there is for the manifest to say; a table full of
// lies can lead requests to other pods that the manifest allows for the host,
// and nothing else.
//
// It is pure: who fills it (a file, Kubernetes) is not known here. Tables are
// immutable and swapped whole.
package route

import (
	"strconv"
	"time"
)

// Config is what a Table is made of. New owns it.
type Config struct {
	Hosts  []Host  `json:"hosts,omitempty"` // limits; a host needs none
	Routes []Route `json:"routes"`
	TCP    []TCP   `json:"tcp,omitempty"`
}

// Host is what holds for all requests of a host.
type Host struct {
	Name   string `json:"name"` // as in Route.Hosts: "*.example" is another host than those below it
	Limits Limits `json:"limits"`
}

// Limits of one host. Zero: the server's own holds.
type Limits struct {
	Connections       int   `json:"connections,omitempty"`       // client connections that sent requests for the host
	RequestsPerSecond int   `json:"requestsPerSecond,omitempty"` // sustained; a second's worth may come at once
	BodyBytes         int64 `json:"bodyBytes,omitempty"`         // of a request
	HeaderBytes       int   `json:"headerBytes,omitempty"`       // of a request; counts below the server's limit
}

// Route leads requests for some hosts to backends: a Kubernetes HTTPRoute,
// GRPCRoute or Ingress, or an entry of a file.
type Route struct {
	Source string    `json:"name"`  // the object, for people: "HTTPRoute shop/cart"
	Since  time.Time `json:"-"`     // among routes that match equally well the older one wins, then the smaller Source
	Hosts  []string  `json:"hosts"` // "bank.example", or "*.bank.example" for exactly one label
	Rules  []Rule    `json:"rules"` //
}

// Rule says what happens to requests that match. Without backends it has a
// redirect.
type Rule struct {
	Matches  []Match   `json:"matches,omitempty"` // one must match; none: every request
	Backends []Backend `json:"backends,omitempty"`
	Redirect *Redirect `json:"redirect,omitempty"`
	Rewrite  *Rewrite  `json:"rewrite,omitempty"`
	Request  *Headers  `json:"requestHeaders,omitempty"`
	Response *Headers  `json:"responseHeaders,omitempty"`
	Timeouts Timeouts  `json:"timeouts,omitzero"`

	weights uint64
}

// Match holds if all of its parts do.
type Match struct {
	Path    *Path  `json:"path,omitempty"`
	Method  string `json:"method,omitempty"` // upper case
	Headers []Pair `json:"headers,omitempty"`
	Query   []Pair `json:"query,omitempty"`
	GRPC    *GRPC  `json:"grpc,omitempty"` // instead of Path and Method
}

// PathKind says how a path is compared.
type PathKind string

// The kinds of paths.
const (
	Exact  PathKind = "exact"
	Prefix PathKind = "prefix" // by elements: "/a" has "/a", "/a/" and "/a/b", not "/ab"
)

// Path is compared with the request's path as it is after percent-decoding.
type Path struct {
	Kind  PathKind `json:"type"`
	Value string   `json:"value"` // begins with '/'
}

// GRPC matches calls of gRPC. One of its parts may be empty.
type GRPC struct {
	Service string `json:"service,omitempty"` // "package.Service"
	Method  string `json:"method,omitempty"`
}

// Pair is a header or a query parameter and the value that it must have or gets.
type Pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Protocol is what a backend speaks.
type Protocol string

// The protocols of backends.
const (
	HTTP Protocol = "http" // HTTP/1.1, WebSocket included
	H2C  Protocol = "h2c"  // HTTP/2 without TLS, with prior knowledge: gRPC
)

// Backend is a Service, one of several that share a rule's requests.
type Backend struct {
	Service  string   `json:"service"`            // namespace/name
	Port     Port     `json:"port"`               // of the Service
	Protocol Protocol `json:"protocol,omitempty"` // default HTTP
	Weight   uint32   `json:"weight"`             // 0: no requests
	Health   *Health  `json:"health,omitempty"`
	Request  *Headers `json:"requestHeaders,omitempty"`
	Response *Headers `json:"responseHeaders,omitempty"`
	// Refuse says why the backend cannot be used, for people. Its share of
	// requests is refused, as the Gateway API asks, and not spread over others.
	Refuse string `json:"-"`
}

// Health asks each endpoint of a backend by HTTP whether it is well.
type Health struct {
	Path     string        `json:"path"`
	Interval time.Duration `json:"interval,omitempty"` // default 10 s
}

// Port is a Service's port, by number or by name. Exactly one is set.
type Port struct {
	Number uint16
	Name   string
}

// String is the number, or the name.
func (p Port) String() string {
	if p.Name != "" {
		return p.Name
	}
	return strconv.Itoa(int(p.Number))
}

// Redirect answers without a backend.
type Redirect struct {
	Scheme string      `json:"scheme,omitempty"` // http or https; empty: the request's
	Host   string      `json:"host,omitempty"`   // empty: the request's
	Port   uint16      `json:"port,omitempty"`   // 0: the scheme's own
	Path   *PathChange `json:"path,omitempty"`
	Status int         `json:"status,omitempty"` // 301, 302 (default), 303, 307 or 308
}

// Rewrite changes what the backend is asked for.
type Rewrite struct {
	Host string      `json:"host,omitempty"` // empty: as the client said
	Path *PathChange `json:"path,omitempty"`
}

// PathChange replaces the whole path, or the prefix that matched. Exactly one is set.
type PathChange struct {
	Full   *string `json:"full,omitempty"`
	Prefix *string `json:"prefix,omitempty"`
}

// Headers changes headers: Remove first, then Set, then Add.
type Headers struct {
	Set    []Pair   `json:"set,omitempty"`
	Add    []Pair   `json:"add,omitempty"`
	Remove []string `json:"remove,omitempty"`
}

// Timeouts of a request. Zero: none.
type Timeouts struct {
	Request time.Duration `json:"request,omitempty"` // from its first byte to the answer's last
	Backend time.Duration `json:"backend,omitempty"` // of one attempt, until its headers have come
}

// TCP leads CONNECT requests (RFC 9110 section 9.3.6) to a backend that speaks
// anything. Protocol, Health and header changes of its backends are not used.
type TCP struct {
	Source   string    `json:"name"`
	Since    time.Time `json:"-"`
	Host     string    `json:"host"` // exact, or wildcard
	Port     uint16    `json:"port"` // that clients ask for
	Backends []Backend `json:"backends"`

	weights uint64
}
