// SPDX-License-Identifier: Apache-2.0

// Package secret keeps secrets out of texts: a type that embeds Hidden prints,
// logs and encodes as Redacted, or not at all.
package secret

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what is printed instead.
const Redacted = "[secret]"

// errEncode is returned rather than a redacted text, which would be kept in
// place of the secret and found out when it is needed.
var errEncode = errors.New("this value is secret and is not encoded")

// Hidden is embedded in structs with secrets. It does not reach through a
// struct that holds such a struct by value in an unexported field: package fmt
// reads those without asking.
type Hidden struct{}

// Format implements fmt.Formatter for every verb.
func (Hidden) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, Redacted) }

// String implements fmt.Stringer.
func (Hidden) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (Hidden) GoString() string { return Redacted }

// LogValue implements slog.LogValuer.
func (Hidden) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON refuses.
func (Hidden) MarshalJSON() ([]byte, error) { return nil, errEncode }

// MarshalText refuses.
func (Hidden) MarshalText() ([]byte, error) { return nil, errEncode }
