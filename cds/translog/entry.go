// SPDX-License-Identifier: Apache-2.0

package translog

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/c8s-dev/c8s/policy"
)

// Type says what an entry records.
type Type string

// The types of entries. "release" is reserved for releases of keys.
const (
	TypeBundle       Type = "bundle"       // the CDS's public keys; the first entry of every log
	TypeManifest     Type = "manifest"     // a manifest came into force
	TypePending      Type = "pending"      // a manifest was accepted that comes into force later
	TypeDenylist     Type = "denylist"     // a deny list came into force
	TypeIntermediate Type = "intermediate" // a replica received an intermediate CA certificate
	TypeIssuance     Type = "issuance"     // a certificate was issued
	TypeJoin         Type = "join"         // the seed was given to a replica
	TypeRecovery     Type = "recovery"     // recovery shares of the seed were made
)

// Entry is one record of the log. It has hashes and no names: whoever has the
// certificate, the evidence or the manifest can find it in the log; others learn
// how many there were, and when. Each type uses some of the fields, the others
// must be empty.
type Entry struct {
	Type        Type
	Time        time.Time     // when it was logged; fractions of a second are cut off
	Digest      policy.Digest // of the bundle, manifest or deny list, or of the recovery shares
	Version     uint64        // of the manifest or deny list, from 1
	Previous    policy.Digest // Digest of the one before; "" where there is none
	Certificate policy.Digest // of its DER encoding
	Issuer      policy.Digest // of the issuer's certificate
	Evidence    policy.Digest // that the certificate or the seed was given for
	Manifest    policy.Digest // in force at the issuance
	Role        policy.Role   // that the certificate was issued for
	NotBefore   time.Time     // when a pending manifest comes into force
	NotAfter    time.Time     // end of the certificate's life
	Threshold   int           // recovery shares that are needed, from 1
	Shares      int           // recovery shares made, Threshold to 255
}

const (
	maxShares = 255 // Shamir's scheme over GF(2^8) has no more
	maxRole   = 32  // bytes
	// entryTime is RFC 3339 in UTC with whole seconds, from year 0000 to 9999.
	entryTime = "2006-01-02T15:04:05Z"
)

// fields returns the members of the type's JSON object after "type" and "time",
// in their order.
func (t Type) fields() []string {
	switch t {
	case TypeBundle:
		return []string{"digest", "previous"}
	case TypeManifest, TypeDenylist:
		return []string{"digest", "version", "previous"}
	case TypePending:
		return []string{"digest", "version", "previous", "notBefore"}
	case TypeIntermediate:
		return []string{"certificate", "issuer", "evidence", "notAfter"}
	case TypeIssuance:
		return []string{"certificate", "issuer", "evidence", "manifest", "role", "notAfter"}
	case TypeJoin:
		return []string{"evidence"}
	case TypeRecovery:
		return []string{"digest", "threshold", "shares"}
	default:
		return nil
	}
}

// digest returns the digest of that name.
func (e *Entry) digest(name string) *policy.Digest {
	switch name {
	case "digest":
		return &e.Digest
	case "previous":
		return &e.Previous
	case "certificate":
		return &e.Certificate
	case "issuer":
		return &e.Issuer
	case "evidence":
		return &e.Evidence
	case "manifest":
		return &e.Manifest
	default:
		return nil
	}
}

// Marshal returns the entry's bytes. No other bytes are an entry with these
// values.
func (e Entry) Marshal() ([]byte, error) {
	if err := e.validate(); err != nil {
		return nil, fmt.Errorf("encoding a log entry: %w", err)
	}
	return e.encode(), nil
}

// encode writes an entry that is valid. No value needs an escape in JSON.
func (e *Entry) encode() []byte {
	b := make([]byte, 0, 512)
	text := func(name, value string) {
		b = append(append(append(b, `,"`...), name...), `":"`...)
		b = append(append(b, value...), '"')
	}
	number := func(name string, n uint64) {
		b = append(append(append(b, `,"`...), name...), `":`...)
		b = strconv.AppendUint(b, n, 10)
	}
	instant := func(name string, t time.Time) {
		b = append(append(append(b, `,"`...), name...), `":"`...)
		b = append(t.UTC().AppendFormat(b, entryTime), '"')
	}
	text("type", string(e.Type))
	b[0] = '{'
	instant("time", e.Time)
	for _, name := range e.Type.fields() {
		switch name {
		case "version":
			number(name, e.Version)
		case "threshold":
			number(name, uint64(e.Threshold))
		case "shares":
			number(name, uint64(e.Shares))
		case "role":
			text(name, string(e.Role))
		case "notBefore":
			instant(name, e.NotBefore)
		case "notAfter":
			instant(name, e.NotAfter)
		default:
			text(name, string(*e.digest(name)))
		}
	}
	return append(b, '}')
}

// validate checks the fields of the entry's type, and that the others are
// empty: what is in them would be lost.
func (e *Entry) validate() error {
	fields := e.Type.fields()
	if fields == nil {
		return fmt.Errorf("the type %q, known are bundle, manifest, pending, denylist, intermediate, issuance, join, recovery", clip(string(e.Type)))
	}
	if err := validTime("time", e.Time); err != nil {
		return err
	}
	used := Entry{Type: e.Type, Time: e.Time}
	for _, name := range fields {
		if err := e.validateField(name, &used); err != nil {
			return fmt.Errorf("%s: %w", e.Type, err)
		}
	}
	if used != *e {
		return fmt.Errorf("%s: other fields than %s are set", e.Type, strings.Join(fields, ", "))
	}
	return nil
}

