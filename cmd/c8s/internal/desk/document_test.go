// SPDX-License-Identifier: Apache-2.0

package desk_test

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/cmd/c8s/internal/desk"
	"github.com/c8s-dev/c8s/policy"
)

type word struct{ text string }

func words() desk.Kind[word] {
	return desk.Kind[word]{Name: "word", Command: "c8s word", Type: "text/word", Max: 4 << 10, Parse: func(payload []byte) (*word, error) {
		if string(payload) == "bad" {
			return nil, errors.New("a bad word")
		}
		return &word{string(payload)}, nil
	}}
}

func envelope(t *testing.T, payloadType, payload string) string {
	t.Helper()
	e, err := policy.SignPayload(payloadType, []byte(payload), ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return string(e)
}

func TestSignedDocumentsAreNotLookedInto(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, tt := range []struct{ name, text, read, signed string }{
		{"bare", "good", "", "file is a word without signatures; sign it with 'c8s word sign'"},
		{"bare and bad", "bad", "a bad word", "a bad word"},
		{"signed", envelope(t, "text/word", "good"), "", ""},
		{"signed and bad", envelope(t, "text/word", "bad"), "a bad word", ""},
		{"of another type", envelope(t, "text/poem", "good"), `holds "text/poem", not a word`, `holds "text/poem", not a word`},
		{"too large", envelope(t, "text/word", strings.Repeat("x", 4<<10)), "has more than 4096 bytes", "has more than 4096 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			c := &cobra.Command{}
			d, err := words().Read(c, path)
			check(t, err, tt.read)
			if err == nil && (d.Content.text != "good" || d.Signed() != (len(d.KeyIDs()) == 1) || d.KeyIDs() == nil) {
				t.Errorf("read %q, signed: %t, keyids %v", d.Content.text, d.Signed(), d.KeyIDs())
			}
			_, err = words().ReadSigned(c, path)
			check(t, err, tt.signed)
		})
	}
}

func check(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
