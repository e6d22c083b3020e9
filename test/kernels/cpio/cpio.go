// SPDX-License-Identifier: Apache-2.0

// Package cpio writes the archives that Linux unpacks as its first root file
// system: format "newc" of Documentation/driver-api/early-userspace/buffer-format.rst.
package cpio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// File types, as in inode(7).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

const trailer = "TRAILER!!!"

// Writer writes one archive. Parent folders are made as they are needed. The
// first error stays.
type Writer struct {
	w     io.Writer
	inode uint32
	made  map[string]bool
	err   error
}

// NewWriter writes to w; Close ends the archive and leaves w open.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, made: map[string]bool{}} }

// Dir adds a folder.
func (w *Writer) Dir(name string) { w.parents(name + "/x") }

// Link adds a symbolic link.
func (w *Writer) Link(name, target string) {
	w.parents(name)
	w.entry(name, typeLink|0o777, int64(len(target)), strings.NewReader(target))
}

// Data adds a file.
func (w *Writer) Data(name string, perm uint32, data string) {
	w.parents(name)
	w.entry(name, typeFile|perm, int64(len(data)), strings.NewReader(data))
}

// File adds a copy of a file with its permissions.
func (w *Writer) File(name, from string) {
	f, err := os.Open(from)
	if err != nil {
		w.fail(err)
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		w.fail(err)
		return
	}
	w.parents(name)
	w.entry(name, typeFile|uint32(st.Mode().Perm()), st.Size(), f)
}

// Close ends the archive.
func (w *Writer) Close() error {
	w.entry(trailer, 0, 0, strings.NewReader(""))
	if w.err != nil {
		return fmt.Errorf("writing a cpio archive: %w", w.err)
	}
	return nil
}

func (w *Writer) parents(name string) {
	dir := path.Dir(strings.TrimPrefix(name, "/"))
	if dir == "." || w.made[dir] {
		return
	}
	w.parents(dir)
	w.made[dir] = true
	w.entry(dir, typeDir|0o755, 0, strings.NewReader(""))
}

func (w *Writer) entry(name string, mode uint32, size int64, data io.Reader) {
	if w.err != nil {
		return
	}
	if size >= 1<<32 {
		w.fail(errors.New(name + " is too large for the format"))
		return
	}
	name = strings.TrimPrefix(name, "/")
	w.inode++
	header := "070701"
	for _, v := range []uint32{w.inode, mode, 0, 0, 1, 0, uint32(size), 0, 0, 0, 0, uint32(len(name) + 1), 0} {
		header += fmt.Sprintf("%08X", v)
	}
	if _, err := io.WriteString(w.w, pad(header+name+"\x00")); err != nil {
		w.fail(err)
		return
	}
	n, err := io.Copy(w.w, data)
	if err == nil && n != size {
		err = fmt.Errorf("%s has %d bytes instead of %d", name, n, size)
	}
	if err == nil {
		_, err = io.WriteString(w.w, "\x00\x00\x00"[:-n&3])
	}
	w.fail(err)
}

func pad(s string) string { return s + "\x00\x00\x00"[:-len(s)&3] }

func (w *Writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
