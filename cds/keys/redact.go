// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"fmt"
	"log/slog"

	"github.com/c8s-dev/c8s/cds/internal/secret"
)

// An array cannot embed secret.Hidden, so Seed and Key repeat its methods.

// Format implements fmt.Formatter.
func (Seed) Format(w fmt.State, verb rune) { secret.Hidden{}.Format(w, verb) }

// String implements fmt.Stringer.
func (Seed) String() string { return secret.Redacted }

// GoString implements fmt.GoStringer.
func (Seed) GoString() string { return secret.Redacted }

// LogValue implements slog.LogValuer.
func (Seed) LogValue() slog.Value { return secret.Hidden{}.LogValue() }

// MarshalJSON refuses.
func (Seed) MarshalJSON() ([]byte, error) { return secret.Hidden{}.MarshalJSON() }

// MarshalText refuses.
func (Seed) MarshalText() ([]byte, error) { return secret.Hidden{}.MarshalText() }

// Format implements fmt.Formatter.
func (Key) Format(w fmt.State, verb rune) { secret.Hidden{}.Format(w, verb) }

// String implements fmt.Stringer.
func (Key) String() string { return secret.Redacted }

// GoString implements fmt.GoStringer.
func (Key) GoString() string { return secret.Redacted }

// LogValue implements slog.LogValuer.
func (Key) LogValue() slog.Value { return secret.Hidden{}.LogValue() }

// MarshalJSON refuses.
func (Key) MarshalJSON() ([]byte, error) { return secret.Hidden{}.MarshalJSON() }

// MarshalText refuses.
func (Key) MarshalText() ([]byte, error) { return secret.Hidden{}.MarshalText() }
