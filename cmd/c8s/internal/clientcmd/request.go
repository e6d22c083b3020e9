// SPDX-License-Identifier: Apache-2.0

package clientcmd

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
)

// maxData bounds data that has to be in memory, because curl changes it or it
// may have to be sent twice.
const maxData = 64 << 20

// requestFlags are curl's flags for a request.
type requestFlags struct {
	method      string
	head        bool
	header      []string
	data        []string
	binary      []string
	json        string
	upload      string
	user, agent string
}

func (f *requestFlags) register(c *cobra.Command) {
	s := c.Flags()
	s.StringVarP(&f.method, "request", "X", "", "method; default: GET, with data POST, with -T PUT, with -I HEAD")
	s.BoolVarP(&f.head, "head", "I", false, "ask for and print the header alone")
	s.StringArrayVarP(&f.header, "header", "H", nil, "field of the header, 'Name: value' (repeatable)")
	s.StringArrayVarP(&f.data, "data", "d", nil, "data to POST, or @FILE without its line ends (repeatable, joined by &)")
	s.StringArrayVar(&f.binary, "data-binary", nil, "data to POST, or @FILE, as it is; @- is standard input (repeatable, joined by &)")
	s.StringVar(&f.json, "json", "", "JSON to POST, or @FILE")
	s.StringVarP(&f.upload, "upload-file", "T", "", "file to PUT, streamed; - is standard input")
	s.StringVarP(&f.user, "user", "u", "", "user:password for basic authentication")
	s.StringVarP(&f.agent, "user-agent", "A", "c8s", "User-Agent")
	_ = c.RegisterFlagCompletionFunc("request", cobra.FixedCompletions([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"header", "user", "user-agent"} {
		_ = c.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	_ = c.MarkFlagFilename("upload-file")
	c.MarkFlagsMutuallyExclusive("data", "json", "upload-file", "head")
	c.MarkFlagsMutuallyExclusive("data-binary", "json", "upload-file", "head")
}

// provable reads the URL of a host that can prove itself. A scheme that is not
// given is https.
func provable(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, usage("%w", err)
	case u.Scheme != "https":
		return nil, usage("%s: only https URLs can be proven", u.Redacted())
	case u.Host == "":
		return nil, usage("%s names no host", u.Redacted())
	}
	return u, nil
}

// build makes the request.
func (f *requestFlags) build(c *cobra.Command, address string) (*http.Request, error) {
	u, err := provable(address)
	if err != nil {
		return nil, err
	}
	body, kind, err := f.body(c)
	if err != nil {
		return nil, err
	}
	method := f.method
	if method == "" {
		switch {
		case f.head:
			method = http.MethodHead
		case f.upload != "":
			method = http.MethodPut
		case body != nil:
			method = http.MethodPost
		}
	}
	req, err := http.NewRequestWithContext(c.Context(), method, u.String(), body)
	if err != nil {
		return nil, usage("%w", err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	req.Header.Set("Accept", "*/*")
	req.Header.Set("User-Agent", f.agent)
	if f.user != "" {
		name, password, _ := strings.Cut(f.user, ":")
		req.SetBasicAuth(name, password)
	}
	return req, f.fields(req)
}

// fields sets what -H says: the last of a name wins over the defaults, "Name:"
// takes one away.
func (f *requestFlags) fields(req *http.Request) error {
	given := map[string]bool{}
	for _, line := range f.header {
		name, value, ok := strings.Cut(line, ":")
		name, value = http.CanonicalHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || name == "":
			return usage("-H %q: it is no 'Name: value'", line)
		case name == "Host":
			req.Host = value // must be the URL's: the transport sees to it
		case value == "":
			req.Header[name] = nil
		case given[name]:
			req.Header.Add(name, value)
		default:
			req.Header.Set(name, value)
		}
		given[name] = true
	}
	return nil
}

func (f *requestFlags) body(c *cobra.Command) (io.Reader, string, error) {
	const form = "application/x-www-form-urlencoded"
	switch {
	case f.upload == desk.Stdio:
		return io.NopCloser(c.InOrStdin()), "", nil
	case f.upload != "":
		file, err := os.Open(f.upload)
		if err != nil {
			return nil, "", fmt.Errorf("reading what is to be sent: %w", err)
		}
		return file, "", nil // the transport closes it
	case f.json != "":
		b, err := data(c, f.json)
		return bytes.NewReader(b), "application/json", err
	case len(f.data)+len(f.binary) == 0:
		return nil, "", nil
	}
	var parts [][]byte
	for _, d := range f.data {
		b, err := data(c, d)
		if err != nil {
			return nil, "", err
		}
		if strings.HasPrefix(d, "@") {
			b = withoutLineEnds(b)
		}
		parts = append(parts, b)
	}
	for _, d := range f.binary {
		b, err := data(c, d)
		if err != nil {
			return nil, "", err
		}
		parts = append(parts, b)
	}
	return bytes.NewReader(bytes.Join(parts, []byte{'&'})), form, nil
}

// withoutLineEnds is what curl does to files of -d.
func withoutLineEnds(b []byte) []byte {
	return bytes.ReplaceAll(bytes.ReplaceAll(b, []byte{'\r'}, nil), []byte{'\n'}, nil)
}

// data is what a flag says, or what the file behind its @ holds.
func data(c *cobra.Command, text string) ([]byte, error) {
	name, file := strings.CutPrefix(text, "@")
	if !file {
		return []byte(text), nil
	}
	b, err := desk.ReadInput(c, name, maxData)
	if err == nil && len(b) > maxData {
		err = fmt.Errorf("more than %d bytes: stream it with -T", maxData)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is to be sent: %w", err)
	}
	return b, nil
}
