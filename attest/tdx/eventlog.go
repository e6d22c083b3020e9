// SPDX-License-Identifier: Apache-2.0

package tdx

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/c8s-dev/c8s/attest"
)

// The CC event log is a TCG crypto-agile log (TCG PC Client Platform Firmware
// Profile, section 10; ACPI 6.5, CCEL). Its register numbers are one above those
// of the RTMRs, since 0 is MRTD (Intel TDX Virtual Firmware Design Guide).
const (
	evNoAction   = 3
	algSHA384    = 0x000c
	sha1Size     = 20
	sha384Size   = 48
	firstRTMR    = 1
	numRTMR      = 4
	maxEvents    = 4096
	maxAlgs      = 8
	maxEventSize = 64 << 10
	registerSize = 4 // bytes of a register's number
)

func specID() []byte { return []byte("Spec ID Event03\x00") }

// Event is one thing that extended an RTMR.
type Event struct {
	RTMR   int    // 0 to 3
	Type   uint32 // TCG event type
	Digest [sha384Size]byte
	Data   []byte // what the firmware says it measured; only Digest is proven
}

// ParseEventLog reads a log. Behind its end only bytes of 0xFF may stand, as
// firmware pads it. The events' data are slices of b.
func ParseEventLog(b []byte) ([]Event, error) {
	if len(b) > attest.MaxEventLog {
		return nil, logError(fmt.Sprintf("at most %d bytes", attest.MaxEventLog), fmt.Sprintf("%d bytes", len(b)))
	}
	l := &logParser{rest: b}
	events := l.events()
	if l.err == nil && len(bytes.TrimRight(l.rest, "\xff")) != 0 {
		l.refuse("nothing but 0xFF after the last event", "something else")
	}
	if l.err != nil {
		return nil, l.err
	}
	return events, nil
}

// TrimEventLog cuts the padding of 0xFF that firmware leaves behind a log. What
// is no log stays as it is, for ParseEventLog to refuse.
func TrimEventLog(b []byte) []byte {
	l := &logParser{rest: b}
	if l.events(); l.err != nil {
		return b
	}
	return b[:len(b)-len(l.rest)]
}

func logError(expected, actual string) error {
	return attest.NewFailure(CodeEventLogFormat, expected, actual, "")
}

// logParser takes fields off the front and keeps the first error.
type logParser struct {
	rest []byte
	err  error
}

// events reads header and events, up to the end or to padding.
func (l *logParser) events() []Event {
	sizes := l.header()
	var events []Event
	for l.err == nil && !l.atEnd() {
		if len(events) == maxEvents {
			l.refuse(fmt.Sprintf("at most %d events", maxEvents), "more")
			break
		}
		if e, extends := l.event(sizes); extends {
			events = append(events, e)
		}
	}
	return events
}

// atEnd reports whether no event can follow: there is no register 0xFFFFFFFF.
func (l *logParser) atEnd() bool {
	n := min(len(l.rest), registerSize)
	return bytes.Equal(l.rest[:n], []byte("\xff\xff\xff\xff")[:n])
}

func (l *logParser) refuse(expected, actual string) {
	if l.err == nil {
		l.err = logError(expected, actual)
	}
}

func (l *logParser) take(n uint64, what string) []byte {
	if l.err != nil || uint64(len(l.rest)) < n {
		l.refuse(fmt.Sprintf("%s of %d bytes", what, n), fmt.Sprintf("%d bytes", len(l.rest)))
		return nil
	}
	b := l.rest[:n]
	l.rest = l.rest[n:]
	return b
}

