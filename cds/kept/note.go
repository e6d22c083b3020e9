// SPDX-License-Identifier: Apache-2.0

package kept

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
)

// MaxNote bounds a note, in bytes.
const MaxNote = 64 << 10

// noteSchema begins a kept note: the schema, the size, the SHA-256 of size,
// line end and note, and a line end; then the note.
const noteSchema = "c8s-kept-note/1"

// maxNoteHeader is the longest first line of a kept note.
const maxNoteHeader = len(noteSchema) + 1 + 20 + 1 + 2*sha256.Size + 1

// Note keeps the text with the largest size it was given: a log's checkpoint
// and the size of its tree. What the text says and who signed it is the
// caller's to check. It is safe for concurrent use.
type Note struct {
	path string
	disk filer

	mu   sync.Mutex
	size uint64
	text []byte
}

// OpenNote reads the note at path. One that is not there is empty, of size 0;
// one that is damaged is an error.
func OpenNote(path string) (*Note, error) {
	n := &Note{path: path, disk: disk()}
	var err error
	if n.size, n.text, err = n.load(); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *Note) load() (size uint64, text []byte, err error) {
	raw, err := read(n.path, maxNoteHeader+MaxNote)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, nil
	}
	if err == nil {
		size, text, err = parseNote(raw)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("reading the kept note %s: %w", n.path, err)
	}
	return size, text, nil
}

// Largest returns what is kept; size 0 and no text when nothing is.
func (n *Note) Largest() (size uint64, text []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.size, bytes.Clone(n.text)
}

// Keep replaces what is kept when size is at least as large, and reports
// whether it did: a smaller one is no error, because answers of several
// replicas may overtake each other. It is on the disk when Keep returns, unless
// another process has kept a larger one there.
func (n *Note) Keep(size uint64, text []byte) (bool, error) {
	if len(text) == 0 || len(text) > MaxNote {
		return false, fmt.Errorf("keeping a note: %d bytes, must be 1 to %d", len(text), MaxNote)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if size < n.size {
		return false, nil
	}
	if size == n.size && bytes.Equal(text, n.text) {
		return true, nil
	}
	larger := func() (bool, error) {
		there, _, err := n.load()
		return size >= there, err
	}
	if err := n.disk.replaceIf(n.path, formatNote(size, text), larger); err != nil {
		return false, fmt.Errorf("keeping a note: %w", err)
	}
	n.size, n.text = size, bytes.Clone(text)
	return true, nil
}

// Forget removes what is kept, to begin with another log.
func (n *Note) Forget() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := os.Remove(n.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting a note: %w", err)
	}
	n.size, n.text = 0, nil
	return nil
}

func formatNote(size uint64, text []byte) []byte {
	return append(fmt.Appendf(nil, "%s %d %s\n", noteSchema, size, noteSum(size, text)), text...)
}

func noteSum(size uint64, text []byte) string {
	sum := sha256.Sum256(append(fmt.Appendf(nil, "%d\n", size), text...))
	return hex.EncodeToString(sum[:])
}

var errNoteForm = errors.New("it is damaged, or of another version of this program: remove it only if what it protects from, an older log, can be ruled out")

// parseNote is the strict inverse of formatNote.
func parseNote(raw []byte) (size uint64, text []byte, err error) {
	header, text, ok := bytes.Cut(raw, []byte("\n"))
	fields := strings.Split(string(header), " ")
	if !ok || len(fields) != 3 || fields[0] != noteSchema || len(text) == 0 || len(text) > MaxNote {
		return 0, nil, errNoteForm
	}
	size, err = strconv.ParseUint(fields[1], 10, 64)
	if err != nil || strconv.FormatUint(size, 10) != fields[1] || fields[2] != noteSum(size, text) {
		return 0, nil, errNoteForm
	}
	return size, text, nil
}
