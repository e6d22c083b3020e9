// SPDX-License-Identifier: Apache-2.0

package receipt

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/c8s-dev/c8s/attest"
	"github.com/c8s-dev/c8s/policy"
)

// The fields of every forwarded answer, in the form of http.Header.
const (
	HeaderWorkload = "C8s-Workload" // the manifest's entry of the pod that answered
	HeaderManifest = "C8s-Manifest" // version that it was judged by
	HeaderEvidence = "C8s-Evidence" // digest of the evidence behind the pod's certificate
	HeaderLog      = "C8s-Log"      // index of the pod's certificate in the log, once known
)

const headerPrefix = "C8s-"

// Fields say who gave an answer.
type Fields struct {
	Workload string
	Manifest uint64
	Evidence policy.Digest
	Log      int64 // 0: not known; the log's first entry is never a certificate
}

// Set writes the fields in place of all that a backend sent under such names.
func (f Fields) Set(h http.Header) {
	Remove(h)
	values := []string{f.Workload, strconv.FormatUint(f.Manifest, 10), string(f.Evidence), ""} // one piece of memory
	h[HeaderWorkload], h[HeaderManifest], h[HeaderEvidence] = values[:1:1], values[1:2:2], values[2:3:3]
	if f.Log > 0 {
		values[3] = strconv.FormatInt(f.Log, 10)
		h[HeaderLog] = values[3:]
	}
}

// Remove takes away every field whose name begins with "C8s-": only an ingress
// may say anything there.
func Remove(h http.Header) {
	for name := range h {
		if len(name) >= len(headerPrefix) && strings.EqualFold(name[:len(headerPrefix)], headerPrefix) {
			delete(h, name)
		}
	}
}

// FieldsOf reads the fields of an answer, each of which has one spelling.
func FieldsOf(h http.Header) (Fields, error) {
	var f Fields
	for _, name := range []string{HeaderWorkload, HeaderManifest, HeaderEvidence, HeaderLog} {
		lines := h.Values(name)
		if name == HeaderLog && len(lines) == 0 {
			continue
		}
		if len(lines) != 1 {
			return Fields{}, attest.NewFailure(CodeFields, name+" once", strconv.Itoa(len(lines))+" times", "only answers that an ingress forwarded have it")
		}
		if err := f.read(name, lines[0]); err != nil {
			return Fields{}, err
		}
	}
	return f, nil
}

func (f *Fields) read(name, value string) error {
	good, want := false, ""
	switch name {
	case HeaderWorkload:
		f.Workload, good, want = value, isLabel(value), "a DNS label"
	case HeaderManifest:
		n, err := strconv.ParseUint(value, 10, 64)
		f.Manifest, good, want = n, err == nil && n > 0 && strconv.FormatUint(n, 10) == value, "a version, from 1"
	case HeaderEvidence:
		f.Evidence, want = policy.Digest(value), `"sha256:" and 64 hexadecimal digits`
		good = f.Evidence.Valid()
	case HeaderLog:
		n, err := strconv.ParseInt(value, 10, 64)
		f.Log, good, want = n, err == nil && n > 0 && strconv.FormatInt(n, 10) == value, "an index, from 1"
	}
	if !good {
		return attest.NewFailure(CodeFields, name+": "+want, value, "")
	}
	return nil
}

// check refuses what read would.
func (f Fields) check() error {
	var again Fields
	for _, field := range []struct{ name, value string }{
		{HeaderWorkload, f.Workload},
		{HeaderManifest, strconv.FormatUint(f.Manifest, 10)},
		{HeaderEvidence, string(f.Evidence)},
		{HeaderLog, strconv.FormatInt(f.Log, 10)},
	} {
		if field.name == HeaderLog && f.Log == 0 {
			continue
		}
		if err := again.read(field.name, field.value); err != nil {
			return err
		}
	}
	return nil
}

// isLabel follows RFC 1123, as names of workloads do.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
