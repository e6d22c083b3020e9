// SPDX-License-Identifier: Apache-2.0

package operatorkey

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/exit"
)

const (
	scheme      = "pkcs11:"
	maxURI      = 4096
	kindPrivate = "private"
	kindPublic  = "public"

	// The characters that RFC 7512, section 2.3 lets stand for themselves
	// besides letters and digits.
	unescaped      = "-._~:[]@!$'()*+,="
	unescapedPath  = unescaped + "&"
	unescapedQuery = unescaped + "/?|"

	uriExample = "pkcs11:token=operators;object=alice?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/run/pin"
)

// uri names one key pair on one token. Empty attributes were not given: they
// match everything.
type uri struct {
	token, manufacturer, serial, model string
	object                             string // CKA_LABEL
	id                                 []byte // CKA_ID
	kind                               string // "", kindPrivate or kindPublic
	modulePath, pinSource              string
}

// isURI tells the two forms apart. A file of such a name is "./pkcs11:...".
func isURI(ref string) bool {
	return len(ref) >= len(scheme) && strings.EqualFold(ref[:len(scheme)], scheme)
}

// String names the key without saying where its PIN is.
func (u *uri) String() string {
	var b strings.Builder
	b.WriteString(scheme)
	sep := ""
	add := func(name, value string) {
		if value != "" {
			b.WriteString(sep + name + "=" + escape(value))
			sep = ";"
		}
	}
	add("token", u.token)
	add("manufacturer", u.manufacturer)
	add("serial", u.serial)
	add("model", u.model)
	add("object", u.object)
	add("id", string(u.id))
	return b.String()
}

func escape(value string) string {
	var b strings.Builder
	for i := range len(value) {
		if c := value[i]; isAlphanumeric(c) || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// parseURI reads a PKCS#11 URI. What RFC 7512 leaves open is refused: unknown
// attributes, empty ones, and whatever would leave the token, the key or the
// module to chance. No error repeats the query, where a PIN may stand.
func parseURI(ref string) (*uri, error) {
	u, err := readURI(ref)
	if err != nil {
		return nil, exit.Usage(fmt.Errorf("reading the PKCS#11 URI: %w; it looks like %q", err, uriExample))
	}
	return u, nil
}

func readURI(ref string) (*uri, error) {
	if len(ref) > maxURI {
		return nil, fmt.Errorf("it is longer than %d bytes", maxURI)
	}
	path, query, hasQuery := strings.Cut(ref[len(scheme):], "?")
	u := &uri{}
	if err := attributes(path, ";", unescapedPath, u.pathAttribute); err != nil {
		return nil, err
	}
	if hasQuery {
		if err := attributes(query, "&", unescapedQuery, u.queryAttribute); err != nil {
			return nil, err
		}
	}
	switch {
	case u.token == "" && u.serial == "":
		return nil, errors.New("it names no token: give token or serial, so that no PIN goes to another one")
	case u.object == "" && len(u.id) == 0:
		return nil, errors.New("it names no key: give object or id")
	case u.modulePath == "":
		return nil, errors.New("it names no module: give module-path, the shared library of the token's vendor")
	case !filepath.IsAbs(u.modulePath):
		return nil, errors.New("module-path must be absolute: the library is code that is run")
	}
	return u, nil
}

func attributes(text, separator, allowed string, set func(name, value string) error) error {
	seen := map[string]bool{}
	for _, part := range strings.Split(text, separator) {
		name, raw, ok := strings.Cut(part, "=")
		if !ok || !isName(name) {
			return errors.New("it has a part that is not NAME=VALUE")
		}
		if seen[name] {
			return fmt.Errorf("%s is given twice", name)
		}
		seen[name] = true
		value, err := unescape(raw, allowed)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if value == "" {
			return fmt.Errorf("%s is empty", name)
		}
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (u *uri) pathAttribute(name, value string) error {
	if name == "id" {
		u.id = []byte(value)
		return nil
	}
	into, ok := map[string]*string{
		"token": &u.token, "manufacturer": &u.manufacturer, "serial": &u.serial, "model": &u.model, "object": &u.object, "type": &u.kind,
	}[name]
	switch {
	case !ok:
		return fmt.Errorf("the attribute %s is not supported; known are token, manufacturer, serial, model, object, id and type", name)
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return fmt.Errorf("%s is not text in UTF-8", name)
	case name == "type" && value != kindPrivate && value != kindPublic:
		return fmt.Errorf("type must be %s or %s", kindPrivate, kindPublic)
	}
	*into = value
	return nil
}

func (u *uri) queryAttribute(name, value string) error {
	switch name {
	case "module-path":
		u.modulePath = value
	case "pin-source":
		u.pinSource = value
	case "pin-value":
		return errors.New("pin-value would show the PIN to everybody on this machine; give pin-source=FILE, or set " + PINVariable)
	default:
		return fmt.Errorf("the attribute %s is not supported; known are module-path and pin-source", name)
	}
	if !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
		return fmt.Errorf("%s is not text in UTF-8", name)
	}
	return nil
}

func unescape(raw, allowed string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case isAlphanumeric(c) || strings.IndexByte(allowed, c) >= 0:
			b.WriteByte(c)
		case c != '%':
			return "", fmt.Errorf("the byte %q must be written %%%02X", c, c)
		default:
			if i+2 >= len(raw) {
				return "", errors.New("it ends within an escape like %20")
			}
			hi, lo := hexDigit(raw[i+1]), hexDigit(raw[i+2])
			if hi < 0 || lo < 0 {
				return "", errors.New("% must be followed by two hexadecimal digits")
			}
			b.WriteByte(byte(hi<<4 | lo))
			i += 2
		}
	}
	return b.String(), nil
}

func hexDigit(c byte) int { return strings.IndexByte("0123456789abcdef", lower(c)) }

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func isAlphanumeric(c byte) bool {
	return 'a' <= lower(c) && lower(c) <= 'z' || '0' <= c && c <= '9'
}

func isName(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if !isAlphanumeric(s[i]) && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return true
}
