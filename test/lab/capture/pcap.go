// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// pcapWriter writes the classic pcap format with nanosecond stamps
// (draft-ietf-opsawg-pcap), link type Ethernet.
type pcapWriter struct{ w io.Writer }

const (
	pcapMagicNano = 0xa1b23c4d
	pcapEthernet  = 1
)

func newPcapWriter(w io.Writer) (*pcapWriter, error) {
	h := make([]byte, 24)
	binary.LittleEndian.PutUint32(h, pcapMagicNano)
	binary.LittleEndian.PutUint16(h[4:], 2)
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], maxFrame)
	binary.LittleEndian.PutUint32(h[20:], pcapEthernet)
	if _, err := w.Write(h); err != nil {
		return nil, fmt.Errorf("writing the pcap header: %w", err)
	}
	return &pcapWriter{w}, nil
}

func (p *pcapWriter) write(frame []byte, length int, now time.Time) error {
	rec := make([]byte, 16, 16+len(frame))
	binary.LittleEndian.PutUint32(rec, uint32(now.Unix()))
	binary.LittleEndian.PutUint32(rec[4:], uint32(now.Nanosecond()))
	binary.LittleEndian.PutUint32(rec[8:], uint32(len(frame)))
	binary.LittleEndian.PutUint32(rec[12:], uint32(length))
	if _, err := p.w.Write(append(rec, frame...)); err != nil {
		return fmt.Errorf("writing a pcap record: %w", err)
	}
	return nil
}
