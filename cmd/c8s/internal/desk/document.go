// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/c8s-dev/c8s/policy"
)

// Kind is a kind of document that operators sign.
type Kind[T any] struct {
	Name    string // for people
	Command string // that reads and signs it
	Type    string // payload type of its envelopes
	Max     int    // bytes of an envelope
	Parse   func(payload []byte) (*T, error)
}

// Manifests are documents of 'c8s manifest'.
func Manifests() Kind[policy.Manifest] {
	return Kind[policy.Manifest]{Name: "manifest", Command: "c8s manifest", Type: policy.PayloadType, Max: policy.MaxEnvelope, Parse: policy.Parse}
}

// File is a document as it was read, its signatures not checked.
type File struct {
	Path     string
	Raw      []byte
	Envelope *policy.Envelope // nil: not signed
}

// Signed reports whether the file is an envelope.
func (f *File) Signed() bool { return f.Envelope != nil }

// Payload is the document itself.
func (f *File) Payload() []byte {
	if f.Signed() {
		return f.Envelope.Payload
	}
	return f.Raw
}

// KeyIDs are those of the signatures; never nil, for JSON.
func (f *File) KeyIDs() []string {
	ids := []string{}
	if f.Signed() {
		for _, s := range f.Envelope.Signatures {
			ids = append(ids, s.KeyID)
		}
	}
	return ids
}

// Document is a file and what it says.
type Document[T any] struct {
	File
	Content *T
}

// Read reads a document, signed or not, without judging its signatures.
func (k Kind[T]) Read(c *cobra.Command, path string) (*Document[T], error) {
	raw, err := k.raw(c, path)
	if err != nil {
		return nil, err
	}
	return k.Decode(path, raw)
}

// Decode is Read for bytes that were read already; path is for errors.
func (k Kind[T]) Decode(path string, raw []byte) (*Document[T], error) {
	f, err := k.file(path, raw)
	if err != nil {
		return nil, err
	}
	content, err := k.Parse(f.Payload())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Document[T]{File: *f, Content: content}, nil
}

// ReadSigned refuses a document that is not signed, and does not look into one
// that is: that is for whoever checks its signatures.
func (k Kind[T]) ReadSigned(c *cobra.Command, path string) (*File, error) {
	raw, err := k.raw(c, path)
	if err != nil {
		return nil, err
	}
	f, err := k.file(path, raw)
	if err != nil || f.Signed() {
		return f, err
	}
	if _, err := k.Parse(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return nil, k.NotSigned(path)
}

// NotSigned is the refusal of a document without signatures.
func (k Kind[T]) NotSigned(path string) error {
	return fmt.Errorf("%s is a %s without signatures; sign it with '%s sign'", path, k.Name, k.Command)
}

// Diff prints what changes from the first file to the second.
func (k Kind[T]) Diff(c *cobra.Command, out *Output, paths []string, diff func(before, after *T) []policy.Change) error {
	before, err := k.Read(c, paths[0])
	if err != nil {
		return err
	}
	after, err := k.Read(c, paths[1])
	if err != nil {
		return err
	}
	changes := append([]policy.Change{}, diff(before.Content, after.Content)...)
	return out.Write(c, changes, func(w io.Writer) error { return PrintChanges(w, changes) })
}

func (k Kind[T]) raw(c *cobra.Command, path string) ([]byte, error) {
	raw, err := ReadInput(c, path, int64(k.Max))
	if err != nil {
		return nil, fmt.Errorf("reading the %s: %w", k.Name, err)
	}
	return raw, nil
}

func (k Kind[T]) file(path string, raw []byte) (*File, error) {
	if len(raw) > k.Max { // cut off, it would look like something else
		return nil, fmt.Errorf("reading the %s: %s has more than %d bytes", k.Name, path, k.Max)
	}
	f := &File{Path: path, Raw: raw}
	if !IsEnvelope(raw) {
		return f, nil
	}
	var err error
	if f.Envelope, err = policy.ParseEnvelopeOf(raw, k.Max); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if t := f.Envelope.PayloadType; t != k.Type {
		return nil, fmt.Errorf("%s: the envelope holds %q, not a %s%s", path, t, k.Name, ours(t))
	}
	return f, nil
}

// ours says what else an envelope may be for.
func ours(payloadType string) string {
	switch payloadType {
	case policy.PayloadType:
		return "; it is a manifest, for 'c8s manifest'"
	case policy.DenyListPayloadType:
		return "; it is a deny list, for 'c8s denylist'"
	}
	return ""
}

// IsEnvelope tells signed documents from bare ones. It only chooses the
// parser, which then is strict.
func IsEnvelope(raw []byte) bool {
	var probe map[string]json.RawMessage
	if json.Unmarshal(raw, &probe) != nil {
		return false
	}
	_, ok := probe["payloadType"]
	return ok
}