// validateField checks one field and copies it to used.
func (e *Entry) validateField(name string, used *Entry) error {
	switch name {
	case "version":
		used.Version = e.Version
		if e.Version == 0 {
			return fmt.Errorf("version is 0, the first is 1")
		}
	case "threshold":
		used.Threshold = e.Threshold
		if e.Threshold < 1 || e.Threshold > e.Shares {
			return fmt.Errorf("threshold is %d, must be 1 to the number of shares (%d)", e.Threshold, e.Shares)
		}
	case "shares":
		used.Shares = e.Shares
		if e.Shares > maxShares {
			return fmt.Errorf("shares is %d, at most %d", e.Shares, maxShares)
		}
	case "role":
		used.Role = e.Role
		if !validRole(string(e.Role)) {
			return fmt.Errorf("role is %q, must be 1 to %d lower-case letters and hyphens", clip(string(e.Role)), maxRole)
		}
	case "notBefore":
		used.NotBefore = e.NotBefore
		return validTime(name, e.NotBefore)
	case "notAfter":
		used.NotAfter = e.NotAfter
		return validTime(name, e.NotAfter)
	default:
		d := *e.digest(name)
		*used.digest(name) = d
		if !d.Valid() && !(d == "" && name == "previous") {
			return fmt.Errorf("%s is %q, must be sha256: and 64 lower-case hexadecimal digits", name, clip(string(d)))
		}
	}
	return nil
}

func validTime(name string, t time.Time) error {
	if year := t.UTC().Year(); year < 1970 || year > 9999 {
		return fmt.Errorf("%s is in the year %d, must be 1970 to 9999", name, year)
	}
	return nil
}

func validRole(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxRole
}

// clip bounds what an error says about a value from outside.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

// ParseEntry reads an entry. It accepts exactly the bytes that
// [Entry.Marshal] makes of the result: no other order, spelling or white space,
// and no field it does not know.
func ParseEntry(b []byte) (*Entry, error) {
	e := new(Entry)
	p := entryParser{rest: b}
	p.literal("{")
	e.Type = Type(p.text("type"))
	p.literal(",")
	e.Time = p.time("time")
	for _, name := range e.Type.fields() {
		p.literal(",")
		switch name {
		case "version":
			e.Version = p.number(name, 64)
		case "threshold":
			e.Threshold = int(p.number(name, 8))
		case "shares":
			e.Shares = int(p.number(name, 8))
		case "role":
			e.Role = policy.Role(p.text(name))
		case "notBefore":
			e.NotBefore = p.time(name)
		case "notAfter":
			e.NotAfter = p.time(name)
		default:
			*e.digest(name) = policy.Digest(p.text(name))
		}
	}
	p.literal("}")
	if p.err == nil && len(p.rest) > 0 {
		p.fail("nothing after the object")
	}
	if p.err == nil {
		p.err = e.validate()
	}
	if p.err == nil && !bytes.Equal(e.encode(), b) { // 007, 2024-01-01T00:00:60Z
		p.err = fmt.Errorf("not in the one accepted spelling, which is %s", e.encode())
	}
	if p.err != nil {
		return nil, fmt.Errorf("parsing a log entry: %w", p.err)
	}
	return e, nil
}

// entryParser reads an object from its beginning. After the first error it does
// nothing.
type entryParser struct {
	rest []byte
	err  error
}

func (p *entryParser) fail(expected string) {
	if p.err == nil {
		p.err = fmt.Errorf("expected %s, found %q", expected, clip(string(p.rest)))
	}
}

func (p *entryParser) literal(s string) {
	if p.err != nil || !bytes.HasPrefix(p.rest, []byte(s)) {
		p.fail(s)
		return
	}
	p.rest = p.rest[len(s):]
}

func (p *entryParser) name(s string) {
	p.literal(`"`)
	p.literal(s)
	p.literal(`":`)
}

// text reads a string up to the next quote: strings of entries have no escapes,
// which validation of the value sees to.
func (p *entryParser) text(name string) string {
	p.name(name)
	p.literal(`"`)
	end := bytes.IndexByte(p.rest, '"')
	if p.err != nil || end < 0 {
		p.fail("the string " + name)
		return ""
	}
	s := string(p.rest[:end])
	p.rest = p.rest[end+1:]
	return s
}

func (p *entryParser) time(name string) time.Time {
	s := p.text(name)
	t, err := time.Parse(entryTime, s)
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("%s is %q, must be like %s", name, clip(s), entryTime)
	}
	return t
}

func (p *entryParser) number(name string, bits int) uint64 {
	p.name(name)
	end := 0
	for end < len(p.rest) && p.rest[end] >= '0' && p.rest[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(string(p.rest[:end]), 10, bits)
	if p.err != nil || err != nil {
		p.fail(fmt.Sprintf("%s, a number of %d bits", name, bits))
		return 0
	}
	p.rest = p.rest[end:]
	return n
}
