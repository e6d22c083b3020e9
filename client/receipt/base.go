// SPDX-License-Identifier: Apache-2.0

package receipt

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/c8s-dev/c8s/attest"
)

// tag says what the signature is for (RFC 9421 section 2.3): labels may be
// changed by whoever is in between.
const tag = "c8s"

const maxNonce = 128 // characters

// component is one line of what is signed (RFC 9421 section 2.5).
type component struct {
	name  string
	req   bool // of the request
	value string
}

func (c component) identifier() string {
	if c.req {
		return `"` + c.name + `";req`
	}
	return `"` + c.name + `"`
}

// components are all that a receipt covers, in their order.
func (r *Receipt) components() []component {
	list := []component{
		{name: "@status", value: strconv.Itoa(r.Status)},
		{name: "date", value: r.Date},
		{name: "c8s-workload", value: r.Workload},
		{name: "c8s-manifest", value: strconv.FormatUint(r.Manifest, 10)},
		{name: "c8s-evidence", value: string(r.Evidence)},
	}
	if r.Log > 0 {
		list = append(list, component{name: "c8s-log", value: strconv.FormatInt(r.Log, 10)})
	}
	if r.Digest != "" {
		list = append(list, component{name: "content-digest", value: r.Digest})
	}
	list = append(list,
		component{"@method", true, r.Method}, component{"@authority", true, r.Authority},
		component{"@path", true, r.Path}, component{"@query", true, r.Query},
	)
	if r.RequestDigest != "" {
		list = append(list, component{"content-digest", true, r.RequestDigest})
	}
	return list
}

// input is the value of "@signature-params", and the member of Signature-Input.
func (r *Receipt) input(list []component) string {
	names := make([]string, len(list))
	for i, c := range list {
		names[i] = c.identifier()
	}
	nonce := ""
	if r.Nonce != "" {
		nonce = `;nonce="` + r.Nonce + `"`
	}
	return fmt.Sprintf(`(%s);created=%d;keyid="%s"%s;tag="%s"`, strings.Join(names, " "), r.Created.Unix(), r.KeyID, nonce, tag)
}

// Base returns what is signed (RFC 9421 section 2.5).
func (r *Receipt) Base() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	list := r.components()
	return signatureBase(list, r.input(list)), nil
}

func signatureBase(list []component, input string) []byte {
	var b strings.Builder
	for _, c := range list {
		b.WriteString(c.identifier() + ": " + c.value + "\n")
	}
	b.WriteString(`"@signature-params": ` + input)
	return []byte(b.String())
}

// check refuses values that could be mistaken for others where they are signed.
func (r *Receipt) check() error {
	if err := r.Fields.check(); err != nil {
		return err
	}
	size := 0
	for _, c := range r.components() {
		if size += len(c.value); !isPrintable(c.value) {
			return malformed(c.identifier(), "printable ASCII", c.value)
		}
	}
	_, err := time.Parse(http.TimeFormat, r.Date)
	switch {
	case size > maxBase:
		return malformed("all values", fmt.Sprintf("at most %d bytes", maxBase), strconv.Itoa(size))
	case r.Status < 200 || r.Status > 999:
		return malformed(`"@status"`, "a final status", strconv.Itoa(r.Status))
	case err != nil:
		return malformed(`"date"`, http.TimeFormat, r.Date)
	case r.Method == "" || strings.Contains(r.Method, " "):
		return malformed(`"@method";req`, "a method", r.Method)
	case r.Authority == "" || r.Authority != strings.ToLower(r.Authority) || strings.Contains(r.Authority, " "):
		return malformed(`"@authority";req`, "a host in lower case", r.Authority)
	case !strings.HasPrefix(r.Path, "/") || strings.Contains(r.Path, "?"):
		return malformed(`"@path";req`, "an absolute path", r.Path)
	case !strings.HasPrefix(r.Query, "?"):
		return malformed(`"@query";req`, `"?" first`, r.Query)
	case r.Created.Unix() < 0 || r.Created.Unix() > maxCreated:
		return malformed("created", "a time after 1970", r.Created.String())
	case !isPlain(r.KeyID) || len(r.Nonce) > maxNonce || r.Nonce != "" && !isPlain(r.Nonce):
		return malformed("keyid and nonce", fmt.Sprintf("at most %d printable characters without quotes and backslashes", maxNonce), r.KeyID+", "+r.Nonce)
	}
	return nil
}

const maxCreated = 1<<39 - 1 // year 19391; a structured field's integers go further

func malformed(what, expected, actual string) error {
	return attest.NewFailure(CodeMalformed, what+": "+expected, actual, "")
}

