// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// FuzzAddImport: an edit keeps every byte that was there, adds exactly one
// import, last, and is not repeated.
func FuzzAddImport(f *testing.F) {
	for _, seed := range []string{
		"", mainConfig, "version = 2\r\n", "imports = []", "imports=['a',\n#]\n\"b\" , # c\n]\nversion=3", "\"imports\" = [ 'it''s' ]",
		"imports = [\"\"\"x\"\"\"]", "[plugins]\nimports = 3\n", "imports = [\"a\\\"]\"]", "imports = ['a' # no comma\n]", "x = {imports = ['y']}\n", "a.imports = []\nimports = ['/etc/containerd/conf.d/*.toml']",
	} {
		f.Add([]byte(seed))
	}
	const file, pattern = "/etc/containerd/config.toml", "/etc/containerd/conf.d/*.toml"
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := addImport(data, file, pattern)
		if err != nil {
			return
		}
		before, err := parseConfig(data)
		if err != nil {
			t.Fatalf("edited what cannot be read: %v", err)
		}
		after, err := parseConfig(out)
		if err != nil {
			t.Fatalf("the result cannot be read: %v", err)
		}
		if !bytes.Equal(out, data) {
			if !slices.Equal(after.Imports, append(before.Imports, pattern)) {
				t.Fatalf("imports %q became %q", before.Imports, after.Imports)
			}
			if !subsequence(data, out) {
				t.Fatalf("bytes of the operator are gone:\n%s\n---\n%s", data, out)
			}
		}
		again, err := addImport(out, file, pattern)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("a second edit changed it again: %v", err)
		}
	})
}

// subsequence says whether out is in with one piece put in.
func subsequence(in, out []byte) bool {
	head := 0
	for head < len(in) && in[head] == out[head] {
		head++
	}
	return bytes.HasSuffix(out, in[head:])
}

// FuzzConflist: what was chained and is taken out again is what it was, and
// nothing but the plugins changes.
func FuzzConflist(f *testing.F) {
	for _, seed := range []string{
		bridgeConf, `{"cniVersion":"1.1.0","name":"x","plugins":[{"type":"c8s-cni"},{"type":"ptp","x":1e400}]}`, `{}`, `[]`, `{"plugins":null}`,
		`{"cniVersion":"0.3.0","name":"a","type":"ptp","plugins":[]}`, `{"name":"\ud800","name":"b"}`,
	} {
		f.Add("a.conflist", []byte(seed))
		f.Add("a.conf", []byte(seed))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		c, err := parseConflist(name, data)
		if err != nil {
			return
		}
		text, err := c.chain("/run/c8s/gate.sock")
		if err != nil {
			return
		}
		chained, err := parseConflist("x.conflist", text)
		if err != nil || !chained.chained("/run/c8s/gate.sock") {
			t.Fatalf("not chained: %v\n%s", err, text)
		}
		plain, err := c.unchain()
		if err != nil {
			t.Fatal(err)
		}
		back, err := chained.unchain()
		if err != nil || !bytes.Equal(back, plain) {
			t.Fatalf("taken out again it is (%v)\n%s\nexpected\n%s", err, back, plain)
		}
		if !json.Valid(text) || strings.Count(string(text), `"type": "c8s-cni"`) < 1 {
			t.Fatalf("chained it is\n%s", text)
		}
	})
}

// FuzzRecord: no record makes reading it fail other than by an error.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"files":[{"path":"/a","kind":"own","before":null,"after":{"digest":"sha256:00","mode":420}}],"folders":["/b"]}`))
	f.Add([]byte(`{"version":1,"files":[null]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := oneFile{data}
		r, err := readRecord(d)
		if err != nil {
			return
		}
		for _, e := range r.Files {
			if e.ours(nil) != (e.After == nil || e.From != nil && e.From.State == nil) {
				t.Errorf("%s: no file is told from a file wrongly", e.Path)
			}
			if _, err := restore(d, e.Before); e.Before != nil && err == nil && e.Before.Digest != (&content{data: data}).digest() {
				t.Errorf("%s: another file was given back", e.Path)
			}
		}
	})
}

// oneFile is a disk on which every file is the same.
type oneFile struct{ data []byte }

func (o oneFile) read(string) (*content, error)   { return own(o.data, modeFile), nil }
func (oneFile) list(string) ([]string, error)     { return nil, nil }
func (oneFile) write(string, *content) error      { return errFault }
func (oneFile) remove(string) error               { return errFault }
func (oneFile) tidy(string) error                 { return errFault }
func (oneFile) missing(string) ([]string, error)  { return nil, nil }
func (oneFile) mkdir(string) error                { return errFault }
func (oneFile) rmdir(string) error                { return errFault }
func (oneFile) lock() (release func(), err error) { return func() {}, nil }
