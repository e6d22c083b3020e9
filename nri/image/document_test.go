// SPDX-License-Identifier: Apache-2.0

package image

import (
	"reflect"
	"strings"
	"testing"

	"github.com/c8s-dev/c8s/policy"
)

const someDigest = "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestChainIDsAreThoseOfTheSpecification: the second value was computed with
// sha256sum from the first two lines of the definition.
func TestChainIDsAreThoseOfTheSpecification(t *testing.T) {
	one := policy.Digest("sha256:" + strings.Repeat("1", 64))
	two := policy.Digest("sha256:" + strings.Repeat("2", 64))
	for _, tc := range []struct {
		layers []policy.Digest
		want   string
	}{
		{[]policy.Digest{one}, string(one)},
		{[]policy.Digest{one, two}, "sha256:9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5"},
		{nil, ""},
		{[]policy.Digest{"sha512:1"}, ""},
		{make([]policy.Digest, maxLayers+1), ""},
	} {
		if got, err := chainID(tc.layers); got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("chainID(%.200q) = %q, %v, want %q", tc.layers, got, err, tc.want)
		}
	}
}

func TestConfigsMeanWhatTheSpecificationSays(t *testing.T) {
	rootfs := `"rootfs":{"type":"layers","diff_ids":["` + someDigest + `"]}`
	for name, tc := range map[string]struct {
		text string
		want *policy.ImageConfig // nil refuses
	}{
		"all of it": {
			`{"config":{"User":"1:2","Env":["A=b"],"Entrypoint":["/e"],"Cmd":["c"],"WorkingDir":"/w","Volumes":{"/v":{},"/a":{}},"Labels":{"x":"1","X":"2","ü":"3"}},"container_config":{"User":"9"},` + rootfs + `}`,
			&policy.ImageConfig{User: "1:2", Env: []string{"A=b"}, Entrypoint: []string{"/e"}, Cmd: []string{"c"}, Cwd: "/w", Volumes: []string{"/a", "/v"}},
		},
		"nothing of it":        {`{` + rootfs + `}`, &policy.ImageConfig{}},
		"nulls":                {`{"config":null,` + rootfs + `}`, &policy.ImageConfig{}},
		"null members":         {`{"config":{"Cmd":null,"Volumes":null},` + rootfs + `}`, &policy.ImageConfig{}},
		"twice":                {`{"config":{"Cmd":["a"],"Cmd":["b"]},` + rootfs + `}`, nil},
		"in two spellings":     {`{"config":{"Cmd":["a"],"cmd":["b"]},` + rootfs + `}`, nil},
		"in another spelling":  {`{"config":{"CMD":["a"]},` + rootfs + `}`, nil},
		"with a long s":        {`{"config":{"U\u017fer":"0"},` + rootfs + `}`, nil},
		"config twice":         {`{"config":{},"config":{},` + rootfs + `}`, nil},
		"another type":         {`{"config":{"Cmd":"a"},` + rootfs + `}`, nil},
		"no layers":            {`{"config":{}}`, nil},
		"other kind of layers": {`{"rootfs":{"type":"x","diff_ids":["` + someDigest + `"]}}`, nil},
		"something after it":   {`{` + rootfs + `}{}`, nil},
		"a brace after it":     {`{` + rootfs + `}}`, nil},
		"an array":             {`[]`, nil},
		"nothing":              {``, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseConfig([]byte(tc.text))
			if tc.want == nil {
				if err == nil {
					t.Errorf("accepted as %+v", got)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got.ImageConfig, *tc.want) || got.Chain != someDigest {
				t.Errorf("parseConfig = %+v, %v, want %+v", got, err, *tc.want)
			}
		})
	}
}

func TestDocumentsAreWhatTheyAreCalled(t *testing.T) {
	config := `{"mediaType":"` + ociConfig + `","digest":"` + someDigest + `"}`
	manifest := `{"mediaType":"` + ociManifest + `","digest":"` + someDigest + `"}`
	for name, tc := range map[string]struct {
		mediaType, text string
		ok              bool
	}{
		"manifest":                  {ociManifest, `{"config":` + config + `,"layers":[]}`, true},
		"Docker manifest":           {dockerManifest, `{"mediaType":"` + dockerManifest + `","config":` + config + `}`, true},
		"index":                     {ociIndex, `{"manifests":[` + manifest + `]}`, true},
		"empty index":               {dockerList, `{}`, true},
		"manifest called index":     {ociIndex, `{"config":` + config + `}`, false},
		"index called manifest":     {ociManifest, `{"manifests":[` + manifest + `]}`, false},
		"both":                      {ociManifest, `{"config":` + config + `,"manifests":[` + manifest + `]}`, false},
		"calls itself another":      {ociManifest, `{"mediaType":"` + ociIndex + `","config":` + config + `}`, false},
		"schema 1":                  {"application/vnd.docker.distribution.manifest.v1+json", `{"fsLayers":[]}`, false},
		"artifact":                  {ociManifest, `{"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + someDigest + `"}}`, false},
		"no config":                 {ociManifest, `{"layers":[]}`, false},
		"config by another hash":    {ociManifest, `{"config":{"mediaType":"` + ociConfig + `","digest":"sha512:00"}}`, false},
		"manifest without a digest": {ociIndex, `{"manifests":[{"mediaType":"` + ociManifest + `"}]}`, false},
		"too many manifests":        {ociIndex, `{"manifests":[` + strings.Repeat(manifest+",", maxManifests) + manifest + `]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := parseDocument([]byte(tc.text), tc.mediaType); (err == nil) != tc.ok {
				t.Errorf("parseDocument = %+v, %v", got, err)
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"config":{"User":"1","Env":["A=b"],"Volumes":{"/v":{}}},"rootfs":{"type":"layers","diff_ids":["` + someDigest + `"]}}`))
	f.Add([]byte(`{"rootfs":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseConfig(b); err == nil && !policy.Digest(c.Chain).Valid() {
			t.Errorf("accepted without layers: %+v", c)
		}
	})
}

func FuzzDocument(f *testing.F) {
	f.Add([]byte(`{"config":{"mediaType":"`+ociConfig+`","digest":"`+someDigest+`"}}`), false)
	f.Add([]byte(`{"manifests":[{"mediaType":"`+ociManifest+`","digest":"`+someDigest+`"}]}`), true)
	f.Fuzz(func(t *testing.T, b []byte, index bool) {
		mediaType := ociManifest
		if index {
			mediaType = ociIndex
		}
		d, err := parseDocument(b, mediaType)
		if err != nil {
			return
		}
		if index != (d.config.digest == "") || !index && len(d.manifests) > 0 {
			t.Errorf("%s gave %+v", mediaType, d)
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"Version":"v1","Metadata":{"ImageRef":"` + someDigest + `","SandboxID":"s","Config":{"stdin":true,"tty":true}}}`))
	f.Add([]byte(`{"Version":"v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRecord(b); err == nil && r.ImageID != "" && !r.ImageID.Valid() {
			t.Errorf("accepted %+v", r)
		}
	})
}