func (l *logParser) uint16(what string) uint16 {
	if b := l.take(2, what); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (l *logParser) uint32(what string) uint32 {
	if b := l.take(4, what); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (l *logParser) data(what string) []byte {
	n := l.uint32("the size of " + what)
	if n > maxEventSize {
		l.refuse(fmt.Sprintf("%s of at most %d bytes", what, maxEventSize), fmt.Sprint(n))
		return nil
	}
	return l.take(uint64(n), what)
}

// header reads the first event, which has the old format and names the digests
// of the others.
func (l *logParser) header() map[uint16]int {
	l.uint32("a register number")
	if kind := l.uint32("an event type"); l.err == nil && kind != evNoAction {
		l.refuse("a log that begins with EV_NO_ACTION", fmt.Sprintf("type %#x", kind))
	}
	l.take(sha1Size, "a digest")
	h := &logParser{rest: l.data("the header"), err: l.err}
	if id := h.take(uint64(len(specID())), "a signature"); h.err == nil && !bytes.Equal(id, specID()) {
		h.refuse(fmt.Sprintf("the signature %q", specID()), fmt.Sprintf("%q", id))
	}
	h.take(8, "platform class and version")
	n := h.uint32("the number of digests")
	if n == 0 || n > maxAlgs {
		h.refuse(fmt.Sprintf("1 to %d digests", maxAlgs), fmt.Sprint(n))
	}
	sizes := make(map[uint16]int, maxAlgs)
	for i := uint32(0); i < n && h.err == nil; i++ {
		alg := h.uint16("a digest algorithm")
		sizes[alg] = int(h.uint16("a digest size"))
	}
	if b := h.take(1, "the size of vendor information"); b != nil {
		h.take(uint64(b[0]), "vendor information")
	}
	if h.err == nil && (len(h.rest) != 0 || len(sizes) != int(n) || sizes[algSHA384] != sha384Size) {
		h.refuse("a header with SHA-384, each digest once and nothing after it", "another")
	}
	l.err = h.err
	return sizes
}

func (l *logParser) event(sizes map[uint16]int) (e Event, extends bool) {
	index := l.uint32("a register number")
	e.Type = l.uint32("an event type")
	n := l.uint32("the number of digests")
	if l.err == nil && int64(n) != int64(len(sizes)) {
		l.refuse(fmt.Sprintf("%d digests, as the header says", len(sizes)), fmt.Sprint(n))
	}
	seen := 0
	for i := uint32(0); i < n && l.err == nil; i++ {
		alg := l.uint16("a digest algorithm")
		size, known := sizes[alg]
		if !known {
			l.refuse("a digest that the header names", fmt.Sprintf("algorithm %#x", alg))
			break
		}
		d := l.take(uint64(size), "a digest") //nolint:gosec // from 16 bits
		if alg == algSHA384 && d != nil {
			copy(e.Digest[:], d)
			seen++
		}
	}
	e.Data = l.data("an event")
	if l.err == nil && seen != 1 {
		l.refuse("one SHA-384 digest in every event", fmt.Sprint(seen))
	}
	if e.Type == evNoAction {
		return e, false
	}
	if l.err == nil && (index < firstRTMR || index >= firstRTMR+numRTMR) {
		l.refuse("a register from 1 to 4", fmt.Sprint(index))
	}
	e.RTMR = int(index) - firstRTMR
	return e, l.err == nil
}

// Replay extends four registers of zeros with the events.
func Replay(events []Event) [numRTMR][sha384Size]byte {
	var registers [numRTMR][sha384Size]byte
	for i := range events {
		e := &events[i]
		registers[e.RTMR] = sha512.Sum384(append(registers[e.RTMR][:], e.Digest[:]...))
	}
	return registers
}

// CheckEventLog checks that the events lead to the quote's registers, and names
// the first that they do not.
func (q *Quote) CheckEventLog(events []Event) error {
	for i, got := range Replay(events) {
		if got != q.RTMR[i] {
			return attest.NewFailure(CodeEventLogReplay, fmt.Sprintf("RTMR%d (register %d of the log) %s, as in the quote", i, i+firstRTMR, hex.EncodeToString(q.RTMR[i][:])), hex.EncodeToString(got[:]),
				"give the log of the boot that the quote is of; what extended the register outside the log is missing in it")
		}
	}
	return nil
}
