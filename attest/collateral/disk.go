// SPDX-License-Identifier: Apache-2.0

package collateral

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	modeDir fs.FileMode = 0o700

	dirEntries = "entries" // one file for each request
	dirObjects = "objects" // bodies and certificates, named by their SHA-256
	tempMark   = ".tmp-"

	entryVersion = 1
	maxEntryFile = 4 << 10

	// Files that nothing refers to may be of a writer that is about to.
	sweepAfter = time.Hour
)

// disk is the folder of a store. A file is complete or ignored: files are
// renamed into place, contents must have the hash that is their name, and an
// entry must agree with what its contents say. Processes may share the folder:
// the worst one does to another is to make it fetch again.
type disk struct {
	dir   string
	warn  func(path string, err error)
	now   func() time.Time
	write func(path string, data []byte) error
	refs  map[string]int  // how many items use an object
	there map[string]bool // objects that were written or read
}

// entry is the file that says where a request's content is. It is readable
// only in the exact form in which it is written.
type entry struct {
	Version    int       `json:"version"`
	Request    string    `json:"request"`
	Body       string    `json:"body"`
	Certs      []string  `json:"certs"`
	Fetched    time.Time `json:"fetched"`
	NextUpdate time.Time `json:"nextUpdate"`
}

func openDisk(dir string, now func() time.Time, warn func(string, error)) (*disk, error) {
	d := &disk{dir: dir, warn: warn, now: now, write: writeAtomic, refs: make(map[string]int), there: make(map[string]bool)}
	for _, sub := range []string{"", dirEntries, dirObjects} {
		path := filepath.Join(dir, sub)
		if err := os.MkdirAll(path, modeDir); err != nil {
			return nil, fail(CodeStore, "a folder that can be written", short(err.Error()), "")
		}
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
			return nil, fail(CodeStore, "a folder that no one else may write to", short(path), "run 'chmod go-w' on it, or name another folder")
		}
	}
	return d, nil
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (d *disk) entryPath(r Request) string {
	return filepath.Join(d.dir, dirEntries, hashOf([]byte(r.String()))+".json")
}

func (d *disk) objectPath(hash string) string { return filepath.Join(d.dir, dirObjects, hash) }

func entryOf(i Item) entry {
	e := entry{
		Version: entryVersion, Request: i.Request.String(), Body: hashOf(i.Body), Certs: []string{},
		Fetched: i.Fetched, NextUpdate: i.NextUpdate,
	}
	for _, c := range i.Certs {
		e.Certs = append(e.Certs, hashOf(c))
	}
	return e
}

func (e entry) objects() []string { return append([]string{e.Body}, e.Certs...) }

func (e entry) encode() ([]byte, error) {
	text, err := json.Marshal(e)
	return append(text, '\n'), err
}

// put writes the contents before the entry that names them.
func (d *disk) put(i Item) error {
	e := entryOf(i)
	for _, hash := range e.objects() {
		d.refs[hash]++
	}
	for n, content := range append([][]byte{i.Body}, i.Certs...) {
		hash := e.objects()[n]
		if d.there[hash] {
			continue
		}
		if err := d.write(d.objectPath(hash), content); err != nil {
			return err
		}
		d.there[hash] = true
	}
	text, err := e.encode()
	if err != nil {
		return err
	}
	return d.write(d.entryPath(i.Request), text)
}

// release forgets that an item uses its contents, and removes those that none
// does any more, unless they are to stay until the next load.
func (d *disk) release(i Item, stay bool) {
	for _, hash := range entryOf(i).objects() {
		if d.refs[hash]--; d.refs[hash] > 0 {
			continue
		}
		delete(d.refs, hash)
		if !stay {
			delete(d.there, hash)
			d.remove(d.objectPath(hash))
		}
	}
}

// drop removes an item.
func (d *disk) drop(i Item) {
	d.remove(d.entryPath(i.Request))
	d.release(i, false)
}

func (d *disk) remove(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.warn(path, err)
	}
}

// load returns up to limit items and removes what cannot be used.
func (d *disk) load(limit int) []Item {
	var items []Item
	for _, name := range d.names(dirEntries) {
		path := filepath.Join(d.dir, dirEntries, name)
		if strings.Contains(name, tempMark) {
			d.sweep(path)
			continue
		}
		i, err := d.read(path)
		if err == nil && len(items) >= limit {
			err = fmt.Errorf("more than %d entries", limit)
		}
		if err != nil {
			d.warn(path, err)
			d.remove(path)
			continue
		}
		items = append(items, i)
		for _, hash := range entryOf(i).objects() {
			d.refs[hash]++
			d.there[hash] = true
		}
	}
	for _, name := range d.names(dirObjects) {
		if d.refs[name] == 0 {
			d.sweep(filepath.Join(d.dir, dirObjects, name))
		}
	}
	return items
}

// names lists a folder in parts, so that one that was filled by someone else
// costs no memory.
func (d *disk) names(sub string) []string {
	const most = 1 << 16
	f, err := os.Open(filepath.Join(d.dir, sub))
	if err != nil {
		d.warn(sub, err)
		return nil
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(most)
	if err != nil && !errors.Is(err, io.EOF) {
		d.warn(sub, err)
	}
	return names
}

// sweep removes a file that nothing refers to, unless it is new.
func (d *disk) sweep(path string) {
	info, err := os.Lstat(path)
	if err == nil && d.now().Sub(info.ModTime()) >= sweepAfter {
		d.remove(path)
	}
}

func (d *disk) read(path string) (Item, error) {
	text, err := readRegular(path, maxEntryFile)
	if err != nil {
		return Item{}, err
	}
	var e entry
	if err := json.Unmarshal(text, &e); err != nil {
		return Item{}, err
	}
	if canonical, err := e.encode(); err != nil || !bytes.Equal(canonical, text) || e.Version != entryVersion {
		return Item{}, errors.New("not an entry as this version writes it")
	}
	r, err := ParseRequest(e.Request)
	if err != nil {
		return Item{}, err
	}
	if filepath.Base(path) != filepath.Base(d.entryPath(r)) {
		return Item{}, errors.New("an entry under another's name")
	}
	body, certs, err := d.contents(e)
	if err != nil {
		return Item{}, err
	}
	i, err := NewItem(r, body, certs, e.Fetched)
	if err != nil {
		return Item{}, err
	}
	if again, err := entryOf(i).encode(); err != nil || !bytes.Equal(again, text) {
		return Item{}, errors.New("the entry and its contents differ")
	}
	return i, nil
}

func (d *disk) contents(e entry) (body []byte, certs [][]byte, err error) {
	for n, hash := range e.objects() {
		if !lowerHex(hash, sha256.Size) {
			return nil, nil, errors.New("not a hash")
		}
		content, err := readRegular(d.objectPath(hash), maxObject)
		if err != nil {
			return nil, nil, err
		}
		if hashOf(content) != hash {
			d.remove(d.objectPath(hash)) // or it would never be written again
			return nil, nil, errors.New("content damaged: " + hash)
		}
		if n == 0 {
			body = content
		} else {
			certs = append(certs, content)
		}
	}
	return body, certs, nil
}
