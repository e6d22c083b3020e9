// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	maxEntries = 1 << 26 // that this program reads into memory: about 2 GB of hashes
)

// transparencyLog is the whole log up to a checkpoint (docs/log.md).
type transparencyLog struct {
	checkpoint []byte // as signed
	entries    []*entry
	hashes     []tlog.Hash // of the whole tree, in the order of tlog.StoredHashIndex
}

// entry is one record. Each type uses some of the members.
type entry struct {
	Type, Time, Digest, Previous, Certificate, Issuer, Evidence, Manifest, Role, NotBefore, NotAfter string
	Version, Threshold, Shares                                                                       uint64

	record []byte
	index  int64
	at     time.Time
}

// readLog reads all of it: that there is no newer manifest or deny list than
// those served cannot be seen from less. Entries need no proofs then: all of
// them together give the root that was signed.
func (a *audit) readLog() (string, error) {
	// First, so that it cannot be of a larger log.
	if _, err := a.documents.optional("log/checkpoint.cosigned"); err != nil {
		return "", err
	}
	signed, err := a.documents.get("log/checkpoint")
	if err != nil {
		return "", err
	}
	size, root, err := a.openCheckpoint(signed)
	if err != nil {
		return "", err
	}
	a.log = &transparencyLog{checkpoint: signed}
	for int64(len(a.log.entries)) < size {
		if err := a.readEntries(size); err != nil {
			return "", err
		}
	}
	actual, err := a.log.root(size)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d entries, root %s", size, root), cmp.Or(same("root of the entries", root, actual), a.checkTiles(size))
}

// openCheckpoint verifies the log's signature and returns size and root.
func (a *audit) openCheckpoint(signed []byte) (int64, tlog.Hash, error) {
	verifier, err := note.NewVerifier(a.bundle.Log)
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	n, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	return parseCheckpoint(n.Text, a.bundle.TrustDomain+"/c8s/log")
}

func parseCheckpoint(text, origin string) (int64, tlog.Hash, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return 0, tlog.Hash{}, fmt.Errorf("the checkpoint has %d lines, want 3", len(lines)-1)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	root, err2 := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err := cmp.Or(err, err2, same("origin", origin, lines[0]), same("size", strconv.FormatInt(size, 10), lines[1]),
		must(size > 0 && size <= maxEntries, "size", fmt.Sprint("1 to ", maxEntries), size), same("length of the root", tlog.HashSize, len(root))); err != nil {
		return 0, tlog.Hash{}, err
	}
	return size, tlog.Hash(root), nil
}

// readEntries reads the next entry bundle.
func (a *audit) readEntries(size int64) error {
	n := int64(len(a.log.entries))
	width := int(min(tileWidth, size-n))
	path := tilePath(tlog.Tile{H: tileHeight, L: -1, N: n / tileWidth, W: width})
	data, err := a.readTile(path)
	if err != nil {
		return err
	}
	for range width {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return fmt.Errorf("%s ends too early", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		if err := a.log.append(data[2:end]); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		data = data[end:]
	}
	return nil
}

// readTile reads a tile or entry bundle. Where a mirror has a full one only,
// the beginning of that is what is wanted.
func (a *audit) readTile(path string) ([]byte, error) {
	data, err := a.documents.get("log/" + path)
	if full, _, partial := strings.Cut(path, ".p/"); partial && errors.Is(err, fs.ErrNotExist) {
		return a.documents.get("log/" + full)
	}
	return data, err
}

// tilePath is C2SP tlog-tiles' spelling of tlog's.
func tilePath(t tlog.Tile) string {
	path := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", tileHeight))
	return "tile/" + strings.Replace(path, "data/", "entries/", 1)
}

// append adds an entry to the tree.
func (l *transparencyLog) append(record []byte) error {
	e, err := parseEntry(record)
	if err != nil {
		return fmt.Errorf("entry %d: %w", len(l.entries), err)
	}
	e.record, e.index = record, int64(len(l.entries))
	hashes, err := tlog.StoredHashesForRecordHash(e.index, tlog.RecordHash(record), l)
	if err != nil {
		return err
	}
	l.entries, l.hashes = append(l.entries, e), append(l.hashes, hashes...)
	return nil
}

// ReadHashes makes the log a tlog.HashReader.
func (l *transparencyLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(l.hashes)) {
			return nil, fmt.Errorf("the log has no hash %d", index)
		}
		out[i] = l.hashes[index]
	}
	return out, nil
}

// root returns that of the first entries.
func (l *transparencyLog) root(size int64) (tlog.Hash, error) { return tlog.TreeHash(size, l) }

// checkTiles compares the hash tiles, which are what others prove inclusion
// with, to what follows from the entries.
func (a *audit) checkTiles(size int64) error {
	for _, t := range tlog.NewTiles(tileHeight, 0, size) {
		want, err := tlog.ReadTileData(t, a.log)
		if err != nil {
			return err
		}
		got, err := a.readTile(tilePath(t))
		if err := cmp.Or(err, must(len(got) >= len(want) && bytes.Equal(got[:min(len(want), len(got))], want), tilePath(t), "the hashes of the entries", "others")); err != nil {
			return err
		}
	}
	return nil
}

// members are those of each type after "type" and "time", in their order.
func members(kind string) ([]string, bool) {
	m, ok := map[string][]string{
		"bundle":       {"digest", "previous"},
		"manifest":     {"digest", "version", "previous"},
		"pending":      {"digest", "version", "previous", "notBefore"},
		"denylist":     {"digest", "version", "previous"},
		"intermediate": {"certificate", "issuer", "evidence", "notAfter"},
		"issuance":     {"certificate", "issuer", "evidence", "manifest", "role", "notAfter"},
		"join":         {"evidence"},
		"recovery":     {"digest", "threshold", "shares"},
	}[kind]
	return m, ok
}

// parseEntry accepts the one spelling of an entry. Of a type it does not know
// it could not say what it means for the certificate.
func parseEntry(record []byte) (*entry, error) {
	var raw map[string]json.RawMessage
	e := &entry{}
	if err := cmp.Or(json.Unmarshal(record, &raw), json.Unmarshal(record, e)); err != nil {
		return nil, err
	}
	names, known := members(e.Type)
	again := []byte("{")
	for i, name := range append([]string{"type", "time"}, names...) {
		if i > 0 {
			again = append(again, ',')
		}
		again = append(fmt.Appendf(again, "%q:", name), raw[name]...)
	}
	var err error
	e.at, err = instant(e.Time)
	return e, cmp.Or(err, must(known, "type", "a known one", e.Type),
		must(bytes.Equal(append(again, '}'), record) && !bytes.ContainsRune(record, '\\'), "entry", "its one spelling", fmt.Sprintf("%.100q", record)))
}

func (l *transparencyLog) lastBefore(kind string, index int64) *entry {
	for _, e := range slices.Backward(l.entries[:index]) {
		if e.Type == kind {
			return e
		}
	}
	return nil
}

func (l *transparencyLog) last(kind string) *entry {
	return l.lastBefore(kind, int64(len(l.entries)))
}

// certified returns the one entry about a certificate.
func (l *transparencyLog) certified(kind, digest string) (*entry, error) {
	var found []*entry
	for _, e := range l.entries {
		if e.Type == kind && e.Certificate == digest {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		return nil, &mismatch{kind + " of " + digest, "one log entry", fmt.Sprint(len(found))}
	}
	return found[0], nil
}