// parseBase reads what was signed: the values of its lines, if the same values
// give the same text.
func parseBase(text string) (*Receipt, error) {
	if len(text) > 2*maxBase {
		return nil, malformed("base", fmt.Sprintf("at most %d bytes", 2*maxBase), strconv.Itoa(len(text)))
	}
	r := &Receipt{}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		identifier, value, _ := strings.Cut(line, ": ")
		if i == len(lines)-1 {
			if identifier != `"@signature-params"` {
				return nil, malformed("base", `"@signature-params" last`, identifier)
			}
			input, err := httpsfv.UnmarshalDictionary([]string{Label + "=" + value})
			if err != nil {
				return nil, malformed(identifier, "an inner list", err.Error())
			}
			if err := r.readInput(input); err != nil {
				return nil, err
			}
			break
		}
		if err := r.set(identifier, value); err != nil {
			return nil, err
		}
	}
	again, err := r.Base()
	if err != nil {
		return nil, err
	}
	if string(again) != text {
		return nil, malformed("base", "the components of a receipt, in their order and spelling", "another text")
	}
	return r, nil
}

// set takes the value of one line.
func (r *Receipt) set(identifier, value string) error {
	for _, text := range []struct {
		identifier string
		into       *string
	}{
		{`"date"`, &r.Date},
		{`"content-digest"`, &r.Digest},
		{`"@method";req`, &r.Method},
		{`"@authority";req`, &r.Authority},
		{`"@path";req`, &r.Path},
		{`"@query";req`, &r.Query},
		{`"content-digest";req`, &r.RequestDigest},
	} {
		if text.identifier == identifier {
			*text.into = value
			return nil
		}
	}
	switch identifier {
	case `"@status"`:
		n, err := strconv.Atoi(value)
		if err != nil {
			return malformed(identifier, "a number", value)
		}
		r.Status = n
		return nil
	case `"c8s-workload"`:
		return r.read(HeaderWorkload, value)
	case `"c8s-manifest"`:
		return r.read(HeaderManifest, value)
	case `"c8s-evidence"`:
		return r.read(HeaderEvidence, value)
	case `"c8s-log"`:
		return r.read(HeaderLog, value)
	}
	return malformed("base", "a component of a receipt", identifier)
}

// readInput takes the parameters of the member. Which components it lists is
// not read: they are always the same, and the text is compared as a whole.
func (r *Receipt) readInput(d *httpsfv.Dictionary) error {
	member, _ := d.Get(Label)
	list, ok := member.(httpsfv.InnerList)
	if !ok {
		return malformed("Signature-Input", "an inner list under "+Label, "none")
	}
	created, _ := list.Params.Get("created")
	keyID, _ := list.Params.Get("keyid")
	nonce, _ := list.Params.Get("nonce")
	seconds, isNumber := created.(int64)
	id, isText := keyID.(string)
	if !isNumber || !isText {
		return malformed("Signature-Input", "created and keyid", strings.Join(list.Params.Names(), ", "))
	}
	r.Created, r.KeyID = time.Unix(seconds, 0).UTC(), id
	r.Nonce, _ = nonce.(string)
	return nil
}

// read takes what a receipt covers from an answer and its request.
func read(h http.Header, status int, req *http.Request) (*Receipt, error) {
	fields, err := FieldsOf(h)
	if err != nil {
		return nil, err
	}
	r := &Receipt{Fields: fields, Status: status, Date: joined(h, "Date"), Digest: joined(h, "Content-Digest"), RequestDigest: joined(req.Header, "Content-Digest")}
	if r.Method = req.Method; r.Method == "" {
		r.Method = http.MethodGet
	}
	r.Authority = authority(req)
	r.Path, r.Query, err = target(req)
	return r, err
}

// joined is a field as RFC 9421 section 2.1 combines its lines.
func joined(h http.Header, name string) string {
	lines := h.Values(name)
	trimmed := make([]string, len(lines))
	for i, line := range lines {
		trimmed[i] = strings.Trim(line, " \t")
	}
	return strings.Join(trimmed, ", ")
}

// authority follows RFC 9421 section 2.2.3: lower case, no default port.
func authority(req *http.Request) string {
	host, scheme := req.Host, "http"
	if req.URL != nil {
		if host == "" {
			host = req.URL.Host
		}
		if req.URL.Scheme != "" {
			scheme = req.URL.Scheme
		}
	}
	if req.TLS != nil {
		scheme = "https"
	}
	host = strings.ToLower(host)
	switch scheme {
	case "https":
		host = strings.TrimSuffix(host, ":443")
	case "http":
		host = strings.TrimSuffix(host, ":80")
	}
	return host
}

// target follows RFC 9421 sections 2.2.6 and 2.2.7, and takes path and query as
// they stood in the request: whoever receives it may spell them otherwise.
func target(req *http.Request) (path, query string, err error) {
	uri := req.RequestURI
	if uri == "" && req.URL != nil {
		uri = req.URL.RequestURI()
	}
	if !strings.HasPrefix(uri, "/") { // absolute-form (RFC 9112 section 3.2.2)
		u, err := url.Parse(uri)
		if err != nil || u.Host == "" {
			return "", "", malformed("request", "a path, or a URL with a host", uri)
		}
		uri = u.RequestURI()
	}
	path, query, _ = strings.Cut(uri, "?")
	return path, "?" + query, nil
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && s == strings.Trim(s, " ")
}

// isPlain: a structured field's string of it is it, in quotes.
func isPlain(s string) bool { return isPrintable(s) && !strings.ContainsAny(s, `"\`) }
