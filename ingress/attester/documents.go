// SPDX-License-Identifier: Apache-2.0

package attester

import (
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/c8s-dev/c8s/policy"
)

// kind is what is known of a document of the CDS by its path (docs/cds.md).
type kind struct {
	contentType string
	immutable   bool // the path determines the content
}

const (
	jsonType = "application/json"
	textType = "text/plain; charset=utf-8"
	rawType  = "application/octet-stream"
)

// kindOf knows the paths that are passed on, and no others.
func kindOf(path string) (kind, bool) {
	switch path {
	case "/v1/endorsement", "/v1/manifest", "/v1/manifest/countersignature", "/v1/manifest/pending",
		"/v1/denylist", "/v1/denylist/countersignature", "/v1/beacon", "/v1/recovery":
		return kind{contentType: jsonType}, true
	case "/log/checkpoint", "/log/checkpoint.cosigned":
		return kind{contentType: textType}, true
	}
	for _, k := range []struct {
		prefix string
		valid  func(string) bool
		kind
	}{
		{"/v1/document/", isDigest, kind{jsonType, true}},
		{"/v1/countersignature/", isDigest, kind{jsonType, true}},
		{"/v1/certificate/", isDigest, kind{rawType, true}},
		{"/v1/issuance/", isDigest, kind{jsonType, false}},
		{"/v1/evidence/", func(s string) bool { return isDigest("sha256:" + s) }, kind{jsonType, true}},
		{"/log/tile/", isTile, kind{rawType, true}},
	} {
		if rest, ok := strings.CutPrefix(path, k.prefix); ok && k.valid(rest) {
			return k.kind, true
		}
	}
	return kind{}, false
}

func isDigest(s string) bool { return policy.Digest(s).Valid() }

// isTile accepts the names of tiles (C2SP tlog-tiles) in their one spelling;
// the CDS knows which there are.
func isTile(s string) bool {
	n, entries := strings.CutPrefix(s, "entries/")
	if entries {
		s = "data/" + n // as package tlog calls them
	}
	t, err := tlog.ParseTilePath("tile/8/" + s)
	return err == nil && len(s) <= 64 && t.L < 64 && (t.L < 0) == entries
}
