// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"encoding/binary"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// reader cuts bytes off the front. After the first error it gives nothing.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) next(n int, what string) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.rest) {
		r.err = attest.NewFailure(CodeQuoteFormat, fmt.Sprintf("%s of %d bytes", what, n), fmt.Sprintf("%d bytes", len(r.rest)), "")
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// prefixed reads bytes after their length, which has size bytes (2 or 4).
func (r *reader) prefixed(size int, what string) []byte {
	b := r.next(size, "length of "+what)
	if r.err != nil {
		return nil
	}
	n := uint32(binary.LittleEndian.Uint16(b))
	if size == lengthSize {
		n = binary.LittleEndian.Uint32(b)
	}
	if n > MaxQuote { // so that it fits an int everywhere
		r.err = attest.NewFailure(CodeQuoteFormat, fmt.Sprintf("%s of at most %d bytes", what, MaxQuote), fmt.Sprintf("%d bytes", n), "")
		return nil
	}
	return r.next(int(n), what)
}

// certification reads certification data of the wanted type.
func (r *reader) certification(want uint16) *reader {
	b := r.next(2, "type of certification data")
	if r.err != nil {
		return &reader{err: r.err}
	}
	if got := binary.LittleEndian.Uint16(b); got != want {
		r.err = attest.NewFailure(CodeCertification, fmt.Sprintf("certification data of type %d", want), fmt.Sprintf("type %d", got), "have the platform's quoting service put the PCK certificate chain into its quotes")
		return &reader{err: r.err}
	}
	data := r.prefixed(lengthSize, "certification data")
	return &reader{rest: data, err: r.err}
}

// done refuses what is left over.
func (r *reader) done(what string) error {
	if r.err == nil && len(r.rest) != 0 {
		r.err = attest.NewFailure(CodeQuoteFormat, what+" that ends with its last part", fmt.Sprintf("%d bytes more", len(r.rest)), "")
	}
	return r.err
}
