// SPDX-License-Identifier: Apache-2.0

package route

// Schema names the format of route files.
const Schema = "c8s.dev/ingress-routes/v1"

// MaxFile is the size of the largest accepted file, in bytes.
const MaxFile = 4 << 20

type file struct {
	Schema string `json:"schema"`
	Config
}

// Parse reads a file of routes and refuses what it does not fully understand:
// unknown, doubled and differently spelled keys too. The error is an
// *InvalidError with every problem found.
func Parse(text []byte) (*Table, error) {
	r := &report{}
	var f file
	readStrict(text, &f, r)
	if err := r.err(); err != nil {
		return nil, err // judging what could not be read would mislead
	}
	if f.Schema != Schema {
		r.add("$.schema", quote(Schema), quote(f.Schema))
		return nil, r.err()
	}
	return New(f.Config)
}
