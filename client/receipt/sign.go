// SPDX-License-Identifier: Apache-2.0

package receipt

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"slices"
	"time"

	"github.com/dunglas/httpsfv"
)

// Label is that of the signature in Signature, Signature-Input and
// Accept-Signature.
const Label = "c8s"

const (
	headerAccept    = "Accept-Signature"
	headerInput     = "Signature-Input"
	headerSignature = "Signature"
	maxAccept       = 4 << 10 // bytes of Accept-Signature that are read
)

// asks is what a client asks for: the components that every receipt covers.
const asks = `("@status" "date" "c8s-workload" "c8s-manifest" "c8s-evidence" "@method";req "@authority";req "@path";req "@query";req)`

// Signer signs answers with the ingress's receipt key.
type Signer struct {
	key ed25519.PrivateKey
	id  string
	now func() time.Time
}

// NewSigner returns a signer for an Ed25519 key.
func NewSigner(key ed25519.PrivateKey, now func() time.Time) *Signer {
	return &Signer{key: key, id: KeyID(key.Public().(ed25519.PublicKey)), now: now} //nolint:forcetypeassert // of an Ed25519 key
}

// Sign adds Signature and Signature-Input to the header of an answer, if the
// request, as it came in, asks for what this key can sign, and reports whether
// it did. The C8s-* fields must be set; Date is, where it is missing. Whoever
// does not ask pays for one look at the request's header.
//
// It signs the same components whatever of them is asked for. An answer of
// which one cannot be signed (a path that is not ASCII) is not signed at all.
func (s *Signer) Sign(h http.Header, status int, req *http.Request) bool {
	lines := req.Header[headerAccept]
	if len(lines) == 0 {
		return false
	}
	nonce, ok := asked(lines, s.id)
	if !ok {
		return false
	}
	if _, err := time.Parse(http.TimeFormat, joined(h, "Date")); err != nil {
		h.Set("Date", s.now().UTC().Format(http.TimeFormat))
	}
	r, err := read(h, status, req)
	if err != nil {
		return false
	}
	r.Created, r.KeyID, r.Nonce = s.now().Truncate(time.Second), s.id, nonce
	base, err := r.Base()
	if err != nil {
		return false
	}
	if !foreign(h[headerInput]) || !foreign(h[headerSignature]) {
		h.Del(headerInput)
		h.Del(headerSignature)
	}
	h.Add(headerInput, Label+"="+r.input(r.components()))
	h.Add(headerSignature, Label+"=:"+base64.StdEncoding.EncodeToString(ed25519.Sign(s.key, base))+":")
	return true
}

// foreign reports whether a backend's signatures, if any, can stay beside ours:
// they are readable, and none has our label.
func foreign(lines []string) bool {
	if len(lines) == 0 {
		return true
	}
	d, err := httpsfv.UnmarshalDictionary(lines)
	return err == nil && len(d.Names()) > 0 && !slices.Contains(d.Names(), Label)
}

// Ask sets Accept-Signature, so that an ingress signs its answer. A nonce that
// is used once ties the receipt to this request; it may be nil.
func Ask(h http.Header, nonce []byte) {
	ask := Label + "=" + asks + ";created"
	if len(nonce) > 0 {
		ask += `;nonce="` + base64.RawURLEncoding.EncodeToString(nonce) + `"`
	}
	h.Set(headerAccept, ask+`;tag="`+tag+`"`)
}

// asked reports whether Accept-Signature (RFC 9421 section 5) asks for what the
// key with this id can sign, and with which nonce. What it does not understand,
// or could not do, it does not do.
func asked(lines []string, id string) (nonce string, ok bool) {
	size := 0
	for _, line := range lines {
		size += len(line)
	}
	if size > maxAccept {
		return "", false
	}
	d, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return "", false
	}
	member, _ := d.Get(Label)
	list, ok := member.(httpsfv.InnerList)
	if !ok {
		return "", false
	}
	for _, item := range list.Items {
		if !signable(item) {
			return "", false
		}
	}
	for _, name := range list.Params.Names() {
		value, _ := list.Params.Get(name)
		switch name {
		case "created":
			ok = value == true
		case "nonce":
			nonce, ok = value.(string)
			ok = ok && isPlain(nonce) && len(nonce) <= maxNonce
		case "keyid":
			ok = value == id
		case "alg":
			ok = value == "ed25519"
		case "tag":
			ok = value == tag
		default:
			ok = false
		}
		if !ok {
			return "", false
		}
	}
	return nonce, true
}

// signable: the component is one that a receipt may cover.
func signable(item httpsfv.Item) bool {
	name, ok := item.Value.(string)
	if !ok {
		return false
	}
	ofRequest := false
	for _, p := range item.Params.Names() {
		if v, _ := item.Params.Get(p); p != "req" || v != true {
			return false
		}
		ofRequest = true
	}
	of := func(names ...string) bool { return slices.Contains(names, name) }
	if ofRequest {
		return of("@method", "@authority", "@path", "@query", "content-digest")
	}
	return of("@status", "date", "c8s-workload", "c8s-manifest", "c8s-evidence", "c8s-log", "content-digest")
}
