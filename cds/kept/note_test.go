// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

func mustOpenNote(t *testing.T, path string) *Note {
	t.Helper()
	n, err := OpenNote(path)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNoteNeverGetsSmaller(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "checkpoint")
	for _, tt := range []struct {
		size     uint64
		text     string
		kept     bool
		want     uint64
		wantText string
	}{
		{5, "five", true, 5, "five"},
		{4, "four", false, 5, "five"},
		{5, "five, cosigned", true, 5, "five, cosigned"},
		{5, "five, cosigned", true, 5, "five, cosigned"},
		{0, "none", false, 5, "five, cosigned"},
		{math.MaxUint64, "all\n\n— of them\n", true, math.MaxUint64, "all\n\n— of them\n"},
	} {
		n := mustOpenNote(t, path) // as after a restart
		if kept, err := n.Keep(tt.size, []byte(tt.text)); kept != tt.kept || err != nil {
			t.Errorf("size %d: kept %t, %v", tt.size, kept, err)
		}
		for _, n := range []*Note{n, mustOpenNote(t, path)} {
			if size, text := n.Largest(); size != tt.want || string(text) != tt.wantText {
				t.Errorf("after %q: size %d, %q, want %d, %q", tt.text, size, text, tt.want, tt.wantText)
			}
		}
	}
}

func TestNothingKeptIsSizeZero(t *testing.T) {
	n := mustOpenNote(t, filepath.Join(t.TempDir(), "none"))
	if size, text := n.Largest(); size != 0 || text != nil {
		t.Errorf("size %d, %q", size, text)
	}
}

func TestUselessNotesAreErrors(t *testing.T) {
	n := mustOpenNote(t, filepath.Join(t.TempDir(), "note"))
	for _, text := range [][]byte{nil, {}, make([]byte, MaxNote+1)} {
		if kept, err := n.Keep(1, text); kept || err == nil {
			t.Errorf("%d bytes: kept %t, %v", len(text), kept, err)
		}
	}
	if kept, err := n.Keep(1, make([]byte, MaxNote)); !kept || err != nil {
		t.Errorf("the largest: kept %t, %v", kept, err)
	}
	if size, _ := mustOpenNote(t, n.path).Largest(); size != 1 {
		t.Errorf("size %d after a restart", size)
	}
}

func TestDamagedNoteIsAnError(t *testing.T) {
	good := formatNote(12, []byte("twelve"))
	for name, raw := range map[string][]byte{
		"empty":               {},
		"half":                good[:len(good)/2],
		"one byte less":       good[:len(good)-1],
		"one byte more":       append(bytes.Clone(good), 'x'),
		"other size":          bytes.Replace(good, []byte(" 12 "), []byte(" 13 "), 1),
		"no size":             bytes.Replace(good, []byte(" 12 "), []byte(" 1x "), 1),
		"size with a zero":    bytes.Replace(good, []byte(" 12 "), []byte(" 012 "), 1),
		"another version":     bytes.Replace(good, []byte("note/1"), []byte("note/2"), 1),
		"no text":             formatNote(12, nil),
		"larger than allowed": formatNote(12, make([]byte, MaxNote+1)),
	} {
		path := filepath.Join(t.TempDir(), "note")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenNote(path); err == nil {
			t.Errorf("%s: it was accepted", name)
		}
	}
}

func TestNoteIsKeptByMany(t *testing.T) {
	n := mustOpenNote(t, filepath.Join(t.TempDir(), "note"))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := n.Keep(uint64(i), fmt.Appendf(nil, "of size %d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if size, text := mustOpenNote(t, n.path).Largest(); size != 19 || string(text) != "of size 19" {
		t.Errorf("size %d, %q", size, text)
	}
}

func FuzzNote(f *testing.F) {
	f.Add(formatNote(0, []byte("x")))
	f.Add(formatNote(math.MaxUint64, []byte("origin\n18446744073709551615\nroot=\n\n— name sig\n")))
	f.Add([]byte("c8s-kept-note/1 1 00\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if size, text, err := parseNote(raw); err == nil && !bytes.Equal(formatNote(size, text), raw) {
			t.Errorf("%q parses to size %d and %q", raw, size, text)
		}
	})
}
