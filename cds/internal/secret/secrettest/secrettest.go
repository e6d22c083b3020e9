// SPDX-License-Identifier: Apache-2.0

// Package secrettest finds secrets in what a program prints, logs and encodes.
package secrettest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// Check prints, logs and encodes the value, alone and inside other values, and
// fails the test where the canary, or 8 bytes of it, is seen in any spelling.
func Check(t *testing.T, value any, canaries ...[]byte) {
	t.Helper()
	for _, outer := range []any{value, []any{value}, map[string]any{"v": value}, struct{ V any }{value}} {
		for _, text := range texts(outer) {
			for _, canary := range canaries {
				if spelling := find(text, canary); spelling != "" {
					t.Errorf("%T shows a secret (as %s): %.200s", value, spelling, text)
				}
			}
		}
	}
}

func texts(v any) []string {
	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%T"} {
		out = append(out, fmt.Sprintf(verb, v))
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "v", v)
	out = append(out, log.String())
	encoded, err := json.Marshal(v)
	out = append(out, string(encoded), fmt.Sprint(err))
	encoded, err = xml.Marshal(v)
	return append(out, string(encoded), fmt.Sprint(err))
}

const window = 8

func find(text string, canary []byte) string {
	for i := 0; i+window <= len(canary); i++ {
		part := canary[i : i+window]
		for name, spelling := range map[string]string{
			"raw bytes":        string(part),
			"hexadecimal":      hex.EncodeToString(part),
			"spaced decimals":  strings.Trim(fmt.Sprint(part), "[]"),
			"comma'd decimals": strings.ReplaceAll(strings.Trim(fmt.Sprint(part), "[]"), " ", ","),
			"Go syntax":        strings.Trim(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte"), "{}"),
			"base64":           base64.RawStdEncoding.EncodeToString(part)[:10],
			"URL base64":       base64.RawURLEncoding.EncodeToString(part)[:10],
		} {
			if strings.Contains(text, spelling) || strings.Contains(strings.ToLower(text), spelling) {
				return name
			}
		}
	}
	return ""
}
